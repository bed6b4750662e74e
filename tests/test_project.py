"""The promises of the README and of the house: no dead flags, small files, commands that exist."""
import ast
import io
import re
import tokenize

import pytest
from conftest import ROOT

SCRIPTS = sorted(path for path in ROOT.glob("*.py") if path.name != "common.py")
TRAINING = [path for path in SCRIPTS if path.stem not in ("explore_latent", "score_samples")]
README = (ROOT / "README.md").read_text()
by_name = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)


def code_lines(path):
    """Lines that hold code: blank lines, comments and docstrings do not count."""
    source, lines, docstrings = path.read_text(), set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


@by_name
def test_scripts_stay_small(path):
    assert code_lines(path) <= 260


def test_common_stays_small():
    assert code_lines(ROOT / "common.py") <= 370


def flags_of(path):
    """The flags that a script declares, those that every training script gets from common.py included."""
    files = [path, ROOT / "common.py"] if path in TRAINING else [path]
    return re.findall(r'add_argument\("--([a-z0-9-]+)"', "".join(file.read_text() for file in files))


@by_name
def test_no_dead_flags(path):
    """Every flag that a script declares is read somewhere."""
    source = path.read_text() + (ROOT / "common.py").read_text()
    for flag in flags_of(path):
        assert re.search(rf"\bargs\.{flag.replace('-', '_')}\b", source), f"--{flag} is declared but never read"


def test_flags_and_scripts_in_the_readme_exist():
    for line in README.splitlines():
        for script, rest in re.findall(r"python3? (\w+\.py)([^`\n#]*)", line):
            assert (ROOT / script).exists(), script
            assert set(re.findall(r"--([a-z][a-z0-9-]*)", rest)) <= {*flags_of(ROOT / script), "help"}, line


def test_pictures_in_the_readme_exist_and_are_small():
    pictures = re.findall(r"docs/[\w./-]+\.(?:png|gif)", README)
    assert pictures and all((ROOT / picture).exists() for picture in pictures)
    assert sum(path.stat().st_size for path in (ROOT / "docs").iterdir()) < 3e6


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if "pytest" in line and "pip install" in line)
    assert command.strip() in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("path", TRAINING, ids=lambda path: path.stem)
def test_a_training_script_imports_only_common(path):
    imported = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
                for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module])}
    assert not imported & {other.stem for other in SCRIPTS}
