"""What the README and the pages in docs/ say: commands, flags, links, pictures, snippets and numbers that are there."""
import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
each_page = pytest.mark.parametrize("name", PAGES)
SCRIPT_PAGES = ["gan_mnist_mlp", "dcgan_mnist", "dcgan_celeba", "wgan_celeba", "explore_latent", "score_samples"]


def flags_of(script):
    """The flags that a script's --help shows, those of its commands included."""
    source = script.read_text()
    own = re.findall(r'add(?:_argument)?\("(--[a-z0-9-]+)"', source)
    shared = re.findall(r'(?:add|folder)\("(--[a-z0-9-]+)"', (ROOT / "common.py").read_text())
    return {*own, *(shared if "training_parser" in source else []), "--help"}


def test_the_front_page_stays_short():
    assert README.count("\n") <= 130
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    prose = re.sub(r"`[^`]*`", "", "\n".join(line for line in prose.splitlines() if not line.startswith("|")))
    assert len(prose.split()) <= 900


def test_the_front_page_shows_the_loop_as_it_is():
    shown = [block for block in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "shuffled_batches" in block]
    script = (ROOT / "dcgan_celeba.py").read_text()
    assert len(shown) == 1 and re.sub(r"^(?=.)", "    ", shown[0], flags=re.M) in script


@each_page
def test_scripts_and_flags_exist(name):
    commands = re.findall(r"python3? ((?:\w+/)?\w+\.py)([^`\n#|]*)", PAGES[name])
    for script, rest in commands:
        assert (ROOT / script).exists(), script
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", rest)) <= flags_of(ROOT / script), (script, rest)
    every_flag = set().union(*(flags_of(path) for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]))
    others = {"--cpu", "--fid", "--input1", "--input2"}  # of the `fidelity` command
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGES[name])) <= every_flag | others


@each_page
def test_links_and_pictures_exist(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#]+)\)", PAGES[name]):
        assert target.startswith("http") or (folder / target).exists(), target


def test_every_picture_is_shown_and_made_by_the_script_and_all_are_small():
    pictures = {path.name: path.stat().st_size for path in (ROOT / "docs/pictures").iterdir()}
    shown = set(re.findall(r"pictures/([\w.-]+\.png)", "".join(PAGES.values())))
    assert shown == set(pictures), shown ^ set(pictures)
    assert sum(pictures.values()) < 3e6


def test_what_the_pictures_script_edits_is_in_the_scripts(monkeypatch):
    """Each text once, so that a changed script does not leave a page with a run that nobody can repeat."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_pictures

    for run in make_pictures.EDITS:
        compile(make_pictures.edited(run), run, "exec")  # ends the program where a text is not there once


@pytest.mark.parametrize("name", SCRIPT_PAGES)
def test_pages_have_the_same_five_headings(name):
    headings = ["Run it", "What you will see", "What the numbers mean", "Details that matter", "Results"]
    assert re.findall(r"^## (.*)$", PAGES[f"{name}.md"], flags=re.M) == headings


def test_the_snippet_that_loads_a_generator_runs():
    import dcgan_celeba

    small = ["--dataset", "toy", "--limit", "16", "--batch-size", "16", "--ngf", "4", "--ndf", "4", "--epochs", "1"]
    dcgan_celeba.main(small)
    snippet = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.S) if "torch.load" in block)
    names = {}
    exec(snippet, names)
    assert names["images"].shape == (16, 3, 64, 64) and names["images"].abs().max() <= 1


VERDICTS = ["yes", "partly", "only smaller", "the document's slip", "no", "open"]


def claims():
    """The rows of claims.md: claim, sizes, verdict, sentence."""
    rows = []
    for section in PAGES["claims.md"].split("\n## ")[1:]:
        for line in section.splitlines():
            if line.startswith("| ") and not line.startswith("| claim |"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def anchors(page):
    """What a link to a heading of a page may have after its #, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page, flags=re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_head_of_claims_defines_each_verdict():
    head = PAGES["claims.md"].split("\n## ")[0]
    assert re.findall(r"^- \*\*(.*?)\*\*: \w", head, flags=re.M) == VERDICTS


def test_a_claim_has_sizes_a_verdict_and_one_number_that_stands_on_the_linked_page():
    assert len(claims()) >= 40
    for row in claims():
        assert len(row) == 4 and all(row), row
        assert row[2] in VERDICTS, row
        (number,) = re.findall(r"\*\*([^*]+)\*\*", " ".join(row))
        ((name, anchor),) = re.findall(r"\]\((\w+\.md)#([^)]+)\)", row[3])
        assert anchor in anchors(PAGES[name]), row
        text = " ".join(PAGES[name].split())
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", text), (number, row)


def test_the_front_page_counts_the_claims():
    verdicts = [row[2] for row in claims()]
    counts = [verdicts.count(verdict) for verdict in VERDICTS]
    words = ("Of the {} claims in the four documents and their repositories {} hold, {} hold partly, {} were "
             "seen only at a smaller size or on other data, {} are the document's slip, {} came out otherwise, and {} "
             "are open ([list](docs/claims.md)).")
    assert words.format(len(verdicts), *counts) in " ".join(README.split())


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if "pytest" in line and "pip install" in line)
    assert command.strip() in (ROOT / ".ci/run").read_text()
