"""A run and its folder: what it leaves, what it shows while it trains, what it can do without."""
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy
import pytest
import torch
from conftest import (
    EPOCH,
    SCRIPTS,
    assert_same_run,
    checkpoint,
    csv_rows,
    each_script,
    name_of,
    same_weights,
    samples_of,
    write_mnist,
)
from matplotlib.figure import Figure
from test_pictures import pixels

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import toy_images
import wgan_celeba

ZEROS = SCRIPTS[gan_mnist_mlp]
CONTENT = {"config.json", "losses.csv", "losses.png", "real.png", "samples", "training.gif",
           "checkpoint.pt"}


def epoch_lines(said):
    """The lines that end an epoch, without those that come once a minute."""
    return [line for line in said.splitlines()
            if line.startswith("epoch ") and line.endswith("min left")]


def assert_epoch_lines(said, rows, steps, epochs, first=0):
    """Each gives the means over all of its epoch's rows."""
    lines = epoch_lines(said)
    assert len(lines) == epochs - first
    for i, line in enumerate(lines, start=first):
        means = numpy.array(rows[i * steps:(i + 1) * steps]).mean(axis=0)
        losses = f"loss_d {means[2]:.4g}, loss_g {means[3]:.4g}"
        assert line.startswith(f"epoch {i + 1}/{epochs}, step {(i + 1) * steps}: {losses}, ")
        assert "images/s" in line
    assert not lines or lines[-1].endswith(" 0.0 min left")


# ---------------------------------------------------------------------------------- what it leaves
@each_script
def test_a_run_leaves_what_the_contract_says(script, straight):
    out, said = straight(script)
    more = {"modes.csv", "modes.png"} if script is gan_mnist_mlp else set()
    assert {path.name for path in out.iterdir()} == CONTENT | more
    header, rows = csv_rows(out / "losses.csv")
    steps = EPOCH[script]
    assert header[:6] == ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake"]
    assert [row[:2] for row in rows] == [[i + 1, 1 + i // steps] for i in range(3 * steps)]

    side = 16 if script is dcgan_mnist else 8
    size = 28 if script in (gan_mnist_mlp, dcgan_mnist) else 64
    images = toy_images.zeros() if size == 28 else toy_images.faces(64)[0]
    real = pixels(out / "real.png")
    assert real.shape[2] == 8 * (size + 2) + 2, "all 64 that there are, or the first 64"
    assert torch.equal(real[:, 2:2 + size, 2:2 + size], images[0].expand(3, -1, -1)), "the first"
    grid = (3, side * (size + 2) + 2, side * (size + 2) + 2)
    assert pixels(out / "samples/step_000000.png").shape == grid

    saved = checkpoint(out)
    assert saved["script"] == script.__name__
    assert (saved["step"], saved["epoch"]) == (3 * steps, 3)
    assert saved.keys() >= {"args", "generator", "G", "D", "opt_G", "opt_D", "fixed_z"}
    assert all(isinstance(value, (int, float, str, type(None))) for value in saved["args"].values())
    assert saved["args"]["epochs"] == 3 and not {"out", "resume"} & saved["args"].keys()

    config = json.loads((out / "config.json").read_text())
    count = {"G": parameters(generator(script, saved), saved["G"]),
             "D": parameters(discriminator(script, saved), saved["D"])}
    assert config["parameters"] == count and config["images"] == int(SCRIPTS[script][3])
    assert (config["device_name"], config["python"]) == ("cpu", sys.version)
    assert config["torch"] == torch.__version__
    assert {name: config[name] for name in saved["args"]} == saved["args"], "every flag"

    lines = said.splitlines()
    assert (f"{config['images']:,} images of toy; G has {count['G']:,} parameters, D "
            f"{count['D']:,}; cpu, fp32") in lines[0]
    assert any(line.startswith("How to read the losses") for line in lines)
    assert_epoch_lines(said, rows, steps, epochs=3)


def parameters(net, state):
    net.load_state_dict(state)
    return sum(weight.numel() for weight in net.parameters())


def generator(script, saved):
    keywords = dict(saved["generator"])
    return getattr(script, keywords.pop("class"))(**keywords)


def discriminator(script, saved):
    name = "DCGANDiscriminator" if script is dcgan_mnist else "Discriminator"
    keywords = {} if script is gan_mnist_mlp else {"ndf": saved["args"]["ndf"]}
    return getattr(script, name)(**keywords)


def test_a_run_never_overwrites_another(stops, capsys):
    small = ["--dataset", "toy", "--limit", "32", "--epochs", "1"]
    gan_mnist_mlp.main(small)
    first = Path("runs/gan_mnist_mlp/checkpoint.pt").read_bytes()
    Path("runs/gan_mnist_mlp-2").mkdir()  # holds no run yet: somebody may just have started one
    gan_mnist_mlp.main([*small, "--seed", "1"])
    assert f"into {Path('runs/gan_mnist_mlp-3')}" in capsys.readouterr().out
    assert Path("runs/gan_mnist_mlp-3/checkpoint.pt").exists()
    assert not list(Path("runs/gan_mnist_mlp-2").iterdir())
    refused = [*small, "--out", "runs/gan_mnist_mlp"]
    line = stops(gan_mnist_mlp.main, refused)
    assert "not empty" in line and "--resume runs/gan_mnist_mlp" in line
    Path("runs/gan_mnist_mlp/checkpoint.pt").rename("kept.pt")  # the rest of the run is there still
    stops(gan_mnist_mlp.main, refused)
    assert Path("kept.pt").read_bytes() == first
    Path("mine").mkdir()
    Path("mine/losses.csv").write_text("epoch,val_loss\n1,0.5\n")
    assert "--out mine is not empty" in stops(gan_mnist_mlp.main, [*small, "--out", "mine"])
    assert Path("mine/losses.csv").read_text() == "epoch,val_loss\n1,0.5\n"
    assert os.listdir("mine") == ["losses.csv"]
    Path("new").mkdir()
    gan_mnist_mlp.main([*small, "--out", "new"])  # an empty folder is welcome
    assert Path("new/checkpoint.pt").exists()


# ------------------------------------------------------------------------------------------ seeds
@each_script
def test_weights_and_fixed_noise_depend_on_the_seed_each_by_itself(script, built):
    def begin(seed):
        torch.manual_seed(next(before))  # what happened before must not matter
        return built(script, *SCRIPTS[script], "--seed", seed)

    before = iter(range(3))
    one, same, other = begin(3), begin(3), begin(4)
    assert torch.equal(one.fixed_z, same.fixed_z) and not torch.equal(one.fixed_z, other.fixed_z)
    for net, again, another in [(one.G, same.G, other.G), (one.D, same.D, other.D)]:
        assert same_weights(net.state_dict(), again.state_dict())
        for weight, changed in zip(net.parameters(), another.parameters()):
            assert weight.dim() == 1 or not torch.equal(weight, changed)


@each_script
def test_order_and_noise_depend_on_the_seed_and_the_epoch(script, monkeypatch):
    def play(seed, out):
        orders, states = [], []
        step_D, shuffled_batches = script.step_D, common.shuffled_batches

        def note_order(*inputs):
            orders.append(shuffled_batches(*inputs))
            return orders[-1]

        def note_state(*inputs):
            states.append(bytes(torch.get_rng_state().numpy()))
            return step_D(*inputs)

        with monkeypatch.context() as patch:
            patch.setattr(common, "shuffled_batches", note_order)
            patch.setattr(script, "step_D", note_state)
            flags = ["--limit", "32", "--epochs", "2", "--seed", str(seed), "--out", out]
            script.main([*SCRIPTS[script], *flags])
        assert len(orders) == 2
        return [order.tolist() for order in orders], states

    (one, noise), (same, same_noise), (other, other_noise) = play(3, "a"), play(3, "b"), play(4, "c")
    assert one == same and noise == same_noise
    assert one[0] != one[1] and one[0] != other[0] and one[1] != other[1]
    states = noise + other_noise
    assert len(set(states)) == len(states), "no step of any epoch draws another's noise again"
    assert_same_run("a", "b")


# -------------------------------------------------------------------------- alive: files on the way
def moments(steps, every, epoch_steps):
    """When pictures are due in a run of so many steps, after step 0."""
    due = {10, 20, 50, 100, 200} | set(range(every, steps + 1, every)) if every else set()
    due |= set(range(epoch_steps, steps + 1, epoch_steps))
    return sorted(step for step in due if step <= steps)


class Stop(Exception):
    """Ends a run from within, as a kill would."""


@pytest.fixture
def stop_at(monkeypatch):
    """Run a script with these flags until its step `last`, which is not logged any more."""
    def run(script, last, *flags):
        step_G, calls = script.step_G, []

        def step(*inputs):
            calls.append(0)
            if len(calls) == last:
                raise Stop
            return step_G(*inputs)

        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(script, "step_G", step)
            script.main([*SCRIPTS[script], *map(str, flags), "--out", "run"])
    return run


@pytest.mark.parametrize("every", [0, 30])
def test_pictures_and_rows_are_there_within_a_long_epoch(every, stop_at):
    """230 of its 250 steps are logged when it is stopped."""
    flags = ["--limit", 1000, "--batch-size", 4, "--sample-every", every]
    stop_at(gan_mnist_mlp, 231, *flags)
    written = moments(230, every, 250)
    assert samples_of("run") == [0, *written]
    if every:
        assert {10, 20, 50, 100, 200, 6 * every} <= set(written)
        _, rows = csv_rows("run/losses.csv")
        assert [row[0] for row in rows] == list(range(1, written[-1] + 1))
        _, rows = csv_rows("run/modes.csv")
        assert [row[0] for row in rows] == list(range(50, written[-1] + 1, 50))
    else:
        assert not Path("run/losses.csv").exists() and not Path("run/modes.csv").exists()
    assert checkpoint("run")["epoch"] == 0


@each_script
def test_pictures_come_when_they_are_due_and_the_epochs_line_averages_all_of_it(script, capsys):
    steps = EPOCH[script]
    every = steps // 2 + 1
    script.main([*SCRIPTS[script], "--sample-every", str(every), "--epochs", "2", "--out", "run"])
    assert samples_of("run") == [0, *moments(2 * steps, every, steps)]
    _, rows = csv_rows("run/losses.csv")
    assert [row[0] for row in rows] == list(range(1, 2 * steps + 1))
    assert_epoch_lines(capsys.readouterr().out, rows, steps, epochs=2)


@pytest.mark.parametrize("script, every", [
    (gan_mnist_mlp, 0), (dcgan_mnist, 0), (dcgan_celeba, 500), (wgan_celeba, 500)], ids=name_of)
def test_faces_are_sampled_within_an_epoch_and_the_rest_at_its_end(script, every, straight):
    assert checkpoint(straight(script)[0])["args"]["sample_every"] == every
    steps = EPOCH[script]
    assert samples_of(straight(script)[0]) == [0, *moments(3 * steps, every, steps)]


@each_script
def test_pictures_within_an_epoch_change_nothing_in_the_training(script, straight):
    every = str(EPOCH[script] // 2 + 1)
    script.main([*SCRIPTS[script], "--epochs", "1", "--sample-every", every, "--out", "run"])
    _, rows = csv_rows("run/losses.csv")
    _, wanted = csv_rows(straight(script)[0] / "losses.csv")
    assert rows == wanted[:EPOCH[script]]


# --------------------------------------------------------------------- alive: what it shows and when
@pytest.fixture
def slow(monkeypatch, clock):
    """A zeros run whose steps take so many seconds each by the clock, and each figure so many.
    Returns when the figures were drawn, in seconds since the start."""
    def run(seconds, *flags, drawing=0.0):
        start, drawings, step_G = clock.now, [], gan_mnist_mlp.step_G

        def step(*inputs):
            clock.now += seconds
            return step_G(*inputs)

        def savefig(figure, file, **how):
            file.write(b"not painted")
            drawings.append(clock.now - start)
            clock.now += drawing

        monkeypatch.setattr(gan_mnist_mlp, "step_G", step)
        monkeypatch.setattr(Figure, "savefig", savefig)
        gan_mnist_mlp.main([*ZEROS, *map(str, flags), "--out", "run"])
        return drawings
    return run


def test_without_a_terminal_a_line_comes_once_a_minute(slow, capsys):
    slow(7, "--limit", 400, "--batch-size", 4, "--epochs", 1)
    _, rows = csv_rows("run/losses.csv")
    lines = [line for line in capsys.readouterr().out.splitlines()
             if line.startswith("epoch 1/1, step") and "of 100" in line]
    assert 10 <= len(lines) <= 12, "in 700 seconds"
    steps = [int(re.search(r"step (\d+) of 100: ", line)[1]) for line in lines]
    assert set(numpy.diff([0, *steps])) <= {9, 10}
    for step, line in zip(steps, lines):
        row = rows[step - 1]
        assert f"loss_d {row[2]:.4g}, loss_g {row[3]:.4g}" in line, "the newest losses"
        assert "1 images/s" in line, "0.57, rounded"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_bar_shows_the_newest_losses_and_no_line_comes(slow, monkeypatch):
    """tqdm redraws the bar when it is given other words, but not ten times a second."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    slow(0.4, "--epochs", 1)
    _, rows = csv_rows("run/losses.csv")
    shown = re.findall(r"loss_d ([^,\r\n]+), loss_g ([^,\]\r\n]+)", err.getvalue())
    wanted = [(f"{row[2]:.4g}", f"{row[3]:.4g}") for row in rows]
    assert shown and set(shown) <= set(wanted)
    assert 9 <= len(set(shown)) <= 16, "once a second, of 16"
    assert " of 40" not in out.getvalue() and len(epoch_lines(out.getvalue())) == 1


def test_the_last_line_says_how_fast_it_was_and_what_is_left(slow, capsys):
    slow(3, "--epochs", 3)
    lines = epoch_lines(capsys.readouterr().out)
    for line, left in zip(lines, ["4.0", "2.0", "0.0"], strict=True):  # 40 steps of 16 images
        assert line.endswith(f", 5 images/s, {left} min left")


@pytest.mark.parametrize("drawing, every", [(0.0, 1), (9.0, 1), (9.0, 0)])
def test_drawings_come_once_a_minute_and_take_a_twentieth_of_the_time(drawing, every, slow,
                                                                      monkeypatch):
    """16 steps of 40 seconds, and pictures at each or none. Each time losses.png is drawn, and
    modes.png where its table is written with the pictures."""
    monkeypatch.setattr(gan_mnist_mlp, "MEASURE_EVERY", 2)  # so that there are modes to draw
    flags = ["--limit", 64, "--batch-size", 4, "--sample-every", every, "--epochs", 1]
    *times, end, _ = slow(40, *flags, drawing=drawing)  # the last two are drawn at the end
    figures = 2 if every else 1
    losses, cost = times[::figures], figures * drawing
    assert losses[0] <= 60, "the first one comes soon"
    assert all(60 <= gap for gap in numpy.diff(losses) - cost)
    # the first drawings tell how long they take, the last one may have just ended
    assert cost * (len(losses) - 2) <= (end - losses[0]) / 20
    wanted = end / (max(60, 20 * cost) + cost + 60)
    assert len(losses) >= int(wanted), "as often as that allows"


def test_a_short_run_is_drawn_once_at_its_end(slow):
    drawings = slow(0.01, "--sample-every", 5, "--epochs", 2)
    assert len(drawings) == 2, "losses.png and modes.png"
    assert {path.name for path in Path("run").glob("*.png")} == {"losses.png", "modes.png", "real.png"}


def test_a_long_epoch_says_when_its_checkpoint_is_due(slow, capsys):
    """Ctrl-C loses what came after the last checkpoint."""
    slow(20, "--epochs", 2)
    lines = capsys.readouterr().out.splitlines()
    hints = [line for line in lines if "minutes" in line and "checkpoint" in line]
    assert len(hints) == 1 and "13 minutes" in hints[0] and "--limit" not in hints[0]
    assert lines.index(hints[0]) < lines.index(epoch_lines("\n".join(lines))[0])


def test_a_long_epoch_of_many_images_says_how_to_shorten_it(monkeypatch, clock, capsys):
    def step(*inputs):
        clock.now += 100
        return step_G(*inputs)

    write_mnist("data", count=7000)
    step_G = dcgan_mnist.step_G
    monkeypatch.setattr(dcgan_mnist, "step_G", step)
    flags = "--model mlp --ngf 2 --ndf 2 --batch-size 1000 --epochs 1 --out run".split()
    dcgan_mnist.main(flags)
    assert "--limit 10000" in capsys.readouterr().out


def test_a_short_epoch_says_nothing_of_its_checkpoint(slow, capsys):
    slow(7, "--epochs", 2)
    assert "checkpoint" not in capsys.readouterr().out


# ------------------------------------------------------------------- what a run can go on without
@pytest.fixture
def at_step(monkeypatch):
    """Call a function in the given step of a run of the zeros."""
    def run(number, function):
        step_G, calls = gan_mnist_mlp.step_G, []

        def step(*inputs):
            calls.append(0)
            if len(calls) == number:
                function()
            return step_G(*inputs)

        monkeypatch.setattr(gan_mnist_mlp, "step_G", step)
    return run


def test_a_picture_that_cannot_be_written_costs_a_line(at_step, capsys):
    """As one that another program holds open on Windows: here a folder has its name."""
    names = ["samples/step_000040.png", "losses.png", "modes.png", "training.gif"]
    at_step(5, lambda: [Path("run", name).mkdir() for name in names])
    gan_mnist_mlp.main([*ZEROS, "--epochs", "2", "--out", "run"])
    said = capsys.readouterr().out
    for name in names:
        assert f"{Path('run', name)} could not be made (" in said
    assert checkpoint("run")["epoch"] == 2 and len(csv_rows("run/losses.csv")[1]) == 80


def test_a_removed_folder_of_samples_is_made_again(at_step, capsys):
    at_step(50, lambda: shutil.rmtree("run/samples"))
    gan_mnist_mlp.main([*ZEROS, "--epochs", "3", "--out", "run"])
    assert samples_of("run") == [80, 120] and Path("run/training.gif").exists()
    assert "could not be made" not in capsys.readouterr().out


def test_a_comparison_with_an_empty_table_costs_the_comparison_and_a_line(capsys):
    Path("empty").mkdir()
    Path("empty/losses.csv").touch()
    flags = [*SCRIPTS[dcgan_celeba], "--epochs", "1"]
    dcgan_celeba.main([*flags, "--out", "run", "--compare", "empty"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "could not be made" in line]
    assert len(lines) == 1 and "losses_comparison.png" in lines[0]
    assert str(Path("empty/losses.csv")) in lines[0] and "no rows" in lines[0]
    assert {path.name for path in Path("run").iterdir()} == CONTENT
    Path("empty/losses.csv").write_bytes(Path("run/losses.csv").read_bytes())
    dcgan_celeba.main(["--resume", "run", "--compare", "empty"])
    assert {path.name for path in Path("run").iterdir()} == CONTENT | {"losses_comparison.png"}


def test_zeros_that_end_before_the_first_measurement_end_well(capsys):
    """The zeros are measured at step 50 first."""
    gan_mnist_mlp.main([*ZEROS, "--epochs", "1", "--out", "run"])
    assert {path.name for path in Path("run").iterdir()} == CONTENT
    said = capsys.readouterr().out
    assert "could not be made" not in said and "at the end" not in said
