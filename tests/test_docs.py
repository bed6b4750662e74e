"""What the README and the pages in docs/ say: commands, flags, links, pictures, snippets and numbers that are there."""
import argparse
import ast
import os
import re
import shlex
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT, SCRIPTS, apply_patch
from PIL import Image

import common
import explore_latent
import score_samples

sys.path.insert(0, str(ROOT / "docs/notebook"))
import make_pictures

README = (ROOT / "README.md").read_text("utf-8")
PAGES = {str(path.relative_to(ROOT)): path.read_text("utf-8")
         for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("pretrained/*.md")),
                      *sorted(ROOT.glob("exercises/*.md"))]}
each_page = pytest.mark.parametrize("name", PAGES)
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def flags():
    """script -> the flags that it takes, those of its commands included."""
    found, add_argument = {}, argparse._ActionsContainer.add_argument

    def note(container, *names, **how):
        action = add_argument(container, *names, **how)
        found[script.__name__ + ".py"].update(action.option_strings)
        return action

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse._ActionsContainer, "add_argument", note)
        for script in [*SCRIPTS, explore_latent, score_samples]:
            found[script.__name__ + ".py"] = set()
            with pytest.raises(SystemExit):
                script.parse_args(["--help"])
    return found


@each_page
def test_scripts_and_flags_exist(name, flags):
    for script, rest in re.findall(r"python3? ((?:\w+/)*\w+\.py)([^`\n#|]*)", PAGES[name]):
        assert (ROOT / script).exists(), script
        words = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest))
        if script in flags:
            assert words <= flags[script], (script, rest)


@each_page
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        page = (folder / path).resolve() if path else ROOT / name
        assert page.exists(), target
        if anchor:
            assert anchor in anchors(page.read_text("utf-8")), target


def test_every_picture_is_shown_and_all_are_small():
    paths = [*(ROOT / "docs/pictures").iterdir(), *(ROOT / "exercises/pictures").iterdir()]
    pictures = {path.name: path.stat().st_size for path in paths}
    shown = set(re.findall(r"pictures/([\w.-]+\.png)", "".join(PAGES.values())))
    assert shown == set(pictures), shown ^ set(pictures)
    assert sum(pictures.values()) < 4e6


@pytest.mark.parametrize("patch", sorted((ROOT / "docs/notebook/patches").glob("*.patch")), ids=lambda path: path.stem)
def test_the_patches_behind_the_notebook_fit_the_scripts(patch):
    name = apply_patch(patch)
    compile(Path(name).read_text(), name, "exec")


def test_the_lines_of_runs_txt_can_be_pasted(flags):
    """Scripts, flags and patches are there, no two runs share a folder, and what a line reads is the folder of
    a run above it."""
    scripts = {script.__name__ + ".py": script for script in SCRIPTS}
    folders = set()
    for line in (ROOT / "docs/notebook/runs.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        command, _, patch = line.partition("  # ")
        python, script, *words = shlex.split(command)
        assert python == "python" and (ROOT / script).is_file(), line
        assert not patch or patch.endswith(".patch") and (ROOT / patch).is_file(), line
        source = (ROOT / script).read_text("utf-8")
        for word in words:
            if word.startswith("--"):
                assert word in flags[script] if script in flags else f'"{word}"' in source, line
        out = words[words.index("--out") + 1] if "--out" in words else None
        for word in words:
            if word.startswith("runs/") and word != out:
                assert "/".join(Path(word).parts[:3]) in folders, line
        if script in scripts:
            scripts[script].parse_args(words)  # their values too
            assert re.fullmatch(r"runs/notebook/[\w.-]+", out), line
        if out:
            assert out not in folders, line
            folders.add(out)
            Path(out).mkdir(parents=True)
            Path(out, "losses.csv").touch()  # --compare looks for it
    assert len(folders) > 150


@pytest.mark.parametrize("name", make_pictures.PICTURES)
def test_a_picture_whose_run_is_missing_names_the_line_that_makes_it(name, stops, monkeypatch):
    runs = (ROOT / "docs/notebook/runs.txt").read_text("utf-8").splitlines()
    monkeypatch.setattr(make_pictures, "ROOT", Path.cwd())
    line = stops(lambda argv: make_pictures.PICTURES[name](), [])
    assert line.strip().partition(" makes it: ")[2] in runs


def test_each_picture_has_its_program():
    drawn = {f"{name}.png" for name in make_pictures.PICTURES} | {"gan.png", "upsampling.png"}
    assert drawn == {path.name for path in (ROOT / "docs/pictures").iterdir()}


def test_labels_stand_beside_the_pictures_and_do_not_touch_them():
    block = Image.new("RGB", (70, 50), "red")
    sheet = make_pictures.labelled([[block] * 3, [block] * 3], ["seed 1", "two\nlines"], ["a", "b", "100 epochs"])
    assert sum(count for count, colour in sheet.getcolors(100_000) if colour == (255, 0, 0)) == 6 * 70 * 50
    left, top = sheet.width - 3 * 78, sheet.height - 2 * 58
    for rest in (sheet.crop((0, 0, left - 8, sheet.height)), sheet.crop((left, 0, sheet.width, top - 8))):
        assert rest.convert("L").getextrema() == (0, 255)  # black letters on white
    assert sheet.crop((0, 0, sheet.width, 3)).getcolors() == [(3 * sheet.width, (255, 255, 255))]


def test_the_front_page_shows_the_two_updates_as_they_are():
    """The same code; comments and line breaks may differ."""
    script = ast.parse((ROOT / "dcgan_celeba.py").read_text("utf-8"))
    shown = [node for snippet in SNIPPETS for node in ast.parse(textwrap.dedent(snippet)).body
             if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in shown] == ["step_D", "step_G", "train_step"]
    for node in shown:
        original = next(other for other in ast.walk(script) if isinstance(other, ast.FunctionDef) and other.name == node.name)
        assert without_docstring(node) == without_docstring(original), node.name


def without_docstring(function):
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return [ast.dump(node) for node in [function.args, *body]]


def test_the_snippet_that_loads_a_generator_runs(monkeypatch):
    snippet = next(snippet for snippet in SNIPPETS if "torch.load" in snippet)
    monkeypatch.chdir(ROOT)
    names = {}
    exec(snippet, names)
    assert names["images"].shape == (16, 3, 64, 64) and names["images"].abs().max() <= 1


@pytest.mark.parametrize("path", sorted((ROOT / "pretrained").glob("*.pt")), ids=lambda path: path.name)
def test_the_generators_that_come_along_can_be_walked_and_name_no_folder(path):
    explore_latent.main([str(path), "walk", "--frames", "3"])
    assert os.listdir(f"runs/explore_latent-{path.stem}")
    saved = common.load_checkpoint(path)
    assert saved["export"] and not {"data", "out", "device"} & saved["args"].keys()
    assert path.name in PAGES["pretrained/README.md"]


VERDICTS = ["yes", "partly", "only smaller", "the document's mistake", "no", "open"]


def claims():
    """The rows of claims.md: claim, sizes, verdict, sentence."""
    rows = []
    for section in PAGES["docs/claims.md"].split("\n## ")[1:]:
        for line in section.splitlines():
            if line.startswith("| ") and not line.startswith("| claim |"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def anchors(page):
    """What a link to a heading of a page may have after its #, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_head_of_claims_defines_each_verdict():
    head = PAGES["docs/claims.md"].split("\n## ")[0]
    assert re.findall(r"^- \*\*(.*?)\*\*: \w", head, flags=re.MULTILINE) == VERDICTS


def test_a_claim_has_sizes_a_verdict_and_one_number_that_stands_on_the_linked_page():
    assert len(claims()) >= 40
    for row in claims():
        assert len(row) == 4 and all(row), row
        assert row[2] in VERDICTS, row
        (number,) = re.findall(r"\*\*([^*]+)\*\*", " ".join(row))
        ((name, anchor),) = re.findall(r"\]\((\w+/\w+\.md)#([^)]+)\)", row[3])
        page = PAGES[f"docs/{name}"]
        assert anchor in anchors(page), row
        text = " ".join(page.split())
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", text), (number, row)


def test_the_front_page_counts_the_claims():
    verdicts = [row[2] for row in claims()]
    rows = re.findall(r"^\| (\d+) \| ([^:|]+):", README, flags=re.MULTILINE)
    assert rows == [(str(verdicts.count(verdict)), verdict) for verdict in VERDICTS]
    assert re.search(rf"\b{len(verdicts)} claims", README)


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if "pytest" in line and "pip install" in line)
    assert command.strip() in (ROOT / ".ci/run").read_text()
