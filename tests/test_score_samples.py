"""The scores, on probabilities and Gaussians whose answers are known, and the table on small datasets."""
import csv
import math
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT, launched, same_weights, write_mnist
from PIL import Image
from test_explore_latent import write_checkpoint

import common
import score_samples as script
import toy_images


def one_hot(labels, classes=10):
    return torch.nn.functional.one_hot(torch.as_tensor(labels), classes).double()


# ------------------------------------------------------------------------------------------------ Inception and Mode score
def test_sure_and_varied_samples_score_as_many_as_there_are_classes():
    p = one_hot(torch.arange(1000) % 10)
    assert script.inception_score(p) == pytest.approx(10)
    assert script.inception_score(one_hot(torch.arange(1000) % 4)) == pytest.approx(4)


def test_samples_that_are_all_alike_or_all_unsure_score_one():
    assert script.inception_score(one_hot([3] * 100)) == pytest.approx(1)
    assert script.inception_score(torch.full((100, 10), 0.1, dtype=torch.float64)) == pytest.approx(1)


def test_the_inception_score_of_a_hand_made_table():
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)  # p(y) = [0.6, 0.4]
    kl = (0.9 * math.log(0.9 / 0.6) + 0.1 * math.log(0.1 / 0.4) + 0.3 * math.log(0.3 / 0.6) + 0.7 * math.log(0.7 / 0.4)) / 2
    assert script.inception_score(p) == pytest.approx(math.exp(kl), rel=1e-9)


def test_with_the_reals_class_frequencies_mode_score_is_inception_score_and_else_less():
    p = torch.rand(500, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 8
    p = p / p.sum(dim=1, keepdim=True)
    assert script.mode_score(p, p.mean(dim=0)) == pytest.approx(script.inception_score(p))
    other = torch.arange(1, 11) / 55
    assert script.mode_score(p, other.double()) < 0.95 * script.inception_score(p)


def test_collapse_on_one_class_scores_that_classs_real_share():
    p_real = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    for kind in range(4):
        p = one_hot([kind] * 50, classes=4)
        assert script.inception_score(p) == pytest.approx(1) and script.mode_score(p, p_real) == pytest.approx(p_real[kind].item())


# ------------------------------------------------------------------------------------------------------- Frechet distance
def gaussian(mean, cov, n, seed):
    """Samples whose mean and covariance are exactly the given ones."""
    x = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(dim=0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return x @ torch.linalg.cholesky(cov).T + mean


def test_frechet_distance_of_gaussians_in_closed_form():
    mean_a, mean_b = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    var_a, var_b = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64), torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    a, b = gaussian(mean_a, var_a.diag(), 500, 0), gaussian(mean_b, var_b.diag(), 400, 1)
    expected = mean_b.square().sum() + (var_a.sqrt() - var_b.sqrt()).square().sum()
    assert script.frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert script.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert script.frechet_distance(a, a + mean_b) == pytest.approx(mean_b.square().sum().item(), rel=1e-6)


def test_the_root_by_eigenvalues_agrees_with_the_root_by_symmetric_matrices():
    x = torch.randn(300, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mix = torch.randn(40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = x, x.flip(0).square() @ mix

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T

    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    other = (a.mean(0) - b.mean(0)).square().sum() + (cov_a + cov_b - 2 * root(root(cov_a) @ cov_b @ root(cov_a))).trace()
    assert script.frechet_distance(a, b) == pytest.approx(other.item(), rel=1e-6)


def test_classes_count_from_a_fifth_of_the_real_share():
    p_real = torch.full((4,), 0.25, dtype=torch.float64)
    labels = [0] * 90 + [1] * 6 + [2] * 4  # a fifth of 25% is 5%
    row = script.score(one_hot(labels, 4)[torch.randperm(100)], torch.randn(100, 3), p_real, torch.randn(100, 3))
    assert row["classes"] == 2 and [row[f"share_{i}"] for i in range(4)] == pytest.approx([0.9, 0.06, 0.04, 0])
    p_real = torch.tensor([0.6, 0.4, 0, 0], dtype=torch.float64)  # a class that the reals lack is none of them
    row = script.score(one_hot([0] * 50 + [2] * 50, 4)[torch.randperm(100)], torch.randn(100, 3), p_real, torch.randn(100, 3))
    assert row["classes"] == 1


# --------------------------------------------------------------------------------------------------------------- the table
def make_run(folder, kind, dataset, **args):
    write_checkpoint(kind, args={"dataset": dataset, **args})
    Path(folder).mkdir()
    Path("checkpoint.pt").rename(f"{folder}/checkpoint.pt")
    return f"{folder}/checkpoint.pt"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small MNIST with its classifier beside it, trained once: a folder to copy."""
    folder = tmp_path_factory.mktemp("trained")
    write_mnist(folder, count=210)
    reals = common.load_mnist(folder, "mnist", test=True)
    script.load_classifier(*reals, folder / "classifier_mnist.pt", torch.device("cpu"))
    return folder


def test_the_table_stands_between_the_reals_and_one_sample_repeated(trained, drawn, capsys):
    shutil.copytree(trained, "data")
    runs = [make_run("a", "zeros", "mnist"), make_run("b", "blog dcgan", "mnist")]
    script.main([*runs, "--n", "80"])
    with open("a/scores/scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["real", "a", "b", "one sample repeated"]
    floor = rows[-1]
    assert float(floor["inception_score"]) == pytest.approx(1, abs=1e-4) and floor["classes"] == "1"
    for row in rows:
        assert sum(float(row[f"share_{i}"]) for i in range(10)) == pytest.approx(1, abs=1e-4)
    assert float(rows[0]["frechet_distance"]) < float(floor["frechet_distance"])
    assert "not the published FID" in capsys.readouterr().out
    for name, size in {"neighbours_a.png": (242, 62), "neighbours_b.png": (242, 62)}.items():
        with Image.open(f"a/scores/{name}") as picture:
            assert picture.size == size
    assert Path("a/scores/scores.png").exists()


def test_the_bars_are_those_of_the_table_and_can_be_read(monkeypatch):
    figures, rows = [], []
    monkeypatch.setattr(common, "save_figure", lambda path, figure: figures.append((path, figure)))
    for name, *values in [("real", 9.5, 0.1, 9.4, 0.2, 0.18), ("a_run_with_a_name_that_is_long", 8, 0.3, 7, 0.4, 0.01), ("one sample repeated", 1, 0, 0.2, 0, 133.9)]:
        columns = ["inception_score", "inception_std", "mode_score", "mode_std", "frechet_distance"]
        rows.append({"name": name, **dict(zip(columns, values))})
    script.plot_scores("scores.png", rows)
    (path, figure), = figures
    assert path == "scores.png"
    left, right = figure.axes
    bars = {bar.get_label(): bar for bar in left.containers if bar.get_label().endswith("score")}
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["Inception score", "Mode score"]
    for name in ("inception", "mode"):
        bar = bars[f"{name.capitalize()} score"]
        assert [patch.get_width() for patch in bar] == [row[f"{name}_score"] for row in rows]
        ends = [(line[1, 0] - line[0, 0]) / 2 for line in bar.errorbar.lines[2][0].get_segments()]
        assert ends == pytest.approx([row[f"{name}_std"] for row in rows])
    assert [patch.get_width() for patch in right.containers[0]] == [row["frechet_distance"] for row in rows]
    figure.draw_without_rendering()
    names = left.get_yticklabels()
    assert [name.get_text() for name in names] == ["real", "run_with_a_name_that_is_long"[-24:], "one sample repeated"]
    assert "score" in left.get_xlabel() and "Frechet" in right.get_xlabel() and "0 is best" in right.get_xlabel()
    page = figure.bbox
    boxes = [text.get_window_extent() for text in [*names, *left.texts, *right.texts, left.xaxis.label, right.xaxis.label]]
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 for box in boxes), boxes
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    heights = [name.get_window_extent().y0 for name in names]
    assert heights == sorted(heights, reverse=True), "the first row on top"
    for bar in (*bars.values(), right.containers[0]):  # each name beside its own bars
        assert [round(patch.get_y() + patch.get_height() / 2) for patch in bar] == list(left.get_yticks()) == [0, 1, 2]
    assert all(name.get_fontsize() >= 16 and name.get_rotation() == 0 for name in names)
    lengths = [patch.get_window_extent().width for patch in right.containers[0]]
    assert lengths[0] > 20 and lengths[2] < 20 * lengths[0], "a small distance can be seen beside a large one"


def test_runs_of_one_name_keep_their_rows_and_pictures(trained):
    shutil.copytree(trained, "data")
    Path("x").mkdir()
    Path("y").mkdir()
    runs = [make_run("a", "zeros", "mnist"), make_run("x/a", "blog dcgan", "mnist"), make_run("y/a", "blog mlp", "mnist")]
    script.main([*runs, "--n", "40", "--out", "scores"])
    assert [line.split(",")[0] for line in Path("scores/scores.csv").read_text().splitlines()[2:5]] == ["a", "a-2", "a-3"]
    assert len({path.read_bytes() for path in Path("scores").glob("neighbours_*.png")}) == 3
    Path("a").rename("a-3")  # the name that the third one would get
    script.main(["a-3/checkpoint.pt", *runs[1:], "--n", "40", "--out", "again"])
    assert len({line.split(",")[0] for line in Path("again/scores.csv").read_text().splitlines()[1:]}) == 5


def test_a_run_in_a_folder_named_real_does_not_take_the_place_of_the_reals(trained):
    shutil.copytree(trained, "data")
    script.main([make_run("real", "zeros", "mnist"), "--n", "40", "--out", "scores"])
    names = [line.split(",")[0] for line in Path("scores/scores.csv").read_text().splitlines()[1:]]
    assert names == ["real", "real-1", "one sample repeated"]


def test_the_classifier_is_kept_beside_the_data_until_the_data_changes(trained, capsys):
    shutil.copytree(trained, "data")
    run = make_run("a", "zeros", "mnist")
    script.main([run, "--n", "40"])
    assert "new classifier" not in capsys.readouterr().out
    write_mnist("other", count=210, seed=1)
    path = Path("data/classifier_mnist.pt").rename("other/classifier_mnist.pt")
    before = path.read_bytes()
    for said in (True, False):  # a new one, which then is the one kept
        script.main([run, "--n", "40", "--data", "other"])
        assert ("new classifier" in capsys.readouterr().out) == said and path.read_bytes() != before


def test_the_classifier_learns_the_kinds_of_toy_faces(monkeypatch, capsys):
    torch.set_num_threads(2)  # wider than the nets of the other tests
    faces = toy_images.faces(1000)
    monkeypatch.setattr(toy_images, "faces", lambda: faces)
    script.main([make_run("run", "lab vanilla", "toy"), "--n", "160"])
    text = capsys.readouterr().out
    assert float(text.partition("right on ")[2].partition("%")[0]) > 95
    with open("run/scores/scores.csv") as file:
        real = next(csv.DictReader(file))
    assert float(real["inception_score"]) > 6.5 and real["classes"] == "8"


def test_celeba_is_scored_with_inception_weights_from_a_file(stops, monkeypatch, capsys):
    from test_faces import write_pictures
    from torchvision.models import inception_v3

    write_pictures("data/celeba", 45, size=(64, 64))
    run = make_run("run", "wgan", "celeba")
    Path("weights.pth").write_bytes(b"none")
    monkeypatch.setattr(common, "load_faces", lambda *inputs: pytest.fail("what is missing is said before the long work"))
    assert f"put {script.INCEPTION_WEIGHTS} into" in stops(script.main, [run, "--n", "40", "--weights", "weights.pth"])
    import urllib.request

    monkeypatch.setenv("TORCH_HOME", str(Path.cwd() / "hub"))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(SystemExit) as stop:
        script.main([run, "--n", "40"])
    assert stop.value.code == 2  # torch 2.6 says on stderr what it downloads: the last line is ours
    assert "or name it with --weights" in capsys.readouterr().err.splitlines()[-1]
    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), "weights.pth")
    net = script.Inception("weights.pth").eval()
    assert not net.net.transform_input
    with torch.no_grad():
        p, features = script.judge(net, torch.rand(2, 3, 64, 64) * 2 - 1)
    assert p.shape == (2, 1000) and features.shape == (2, 2048) and p.sum(dim=1).tolist() == pytest.approx([1, 1])


# ---------------------------------------------------------------------------------------------------------------- bad input
def test_bad_input_gets_one_line(stops):
    toy, digits = make_run("toy", "zeros", "toy"), make_run("digits", "blog mlp", "mnist")
    fashion = make_run("fashion", "blog mlp", "fashion")
    for words, part in [([], "CHECKPOINT"), ([toy], "toy zeros"), ([digits, fashion], "cannot be compared"), ([digits, "--n", "10"], "--n: 10: at least 40"),
                        ([digits, "--seed", str(2**64)], "--seed"), ([digits, "--n", "x"], "--n"), (["~/nowhere.pt"], str(Path.home() / "nowhere.pt")), ([digits, "--data", "empty"], "cannot load empty/MNIST/raw")]:
        assert part in stops(script.main, words), words
    write_mnist("few", count=10)
    assert "15 real images are too few" in stops(script.main, [digits, "--data", "few"])
    write_mnist("data", count=70)
    assert "Not a directory" in stops(launched(script), [digits, "--n", "40", "--out", digits + "/below"])


# ----------------------------------------------------------------------------------------------- what a careless change breaks
def test_the_classifier_is_tested_on_images_that_it_was_not_trained_on(monkeypatch, tmp_path):
    """Every image has its index in its pixels, so that the net can be watched."""
    images = torch.zeros(140, 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(140)
    seen = {True: set(), False: set()}
    forward = script.Classifier.forward

    def watch(net, x):
        seen[net.training].update(((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist())
        return forward(net, x)

    monkeypatch.setattr(script.Classifier, "forward", watch)
    judge = script.judge
    monkeypatch.setattr(script, "judge", lambda net, x: (seen[net.training].update(x[:, 0, 0, 0].tolist()), judge(net, x))[1])
    net = script.load_classifier(images, torch.arange(140) % 10, tmp_path / "kept.pt", torch.device("cpu"))
    assert seen[True].isdisjoint(seen[False]) and len(seen[False]) == 20 and len(seen[True]) == 120
    assert not net.training, "it judges in eval mode"
    torch.manual_seed(7)  # what was drawn before must not matter, or two tables could not be compared
    for name in ("kept.pt", "again.pt"):
        other = script.load_classifier(images, torch.arange(140) % 10, tmp_path / name, torch.device("cpu"))
        assert not other.training and same_weights(net.state_dict(), other.state_dict()), name


def test_the_nearest_neighbour_of_a_real_is_itself():
    reals = torch.randint(256, (2300, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    chosen = [0, 5, 999, 1000, 1001, 1999, 2000, 2299]  # reals are compared a thousand at a time
    script.save_neighbours("n.png", common.to_float(reals[chosen]), reals)
    with Image.open("n.png") as picture:
        assert picture.crop((2, 2, 242, 30)).tobytes() == picture.crop((2, 32, 242, 60)).tobytes()


def test_the_seed_changes_the_samples_and_a_row_can_be_recomputed(trained):
    shutil.copytree(trained, "data")
    run = make_run("a", "blog dcgan", "mnist")
    for seed in ("0", "0", "1"):
        script.main([run, "--n", "82", "--seed", seed, "--out", f"s{len(list(Path().glob('s?')))}"])
    tables = [Path(f"s{i}/scores.csv").read_text() for i in range(3)]
    assert tables[0] == tables[1] != tables[2]
    rows = list(csv.DictReader(tables[0].splitlines()))
    reals, labels = common.load_mnist("data", "mnist", test=True)
    net = script.load_classifier(reals, labels, Path("data/classifier_mnist.pt"), torch.device("cpu"))
    G, latent_dim = script.load_generator(run, torch.device("cpu"))
    samples = script.images_of(G, torch.randn(82, latent_dim, generator=torch.Generator().manual_seed(0)))
    order = torch.randperm(len(reals), generator=torch.Generator().manual_seed(0))
    reals = reals[order[82:]]  # the first ones are scored themselves
    with torch.no_grad():
        p = net(samples).double().softmax(dim=1)
        p_real = torch.cat([net(part) for part in common.to_float(reals).split(100)]).double().softmax(dim=1).mean(dim=0)
    values, parts = [], p.split([21, 21, 20, 20])
    for part in parts:  # written out, by the definition
        marginal = part.mean(dim=0)
        values.append(math.exp(sum(float((row * (row / marginal).log()).sum()) for row in part) / len(part)))
    assert float(rows[1]["inception_score"]) == pytest.approx(sum(values) / 4, rel=1e-3)
    penalties = [float((part.mean(dim=0) * (part.mean(dim=0) / p_real).log()).sum()) for part in parts]
    modes = [value * math.exp(-penalty) for value, penalty in zip(values, penalties)]
    assert float(rows[1]["mode_score"]) == pytest.approx(sum(modes) / 4, rel=1e-3)
    assert float(rows[1]["inception_std"]) == pytest.approx(torch.tensor(values).std().item(), rel=0.02, abs=1e-6)


@pytest.fixture
def no_inception(monkeypatch):
    class Stub(torch.nn.Module):
        def __init__(self, file):
            super().__init__()
            self.last = torch.nn.Linear(4, 12)

        def features(self, x):
            return x.flatten(1)[:, [0, 4000, 8000, 12000]]

    monkeypatch.setattr(script, "Inception", Stub)


def test_pictures_are_those_that_the_run_was_trained_on(no_inception, stops, monkeypatch):
    """All folders of pictures are "celeba": the wrong one would give scores too."""
    for folder, grey in [("data", 0), ("mine", 250), ("other", 90)]:
        Path(folder).mkdir()
        for i in range(80):
            Image.new("RGB", (64, 64), (grey, grey, grey)).save(f"{folder}/{i}.png")
    runs = [make_run("a", "wgan", "celeba", data="mine"), make_run("b", "wgan", "celeba", data="other")]

    def nearest(folder):
        with Image.open(f"{folder}/neighbours_a.png") as picture:
            return picture.getpixel((30, 100))

    script.main([runs[0], "--n", "40"])
    assert nearest("a/scores") == (250, 250, 250)
    script.main([runs[0], "--n", "40", "--data", "other", "--out", "out"])
    assert nearest("out") == (90, 90, 90)
    script.main([*runs, "--n", "40", "--data", "mine", "--out", "both"])
    assert nearest("both") == (250, 250, 250)
    monkeypatch.setattr(script, "Inception", lambda file: pytest.fail("a download, for runs that cannot be compared"))
    assert "choose with --data" in stops(script.main, [*runs, "--n", "40"])


def test_celebas_reals_are_not_scored_against_themselves(no_inception, monkeypatch):
    from test_faces import write_pictures

    write_pictures("data/celeba", 100, size=(64, 64))
    run, judged, judge = make_run("run", "wgan", "celeba"), [], script.judge
    monkeypatch.setattr(script, "judge", lambda net, images: (judged.append(images), judge(net, images))[1])
    script.main([run, "--n", "40"])
    reference, scored = ({image.numpy().tobytes() for image in images} for images in judged[:2])
    assert list(map(len, judged)) == [40, 40, 40, 1], "the one that is repeated is judged once"
    assert len(reference) == len(scored) == 40 and not reference & scored
    rows = list(csv.DictReader(Path("run/scores/scores.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["real", "run", "one sample repeated"] and "share_0" not in rows[0]
    judged.clear()
    script.main([run, "--n", "80"])
    assert list(map(len, judged)) == [50, 50, 50, 1], "as many samples as reals: scores depend on the number"


@pytest.mark.parametrize("n, scored", [("40", 40), ("4096", 157)])
def test_the_reals_that_are_scored_are_none_that_they_are_compared_with(n, scored, trained, monkeypatch):
    """Or the distance of the reals, the best that a generator could reach, would be too small."""
    shutil.copytree(trained, "data")
    judged, judge = [], script.judge
    monkeypatch.setattr(script, "judge", lambda net, images: (judged.append(images), judge(net, images))[1])
    script.main([make_run("run", "blog dcgan", "mnist"), "--n", n])
    reference, real = ({image.numpy().tobytes() for image in images} for images in judged[:2])
    assert len(judged[1]) == scored and len(judged[0]) == 315 - scored and not reference & real


def test_exports_are_scored_under_their_own_names(trained):
    import explore_latent

    shutil.copytree(trained, "data")
    for name, kind in [("digits", "blog dcgan"), ("digits_mlp", "blog mlp")]:
        run = make_run(f"run-{name}", kind, "mnist", data="/nowhere")
        explore_latent.main([run, "export", "--out", f"pretrained/{name}.pt"])
    script.main(["pretrained/digits.pt", "pretrained/digits_mlp.pt", "--n", "40"])
    out = Path("runs/score_samples-digits")
    rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["real", "digits", "digits_mlp", "one sample repeated"]
    assert {path.name for path in Path("pretrained").iterdir()} == {"digits.pt", "digits_mlp.pt"}


def test_an_edited_copy_is_scored_when_its_file_is_named(trained, stops):
    shutil.copytree(trained, "data")
    run = make_run("mine", "blog dcgan", "mnist")
    saved = torch.load(run, weights_only=True)
    torch.save({**saved, "script": "my_digits", "generator": {**saved["generator"], "class": "Mine"}}, run)
    Path("my_digits.py").write_text((ROOT / "dcgan_mnist.py").read_text().replace("class DCGANGenerator", "class Mine"))
    assert "--script my_digits.py" in stops(script.main, [run, "--n", "40"])
    script.main([run, "--n", "40", "--script", "my_digits.py"])
    assert Path("mine/scores/scores.csv").exists()


def test_the_table_is_saved_before_it_is_printed_and_plain_ascii(trained, monkeypatch, capsys):
    shutil.copytree(trained, "data")
    run = make_run("run", "blog dcgan", "mnist")
    script.main([run, "--n", "40"])
    assert capsys.readouterr().out.isascii()
    Path("run/scores/scores.csv").unlink()
    monkeypatch.setattr("builtins.print", lambda *words, **how: (_ for _ in ()).throw(OSError("closed")) if "Frechet" in str(words) else None)
    with pytest.raises(OSError, match="closed"):
        script.main([run, "--n", "40"])
    assert Path("run/scores/scores.csv").exists()


def test_pictures_of_another_folder_are_asked_for_by_name(no_inception, stops):
    """A run names its pictures by a path that may only be right where it was started."""
    run = make_run("run", "wgan", "celeba", data="mine")
    line = stops(script.main, [run, "--n", "40"])
    assert "--data" in line and "mine" in line and run in line and "1.4 GB" not in line


def test_a_classifier_that_cannot_be_kept_is_a_line(trained, capsys):
    images, labels = common.load_mnist(trained, "mnist")
    Path("file").touch()
    script.load_classifier(images, labels, Path("file/classifier.pt"), torch.device("cpu"))
    assert "file/classifier.pt is not kept" in capsys.readouterr().out
