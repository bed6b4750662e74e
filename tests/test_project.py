"""The promise that a script and common.py are enough: imports point one way."""
import ast

import pytest
from conftest import ROOT

SCRIPTS = {path.stem: path for path in ROOT.glob("*.py")}
TRAINING = ["gan_mnist_mlp", "dcgan_mnist", "dcgan_celeba", "wgan_celeba"]
TOOLS = ["explore_latent", "score_samples"]


def imports(name, lazy=True):
    """The project's modules that a file imports, those inside its functions included."""
    tree = ast.parse(SCRIPTS[name].read_text("utf-8"))
    names = set()
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names} & SCRIPTS.keys()


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_script_needs_only_common(name):
    """The toy images and the CUDA graph only where they are chosen."""
    assert imports(name, lazy=False) == {"common"}
    assert imports(name) == {"common", "toy_images", "cuda_graph"}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_imports_a_training_script_only_when_a_checkpoint_has_named_it(name):
    at_once = imports(name, lazy=False)
    assert "common" in at_once and not at_once & set(TRAINING)


@pytest.mark.parametrize("name", ["common", "toy_images", "cuda_graph"])
def test_helpers_import_no_other_file(name):
    assert imports(name) == set()
