"""What the zeros script measures, and how its table is read and drawn. Nets, updates and loop are
tested in the other files."""
import math
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from conftest import SCRIPTS, csv_rows, write_mnist
from matplotlib.axes import Axes
from PIL import Image
from torch import nn

import common
import gan_mnist_mlp as script
import toy_images

SMALL = SCRIPTS[script]


@pytest.fixture(scope="module")
def reals():
    return toy_images.zeros()[:1500]


@pytest.fixture(scope="module")
def observer(reals):
    return script.Observer(reals, None, 64, torch.device("cpu"))


def measured(observer, *sample_sets):
    """The table of modes.csv, as a run writes and reads it, of these samples (N, 1, 28, 28)."""
    rows = []
    for i, fake in enumerate(sample_sets):
        common.add_row(rows, step=50 * (i + 1), fooled_before=torch.tensor(0.0),
                       fooled_after=torch.tensor(0.0), **observer.describe(fake))
    Path("modes.csv").unlink(missing_ok=True)
    common.append_rows("modes.csv", rows)
    return common.read_csv("modes.csv")


def near(observer, mode, count=200):
    """Samples near the centre of a mode, the nearest thing to a typical real."""
    torch.manual_seed(mode)
    return (observer.centres[mode] + 0.01 * torch.randn(count, 784)).view(-1, 1, 28, 28)


def noise(count=200):
    return torch.rand(count, 1, 28, 28) * 2 - 1


# ----------------------------------------------------------------------------------------------------- what it measures
def test_half_of_the_reals_reads_as_spread_out(observer, reals):
    table = measured(observer, common.to_float(reals[::2]))
    assert table["spread"][0] == pytest.approx(1, abs=0.05) and table["distance"][0] == pytest.approx(1, abs=0.05)
    assert table["modes_covered"][0] == 10 and table["dominant_share"][0] < 0.25
    assert script.phases(table).tolist() == ["spread out"]


def test_one_real_repeated_reads_as_alike_in_its_mode(observer, reals):
    one = common.to_float(reals)[5]
    table = measured(observer, one.expand(200, -1, -1, -1), one + 0.01 * torch.randn(200, 1, 28, 28))
    assert table["spread"][0] == 0 and table["spread"][1] < 0.1
    assert table["dominant_share"].tolist() == [1, 1] and table["modes_covered"].tolist() == [1, 1]
    mode = torch.cdist(one.view(1, 784), observer.centres).argmin().item()
    assert table["dominant_mode"].tolist() == [mode, mode] and table[f"share_{mode}"].tolist() == [1, 1]
    assert script.phases(table).tolist() == ["alike", "alike"]


def test_noise_reads_as_noise_and_so_does_an_untrained_G(observer, reals):
    """Both are no digits; the untrained G's samples are all alike too, which is no collapse yet."""
    torch.manual_seed(0)
    with torch.no_grad():
        untrained = script.Generator()(torch.randn(200, 64))
    table = measured(observer, noise(), untrained)
    assert (table["distance"] > script.NOISE).all() and table["spread"][1] < script.NARROW
    assert script.phases(table).tolist() == ["noise", "noise"]
    distance = torch.cdist(common.to_float(reals).flatten(1), observer.centres).min(dim=1).values
    assert (distance / observer.real_distance > script.NOISE).float().mean() < 0.1, "nine reals in ten are none"


def test_reals_drawn_closer_together_read_as_spreading(observer, reals):
    x = common.to_float(reals)
    table = measured(observer, x.mean(dim=0) + 0.5 * (x[:300] - x.mean(dim=0)))
    assert table["spread"][0] == pytest.approx(0.5, abs=0.05)
    assert script.phases(table).tolist() == ["spreading"]


def test_every_number_is_what_its_name_says(observer, reals):
    """Counted and added up by hand for a few samples."""
    x, fake = common.to_float(reals), torch.cat([near(observer, 2, 3), near(observer, 5, 2)])
    row = {name: value.item() for name, value in observer.describe(fake).items()}
    pairs = [(a - b).norm().item() for i, a in enumerate(fake) for b in fake[:i]]
    kept = [(a - b).norm().item() for i, a in enumerate(observer.real[:40]) for b in observer.real[:40][:i]]
    assert row["spread"] == pytest.approx(sum(pairs) / len(pairs) / observer.real_spread.item(), rel=1e-3)
    assert observer.real_spread.item() == pytest.approx(sum(kept) / len(kept), rel=0.1)
    to_centres = [min((image.flatten() - centre).norm().item() for centre in observer.centres) for image in fake]
    from_reals = [min((image.flatten() - centre).norm().item() for centre in observer.centres) for image in x[:200]]
    assert row["distance"] == pytest.approx(sum(to_centres) / 5 / observer.real_distance.item(), rel=1e-3)
    assert observer.real_distance.item() == pytest.approx(sum(from_reals) / 200, rel=0.1)
    assert row["std"] == pytest.approx(numpy.std(fake.numpy(), axis=0, ddof=1).mean(), rel=1e-3)
    assert (row["dominant_mode"], row["dominant_share"]) == (2, pytest.approx(0.6))
    assert [row[f"share_{i}"] for i in range(10)] == pytest.approx([0, 0, 0.6, 0, 0, 0.4, 0, 0, 0, 0])


@pytest.mark.parametrize("mode", [0, 9])
def test_a_mode_is_covered_from_a_fifth_of_its_share_of_the_reals_on(observer, mode):
    count = 400
    enough = math.ceil(count * observer.real_shares[mode].item() / 5)
    assert enough > 1
    other = near(observer, 4, count)
    for samples, covered in [(enough, 2), (enough - 1, 1)]:
        row = observer.describe(torch.cat([near(observer, mode, samples), other[samples:]]))
        assert row[f"share_{mode}"].item() == pytest.approx(samples / count)
        assert row["modes_covered"].item() == covered


class Scripted(nn.Module):
    """A D that says real of images whose first pixel is bright."""

    def forward(self, x):
        return x[:, 0, 0, 0]


def test_the_share_that_D_takes_for_real_is_counted_for_samples_reals_and_other_digits(reals):
    real, other = reals.clone(), torch.zeros(40, 1, 28, 28, dtype=torch.uint8)
    real[:, 0, 0, 0], other[:10, 0, 0, 0] = 255, 255
    observer = script.Observer(real, other, 4, torch.device("cpu"))

    class G(nn.Module):
        def forward(self, z):
            fake = z.view(-1, 1, 2, 2)
            return torch.nn.functional.pad(fake, (0, 26, 0, 26))

    row = measure(observer, G(), Scripted())
    bright = (observer.z[:, 0] > 0).float().mean().item()
    assert 0.3 < bright < 0.7 and observer.z.shape == (200, 4)
    assert row["fooled_before"].item() == row["fooled_after"].item() == pytest.approx(bright)
    assert row["acc_real"].item() == 1 and row["d_other"].item() == 0.25
    observer = script.Observer(reals, other, 4, torch.device("cpu"))
    assert measure(observer, G(), Scripted())["acc_real"].item() == 0


def measure(observer, G, D):
    observer.measure_before_G_learns(G, D)
    observer.measure_after_G_has_learned(50, G, D)
    return observer.rows[-1]


# ------------------------------------------------------------------------------------------------------------ its modes
def test_modes_are_the_means_of_their_images_the_largest_first(observer, reals):
    x = common.to_float(reals).flatten(1)
    centres = script.kmeans(x, iterations=200)
    member = torch.cdist(x, centres).argmin(dim=1)
    sizes = member.bincount(minlength=10)
    for mode in range(10):
        assert torch.allclose(centres[mode], x[member == mode].mean(dim=0), atol=1e-4)
    assert (sizes.diff() <= 0).all() and sizes.min() > 10
    rough = torch.cdist(x, observer.centres).argmin(dim=1)
    assert (rough == member).float().mean() > 0.8, "the 30 iterations of a run are nearly as good"
    assert torch.allclose(observer.real_shares, rough.bincount(minlength=10) / len(x))
    wide = torch.cdist(x, x[:10]).min(dim=1).values.mean()
    assert observer.real_distance < 0.85 * wide, "nearer than ten of the images themselves"


def test_modes_do_not_depend_on_what_was_drawn_before_nor_change_it(reals):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = script.Observer(reals, None, 64, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    other = script.Observer(reals, None, 64, torch.device("cpu"))
    assert torch.equal(one.centres, other.centres) and torch.equal(one.z, other.z) and torch.equal(one.real, other.real)
    assert len(one.real.flatten(1).unique(dim=0)) == 200
    x = common.to_float(reals)
    assert all((x == image).flatten(1).all(dim=1).any() for image in one.real[:10])


@pytest.mark.parametrize("distinct", [1, 3, 10])
def test_images_that_are_the_same_make_no_mode_that_is_no_number(distinct, reals):
    """Some clusters stay empty, and what is divided by their size must not become NaN."""
    images = reals[:distinct].repeat(60 // distinct, 1, 1, 1)
    observer = script.Observer(images, None, 64, torch.device("cpu"))
    assert observer.centres.isfinite().all() and observer.real_shares.sum().item() == pytest.approx(1)
    assert not script.kmeans(common.to_float(images).flatten(1)).isnan().any()


# ------------------------------------------------------------------------------------------------------ phases and changes
def table_of(**columns):
    """A table as common.read_csv gives."""
    n = len(columns["spread"])
    columns = {"step": [50 * (i + 1) for i in range(n)], "distance": [1.0] * n,
               "dominant_mode": [0] * n, **columns}
    return {name: numpy.array(column, dtype=float) for name, column in columns.items()}


def test_phases_change_at_their_thresholds():
    table = table_of(distance=[1.31, 1.29, 1.29, 1.29, 1.29, 1.31], spread=[0.1, 0.24, 0.26, 0.69, 0.71, 0.9])
    assert script.phases(table).tolist() == ["noise", "alike", "spreading", "spreading", "spread out", "noise"]
    assert set(script.phases(table)) == set(script.COLOURS)


def test_a_change_of_the_mode_needs_samples_that_are_alike_before_and_after():
    table = table_of(spread=[0.1, 0.1, 0.5, 0.1, 0.1, 0.1, 0.8, 0.8], dominant_mode=[3, 4, 5, 6, 6, 2, 1, 0])
    assert script.mode_changes(table).tolist() == [100, 300]
    table = table_of(spread=[0.1] * 4, distance=[2, 2, 1, 1], dominant_mode=[1, 2, 3, 3])
    assert script.mode_changes(table).tolist() == [], "noise has no mode to change"


@pytest.mark.parametrize("silence", [0, 3])
def test_a_walk_over_five_modes_reads_as_exactly_its_changes(observer, silence, capsys):
    """Also where noise comes first: the mode that G begins with is no change."""
    walk = [3, 0, 4, 1, 5]
    samples = [noise()] * silence + [near(observer, mode, 60) for mode in walk for _ in range(4)]
    table = measured(observer, *samples)
    assert script.phases(table).tolist() == ["noise"] * silence + ["alike"] * 20
    assert script.mode_changes(table).tolist() == [50 * (silence + 1 + 4 * i) for i in range(1, 5)]
    script.print_story(Path())
    said = capsys.readouterr().out
    assert "while alike: 4 changes of the mode; it was 3, 0, 4, 1, 5\n" in said
    assert (f"alike: 20 measurements, the first at step {50 * (silence + 1)}, the last at step "
            f"{50 * (silence + 20):,}") in said
    assert ("noise: 3 measurements, the first at step 50, the last at step 150" in said) == bool(silence)
    assert "at the end: alike; spread 0.0" in said and "1 of 10 modes, 100% in one" in said


def test_the_story_of_a_run_that_never_collapsed(observer, reals, capsys):
    measured(observer, noise(), common.to_float(reals[:200]))
    script.print_story(Path())
    said = capsys.readouterr().out
    assert "while alike: 0 changes of the mode; it was none" in said and "at the end: spread out" in said


# ----------------------------------------------------------------------------------------------------------------- runs
COLUMNS = "step,fooled_before,fooled_after,acc_real,spread,distance,std,dominant_mode,dominant_share,modes_covered"


def test_a_run_is_measured_every_fifty_steps_and_drawn(straight, drawn):
    out, said = straight(script)
    drawn.clear()  # of that run, where this test is the first to ask for it
    header, rows = csv_rows(out / "modes.csv")
    assert header == COLUMNS.split(",") + [f"share_{i}" for i in range(10)]
    assert [row[0] for row in rows] == [50, 100]
    assert all(sum(row[-10:]) == pytest.approx(1) and 0 <= min(row[-10:]) for row in rows)
    assert "at the end: noise" in said and "0.693" in said
    shutil.copy(out / "modes.csv", "modes.csv")
    script.draw_modes(Path(), torch.zeros(10, 784))
    curves = [(x, y) for _, x, y in drawn]
    for name in ["distance", "spread", "fooled_after", "fooled_before"]:
        assert ([50, 100], [row[header.index(name)] for row in rows]) in curves
    assert len(curves) == 4
    with Image.open("modes.png") as picture:
        assert picture.size == (900, 700)


def test_a_run_with_a_single_measurement_can_be_drawn(drawn):
    script.main(["--dataset", "toy", "--limit", "800", "--epochs", "1", "--out", "run"])
    assert len(csv_rows("run/modes.csv")[1]) == 1 and Path("run/modes.png").exists()


@pytest.fixture
def cells(monkeypatch):
    """What draw_modes paints, a row of modes.csv a column: the shares of the modes."""
    def run(centres):
        painted, pcolormesh = [], Axes.pcolormesh

        def note(axes, x, y, values, **how):
            painted.append(numpy.asarray(values, dtype=float))
            return pcolormesh(axes, x, y, values, **how)

        with monkeypatch.context() as patch:
            patch.setattr(Axes, "pcolormesh", note)
            script.draw_modes(Path(), centres)
        return painted[0]
    return run


def test_noise_is_in_no_mode_and_left_grey(observer, cells):
    measured(observer, noise(), near(observer, 3), near(observer, 7), noise())
    shares = cells(observer.centres)
    assert shares.shape == (10, 4) and numpy.isnan(shares[:, [0, 3]]).all()
    assert shares[3, 1] == shares[7, 2] == 1 and shares[:, 1:3].sum() == 2


def test_a_damaged_table_costs_its_picture_and_a_line_and_a_missing_one_nothing(observer, capsys):
    script.draw_modes(Path(), observer.centres)
    assert capsys.readouterr().out == "", "a run is shorter than one measurement"
    Path("modes.csv").write_text("step,spread\n50,0.1")
    script.draw_modes(Path(), observer.centres)
    script.print_story(Path())
    said = capsys.readouterr().out
    assert said.count("could not be made (") == said.count("\n") == 2 and not Path("modes.png").exists()


def test_samples_are_judged_before_and_after_G_has_learned(monkeypatch):
    """Between the updates by the D that has just been improved, and after G's update: the story of a
    cycling G."""
    step_G, wanted = script.step_G, []

    def judged(G, D):
        with torch.no_grad():
            fake = G(z.to(next(G.parameters()).device))
            return (D(fake) > 0).float().mean().item()

    def note_G(G, D, *inputs):
        before = judged(G, D)
        loss = step_G(G, D, *inputs)
        wanted.append((before, judged(G, D)))
        return loss

    z = script.Observer(toy_images.zeros()[:640], None, 64, torch.device("cpu")).z
    monkeypatch.setattr(script, "step_G", note_G)
    monkeypatch.setattr(script, "MEASURE_EVERY", 5)
    flags = ["--lr-g", "0.1", "--lr-d", "0.1", "--epochs", "2"]  # so that the shares change
    script.main([*SMALL, *flags, "--out", "run"])
    header, rows = csv_rows("run/modes.csv")
    columns = header.index("fooled_before"), header.index("fooled_after")
    got = [tuple(row[column] for column in columns) for row in rows]
    assert got == [pytest.approx(pair) for pair in wanted[4::5]]
    assert len({*got}) > 1 and any(before != after for before, after in got), "other flags, please"


def test_the_observer_changes_nothing(straight, monkeypatch):
    monkeypatch.setattr(script, "MEASURE_EVERY", 10**9)
    script.main([*SMALL, "--epochs", "3", "--out", "run"])
    assert Path("run/losses.csv").read_bytes() == Path(straight(script)[0], "losses.csv").read_bytes()
    assert not Path("run/modes.csv").exists() and not Path("run/modes.png").exists()


def test_other_digits_are_shown_to_D_where_there_are_some():
    write_mnist("data", count=300)
    images, labels = common.load_mnist("data", "mnist")
    args, _ = script.parse_args(["--digit", "3"])
    others = script.load_other_digits(args)
    assert torch.equal(others, images[labels != 3][:200]) and len(others) == 200
    for flags in (["--digit", "all"], ["--dataset", "toy"]):
        assert script.load_other_digits(script.parse_args(flags)[0]) is None
    script.main(["--epochs", "34", "--batch-size", "10", "--out", "run"])  # three steps an epoch
    header, rows = csv_rows("run/modes.csv")
    assert header == COLUMNS.replace("acc_real", "acc_real,d_other").split(",") + [f"share_{i}" for i in range(10)]
    assert [row[0] for row in rows] == [50, 100]


# --------------------------------------------------------------------------------------- toy zeros
def test_toy_zeros_are_zeros_and_always_the_same():
    images = toy_images.zeros()
    assert images.shape == (5923, 1, 28, 28) and images.dtype == torch.uint8
    torch.manual_seed(7)
    assert torch.equal(images, toy_images.zeros.__wrapped__())
    assert len(images.flatten(1).unique(dim=0)) == 5923
    ink = images.float() / 255
    hole = ink[:, :, 13:15, 13:15].mean()
    assert hole < 0.1 < 0.15 < ink.mean() < 0.25, "a dark hole in a ring as heavy as MNIST's (0.17)"
    edges = [ink[..., 0, :], ink[..., -1, :], ink[..., :, 0], ink[..., :, -1]]
    assert torch.cat(edges, dim=-1).mean() < 0.02
