"""The promises of the house: small files, scripts to lay side by side, imports that point one way."""
import ast
import difflib
import functools
import io
import os
import tokenize
from types import SimpleNamespace

import conftest
import pytest
from conftest import ROOT

SCRIPTS = {path.stem: path for path in ROOT.glob("*.py")}
TRAINING = ["gan_mnist_mlp", "dcgan_mnist", "dcgan_celeba", "wgan_celeba"]
TOOLS = ["explore_latent", "score_samples"]
LINES = {"common": 230, "toy_images": 75, "gan_mnist_mlp": 230, "dcgan_mnist": 210, "dcgan_celeba": 210,
         "wgan_celeba": 210, "explore_latent": 180, "score_samples": 205, "cuda_graph": 45}


@functools.cache
def tree(name):
    return ast.parse(SCRIPTS[name].read_text("utf-8"))


def code_lines(name, node=None):
    """How many lines of a file, or of a function in it, hold code: no blank lines, comments and docstrings."""
    if node:
        return len(numbers_of_code_lines(name) & set(range(node.lineno, node.end_lineno + 1)))
    return len(numbers_of_code_lines(name))


@functools.cache
def numbers_of_code_lines(name):
    lines, docstrings = set(), set()
    for part in ast.walk(tree(name)):
        if isinstance(part, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(part) is not None:
            docstrings.update(range(part.body[0].lineno, part.body[0].end_lineno + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(SCRIPTS[name].read_text("utf-8")).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - docstrings


# ----------------------------------------------------------------------------------------------------------------- size
def test_every_script_has_a_limit():
    assert SCRIPTS.keys() == LINES.keys() == {*TRAINING, *TOOLS, "common", "toy_images", "cuda_graph"}


@pytest.mark.parametrize("name", LINES)
def test_scripts_stay_small_enough_to_read_and_to_project(name):
    assert code_lines(name) <= LINES[name]
    wide = [line for line in SCRIPTS[name].read_text("utf-8").splitlines() if len(line) > 100]
    assert not wide, "at most 100 columns: they are projected"


def test_common_is_a_shelf_of_small_functions():
    nodes = list(ast.walk(tree("common")))
    assert not [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    assert not [node.name for node in nodes if isinstance(node, ast.FunctionDef) and code_lines("common", node) > 30]


def test_the_two_steps_of_every_script_can_be_seen_at_once():
    for name in TRAINING:
        steps = {node.name: code_lines(name, node) for node in tree(name).body if isinstance(node, ast.FunctionDef)}
        assert 5 <= steps["step_D"] <= 13 and 5 <= steps["step_G"] <= 13


# -------------------------------------------------------------------------------------------- scripts laid side by side
def text_of(name, function):
    """A function's lines, comments included, without its docstring."""
    node = next(node for node in tree(name).body if isinstance(node, ast.FunctionDef) and node.name == function)
    lines = SCRIPTS[name].read_text("utf-8").splitlines()
    first = node.body[0]
    docstring = range(first.lineno, first.end_lineno + 1) if ast.get_docstring(node) is not None else ()
    return [lines[i - 1] for i in range(node.lineno, node.end_lineno + 1) if i not in docstring]


@pytest.mark.parametrize("step", ["step_D", "step_G"])
def test_the_steps_of_blog_and_lab_are_the_same_but_for_the_mean_of_two_halves(step):
    blog, lab = (text_of(name, step) for name in ("dcgan_mnist", "dcgan_celeba"))
    assert [line.replace(" / 2", "") for line in blog] == lab
    assert sum(" / 2" in line for line in blog) == (step == "step_D")


@pytest.mark.parametrize("other, gone, new", [("dcgan_mnist", 12, 12), ("wgan_celeba", 27, 36)])
def test_the_diff_of_two_mains_is_a_lesson(other, gone, new):
    lines = list(difflib.unified_diff(text_of("dcgan_celeba", "main"), text_of(other, "main"), n=0))[2:]
    assert sum(line.startswith("-") for line in lines) <= gone
    assert sum(line.startswith("+") for line in lines) <= new


# -------------------------------------------------------------------------------------------------------------- imports
def imports(name, lazy=True):
    """The project's modules that a file imports, those inside its functions included."""
    nodes = ast.walk(tree(name)) if lazy else tree(name).body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names if name} & LINES.keys()


def test_imports_point_one_way():
    """So that a script and common.py are enough; the toy images and the CUDA graph only where they are chosen."""
    for name in TRAINING:
        graph = set() if name == "gan_mnist_mlp" else {"cuda_graph"}  # whose observer looks between the two updates
        assert imports(name, lazy=False) == {"common"} and imports(name) == {"common", "toy_images"} | graph
    for name in TOOLS:  # which import the one script that a checkpoint names, when they have seen its name
        assert "common" in imports(name, lazy=False) and not imports(name, lazy=False) & set(TRAINING)
    assert imports("common") == imports("toy_images") == imports("cuda_graph") == set()


# ----------------------------------------------------------------------------------------------------- the test command
@pytest.mark.parametrize("asked, chosen, hidden", [
    ("", "not slow and not cuda", True), ("slow", "slow", True), ("not cuda", "not cuda", True),
    ("cuda", "cuda", False), ("slow or cuda", "slow or cuda", False)])
def test_GPUs_are_hidden_unless_they_are_asked_for(asked, chosen, hidden, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    config = SimpleNamespace(option=SimpleNamespace(markexpr=asked), addinivalue_line=lambda *line: None)
    conftest.pytest_configure(config)
    assert config.option.markexpr == chosen and os.environ["CUDA_VISIBLE_DEVICES"] == ("" if hidden else "0")
