"""What every training script relies on: images in, pictures and tables out, exact resume, errors in one line."""
import errno
import gzip
import inspect
import json
import math
import os
import pickle
import runpy
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy
import pytest
import torch
from conftest import (ROOT, SCRIPTS, assert_same_run, checkpoint, csv_rows, each_script, launched, on_gpu,
                      same_weights, write_mnist)
from matplotlib.figure import Figure
from PIL import Image

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import toy_images
import wgan_celeba

MLP = SCRIPTS[gan_mnist_mlp]


def pixels(path):
    with Image.open(path) as image:
        return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


# --------------------------------------------------------------------------------------------------------------- pixels
def test_black_is_minus_one_and_white_is_one():
    assert common.to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    middle = common.to_float(torch.tensor([127, 128], dtype=torch.uint8))
    assert middle.tolist() == pytest.approx([-1 / 255, 1 / 255], rel=1e-4) and middle.dtype == torch.float32


def test_every_grey_survives_the_way_to_float_and_into_a_picture():
    """All 256 values in each of four cells: a grid that stretched the range of its images would show."""
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(4, 3, 16, 16).clone()
    images[1] //= 2  # a darker picture stays darker than the others
    common.save_grid("grid.png", common.to_float(images))
    grid = pixels("grid.png")
    assert grid.shape == (3, 38, 38), "a square, with a frame of two pixels"
    for i, image in enumerate(images):
        top, left = 2 + i // 2 * 18, 2 + i % 2 * 18
        assert torch.equal(grid[:, top:top + 16, left:left + 16], image)
    assert grid[:, 0].min() == 255


def test_a_grid_is_a_square_or_as_wide_as_asked_for_and_cuts_what_is_out_of_range():
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0, 5.0, -5.0, 1.0)])
    common.save_grid("grid.png", images, columns=3)
    grid = pixels("grid.png")[0]
    assert grid.shape == (14, 20)
    assert [grid[y, x].item() for y in (3, 9) for x in (3, 9, 15)] == [0, 128, 255, 255, 0, 255]
    common.save_grid("square.png", torch.zeros(9, 1, 4, 4))
    assert pixels("square.png").shape == (3, 20, 20)


# ---------------------------------------------------------------------------------------------------------- minibatches
def test_minibatches_visit_every_image_at_most_once_an_epoch_and_drop_an_incomplete_last_one():
    images = torch.zeros(50, 1, 2, 2, dtype=torch.uint8)
    orders = [torch.stack(list(common.shuffled_batches(images, 8, epoch, 2))) for epoch in range(2)]
    for order in orders:
        assert order.shape == (6, 8), "50 images are six batches of 8"
        assert len(order.unique()) == 48 and 0 <= order.min() and order.max() < 50
        assert not torch.equal(order.flatten().sort().values, order.flatten())
    assert not torch.equal(*orders), "each epoch has an order of its own"
    many = torch.stack([torch.stack(list(common.shuffled_batches(images, 8, 0, 1))) for _ in range(200)]).double()
    means = many.mean(dim=(0, 2))  # of the images' numbers, for each of the six: 24.5, with a deviation of 0.4
    assert (means - 24.5).abs().max() < 3, "every minibatch is drawn from all of the images"
    assert len(list(common.shuffled_batches(images, 50, 0, 1))) == 1, "as many batches as fit, also when all are used"


# --------------------------------------------------------------------------------------------------------------- tables
def test_rows_are_appended_under_one_header_and_their_means_are_said():
    Path("t.csv").touch()  # as a resume of epoch 0 leaves it
    def row(step, epoch, loss_d, loss_g):
        return {"step": step, "epoch": epoch, "loss_d": torch.tensor(loss_d), "loss_g": torch.tensor(loss_g)}

    assert common.append_rows("t.csv", [row(1, 1, 0.25, 1.0), row(2, 1, 0.75, -4.0)]) == "loss_d 0.5, loss_g -1.5"
    common.append_rows("t.csv", [row(12345678, 2, 1e-9, 7)])
    header, rows = csv_rows("t.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g"]
    assert rows == [[1, 1, 0.25, 1], [2, 1, 0.75, -4], [12345678, 2, pytest.approx(1e-9, rel=1e-6), 7]]


def test_rows_of_other_columns_are_refused_and_leave_the_file_as_it_was(stops):
    """As when a loss was added, or renamed, before a resume."""
    common.append_rows("t.csv", [{"step": 1, "epoch": 1, "loss_d": 0.5}])
    before = Path("t.csv").read_bytes()
    for changed in ({"loss_d": 0.5, "loss_extra": 1.0}, {"loss": 0.5}):
        row = {"step": 2, "epoch": 2, **changed}
        line = stops(lambda argv: common.append_rows("t.csv", [row]), [])
        assert "t.csv has the columns step,epoch,loss_d, not step,epoch," in line and "new run" in line
        assert Path("t.csv").read_bytes() == before


def test_columns_cannot_come_and_go():
    rows = []
    common.add_row(rows, step=1, loss_d=0.5)
    with pytest.raises(ValueError, match=r"\['step', 'loss_d', 'penalty'\].*\['step', 'loss_d'\]"):
        common.add_row(rows, step=2, loss_d=0.5, penalty=1.0)
    with pytest.raises(ValueError, match="'loss_d'"):
        common.add_row(rows, step=2)
    common.add_row(rows, step=2, loss_d=0.4)
    assert [row["step"] for row in rows] == [1, 2]


def test_a_column_may_hold_numbers_and_tensors():
    """As when a penalty is computed every second step only."""
    for first, second in [(torch.tensor(3.0), 0.0), (0, torch.tensor([3.0])[0])]:
        rows = []
        common.add_row(rows, step=1, loss_penalty=first)
        common.add_row(rows, step=2, loss_penalty=second)
        assert common.append_rows("mixed.csv", rows) == "loss_penalty 1.5"


def test_a_column_may_hold_vectors_of_one_element():
    """As D gives them without its Flatten."""
    rows = []
    for step in (1, 2):
        common.add_row(rows, step=step, loss_d=torch.tensor([float(step)]))
    assert common.append_rows("one.csv", rows) == "loss_d 1.5" and csv_rows("one.csv")[1] == [[1, 1], [2, 2]]


def test_two_processes_that_save_the_same_file_do_not_meet(monkeypatch):
    save = torch.save

    def while_another_saves(content, path):
        save(content, path)
        if content == "mine":
            monkeypatch.setattr(os, "getpid", lambda: 1)
            common.save_whole("kept.pt", "theirs")
            assert torch.load("kept.pt") == "theirs"

    monkeypatch.setattr(torch, "save", while_another_saves)
    common.save_whole("kept.pt", "mine")
    assert torch.load("kept.pt") == "mine" and [path.name for path in Path().iterdir()] == ["kept.pt"]


def test_rows_that_wait_keep_no_graph_alive():
    """A loss logged without detach would keep its whole graph until the end of the epoch."""
    rows, weight = [], torch.ones(2, requires_grad=True)
    common.add_row(rows, step=1, loss_d=(2 * weight).sum())
    assert rows[0]["loss_d"].grad_fn is None and rows[0]["loss_d"].item() == 4 and rows[0]["step"] == 1
    common.append_rows("t.csv", rows)


@pytest.mark.parametrize("tail", [b"", b"3,0.3", b"3,0.3\n4,0.4\n", b"\xff\xfe\x00 no text at all"])
def test_keeping_rows_counts_them_and_reads_nothing_behind_them(tail):
    whole = b"step,loss_d\n1,0.1\n2,0.2\n"
    Path("t.csv").write_bytes(whole + tail)
    common.keep_rows("t.csv", 2)
    assert Path("t.csv").read_bytes() == whole
    common.keep_rows("t.csv", 1)
    assert Path("t.csv").read_bytes() == b"step,loss_d\n1,0.1\n"
    Path("t.csv").write_bytes(whole[:4])
    common.keep_rows("t.csv", 0)
    assert Path("t.csv").read_bytes() == b"", "not a torn header either"
    common.keep_rows("none.csv", 0)
    assert Path("none.csv").read_bytes() == b"", "a run that was stopped in its first epoch has no table yet"


def test_a_table_is_read_with_its_names_and_without_a_torn_line():
    Path("t.csv").write_text("step,epoch,loss_d\n1,1,0.5\n")
    table = common.read_csv("t.csv")
    assert table.dtype.names == ("step", "epoch", "loss_d") and table["loss_d"].tolist() == [0.5]
    Path("t.csv").write_text("step,epoch,loss_d\n1,1,0.5\n2,1,0.25\n3,1")
    with pytest.warns(UserWarning, match="got 2 columns"):
        assert common.read_csv("t.csv")["loss_d"].tolist() == [0.5, 0.25]


def test_the_running_median_ignores_a_spike_and_follows_a_ramp():
    x = numpy.arange(1, 301)
    middle, smooth = common.running_median(x, 2.0 * x)
    assert len(middle) == len(smooth) == 200 and (smooth == 2 * middle).all() and middle[0] == 51
    y = numpy.zeros(300)
    y[150:170] = 1e6
    assert common.running_median(x, y)[1].max() == 0, "a mean would rise"
    assert common.running_median(x, y, window=25)[1].max() == 1e6, "more than half of a narrower window"
    middle, smooth = common.running_median(x[:7], y[150:157])
    assert middle.tolist() == [2, 3, 4, 5, 6] and smooth.tolist() == [1e6] * 5, "short runs: a third of the rows"
    assert common.running_median(x[:1], y[150:151])[1].tolist() == [1e6]


@each_script
def test_every_column_is_drawn_and_the_GIF_shows_every_picture_in_order(script, straight, drawn):
    out, _ = straight(script)
    (out / "losses.png").unlink()
    drawn.clear()
    common.draw_run(out)
    header, rows = csv_rows(out / "losses.csv")
    steps, _, *columns = map(list, zip(*rows))
    pale, smooth = [line for line in drawn if not line[0]], [line for line in drawn if line[0]]
    assert len(pale) == len(columns) and all((None, steps, column) in pale for column in columns)
    assert len(smooth) == len(columns)
    for name, column in zip(header[2:], columns):
        x, y = common.running_median(numpy.array(steps), numpy.array(column))
        assert (name, x.tolist(), y.tolist()) in smooth
    assert (out / "losses.png").stat().st_size > 5000
    pictures = sorted((out / "samples").iterdir())
    with Image.open(out / "training.gif") as film:
        assert film.n_frames == len(pictures) == 4
        for i, path in enumerate(pictures):
            film.seek(i)
            shown = numpy.asarray(film.convert("RGB")).astype(int)
            with Image.open(path) as picture:
                assert abs(shown - numpy.asarray(picture).astype(int)).mean() < 8, "a GIF has 256 colours"
            assert film.info["duration"] == 250 and film.info["loop"] == 0


def test_the_lowest_panel_of_the_losses_says_what_runs_to_the_right(monkeypatch):
    Path("samples").mkdir()
    Image.new("RGB", (4, 4)).save("samples/step_000000.png")
    Path("losses.csv").write_text("step,epoch,loss_d,d_real\n1,1,0.5,0.5\n2,1,0.4,0.5\n")
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: labels.extend(ax.get_xlabel() for ax in figure.axes))
    labels = []
    common.draw_run(Path())
    assert labels == ["", "step"]


def test_a_long_training_GIF_lasts_ten_seconds():
    Path("samples").mkdir()
    for i in range(80):
        Image.new("RGB", (4, 4), (3 * i, 0, 0)).save(f"samples/step_{i:06d}.png")
    Path("losses.csv").write_text("step,epoch,loss_d\n1,1,0.5\n2,1,0.4\n")
    common.draw_run(Path())
    with Image.open("training.gif") as film:
        lasts = sum(film.seek(i) or film.info["duration"] for i in range(film.n_frames))
        assert film.n_frames == 80 and lasts == pytest.approx(10_000, rel=0.1)


def test_the_GIF_of_a_very_long_run_has_at_most_400_pictures_and_the_last_one():
    """Browsers show what should last less than 20 milliseconds for 100."""
    Path("samples").mkdir()
    for i in range(801):  # its names get longer on the way: step_1000000 comes after step_999999
        Image.new("L", (4, 4), i // 4).save(f"samples/step_{999_500 + i:06d}.png")
    Path("losses.csv").write_text("step,epoch,loss_d\n1,1,0.5\n2,1,0.4\n")
    common.draw_run(Path())
    with Image.open("training.gif") as film:
        greys = [film.seek(i) or film.convert("L").getpixel((0, 0)) for i in range(film.n_frames)]
        assert film.info["duration"] >= 20
    assert 200 <= len(greys) <= 400 and greys == sorted(greys) and greys[0] < 2 and greys[-1] == 200


# -------------------------------------------------------------------------------------------------------------- folders
CONTENT = {"config.json", "losses.csv", "losses.png", "real.png", "samples", "training.gif", "checkpoint.pt"}


@each_script
def test_a_run_leaves_what_the_contract_says(script, straight):
    out, said = straight(script)
    more = {"modes.csv", "modes.png"} if script is gan_mnist_mlp else set()
    assert {path.name for path in out.iterdir()} == CONTENT | more
    header, rows = csv_rows(out / "losses.csv")
    steps = len(rows) // 3
    assert header[:6] == ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake"]
    assert [row[:2] for row in rows] == [[i + 1, 1 + i // steps] for i in range(3 * steps)]
    assert sorted(path.name for path in (out / "samples").iterdir()) == [f"step_{i * steps:06d}.png" for i in range(4)]
    side, size = 16 if script is dcgan_mnist else 8, 28 if script in (gan_mnist_mlp, dcgan_mnist) else 64
    images = toy_images.zeros() if size == 28 else toy_images.faces()[0]
    real = pixels(out / "real.png")
    assert real.shape[2] == 8 * (size + 2) + 2, "all 64 that there are, or the first 64"
    assert torch.equal(real[:, 2:2 + size, 2:2 + size], images[0].expand(3, -1, -1)), "the first real image"
    assert pixels(out / "samples/step_000000.png").shape == (3, side * (size + 2) + 2, side * (size + 2) + 2)
    saved = checkpoint(out)
    assert saved["script"] == script.__name__ and (saved["step"], saved["epoch"]) == (3 * steps, 3)
    assert saved.keys() >= {"args", "generator", "G", "D", "opt_G", "opt_D", "fixed_z"}
    flags = [value for name, value in saved["args"].items() if name != "parameters"]
    assert all(isinstance(value, (int, float, str, type(None))) for value in flags)
    assert saved["args"]["epochs"] == 3 and not {"out", "resume"} & saved["args"].keys()
    config = json.loads((out / "config.json").read_text())
    count = {name: sum(saved[name][key].numel() for key, _ in net.named_parameters()) for name, net in [
        ("G", build(script, saved)), ("D", discriminator(script, saved))]}
    assert config["parameters"] == count and config["images"] == int(SCRIPTS[script][3])
    assert (config["device_name"], config["python"], config["torch"]) == ("cpu", sys.version, torch.__version__)
    assert {name: config[name] for name in saved["args"]} == saved["args"], "every flag"
    lines = said.splitlines()
    assert f"{config['images']:,} images of toy; G has {count['G']:,} parameters, D {count['D']:,}; cpu" in lines[0]
    assert any(line.startswith("How to read the losses") for line in lines)
    epochs = [line for line in lines if line.startswith("epoch ")]
    means = numpy.array(rows).reshape(3, steps, -1).mean(axis=1)
    for i, line in enumerate(epochs):
        losses = f"loss_d {means[i][2]:.4g}, loss_g {means[i][3]:.4g}"
        assert line.startswith(f"epoch {i + 1}/3, step {(i + 1) * steps}: {losses}, ")
        assert "images/s" in line and line.endswith("min left")
    assert len(epochs) == 3 and epochs[-1].endswith(" 0.0 min left")


def build(script, saved):
    keywords = dict(saved["generator"])
    return getattr(script, keywords.pop("class"))(**keywords)


def discriminator(script, saved):
    name = "DCGANDiscriminator" if script is dcgan_mnist else "Discriminator"
    return getattr(script, name)(**({} if script is gan_mnist_mlp else {"ndf": saved["args"]["ndf"]}))


def test_a_run_never_overwrites_another(stops, capsys):
    small = ["--dataset", "toy", "--limit", "32", "--epochs", "1"]
    gan_mnist_mlp.main(small)
    first = Path("runs/gan_mnist_mlp/checkpoint.pt").read_bytes()
    Path("runs/gan_mnist_mlp-2").mkdir()  # holds no run yet: somebody may just have started one
    gan_mnist_mlp.main([*small, "--seed", "1"])
    assert "into runs/gan_mnist_mlp-3" in capsys.readouterr().out
    assert Path("runs/gan_mnist_mlp-3/checkpoint.pt").exists() and not list(Path("runs/gan_mnist_mlp-2").iterdir())
    refused = [*small, "--out", "runs/gan_mnist_mlp"]
    assert "not empty" in (line := stops(gan_mnist_mlp.main, refused)) and "--resume runs/gan_mnist_mlp" in line
    Path("runs/gan_mnist_mlp/checkpoint.pt").rename("kept.pt")  # the rest of the run is there still
    stops(gan_mnist_mlp.main, refused)
    assert Path("kept.pt").read_bytes() == first
    Path("mine").mkdir()
    Path("mine/losses.csv").write_text("epoch,val_loss\n1,0.5\n")
    assert "--out mine is not empty" in stops(gan_mnist_mlp.main, [*small, "--out", "mine"])
    assert Path("mine/losses.csv").read_text() == "epoch,val_loss\n1,0.5\n" and len(list(Path("mine").iterdir())) == 1
    Path("new").mkdir()
    gan_mnist_mlp.main([*small, "--out", "new"])  # an empty folder is welcome
    assert Path("new/checkpoint.pt").exists()


# ---------------------------------------------------------------------------------------------------------------- seeds
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
def test_the_order_of_the_images_and_the_noise_of_every_step_depend_on_the_seed(script, monkeypatch):
    def play(seed, out):
        seen, batches = [], common.shuffled_batches

        def note(*inputs):
            for batch in batches(*inputs):
                seen.append(batch.tolist())
                noise.append(torch.get_rng_state())
                yield batch

        noise = []
        with monkeypatch.context() as patch:
            patch.setattr(common, "shuffled_batches", note)
            patch.setattr(common, "draw_run", lambda out: None)
            script.main([*SCRIPTS[script], "--limit", "32", "--epochs", "2", "--seed", str(seed), "--out", out])
        return seen, noise

    (one, noise), (same, same_noise), (other, other_noise) = play(3, "a"), play(3, "b"), play(4, "c")
    assert one == same and all(map(torch.equal, noise, same_noise))
    half = len(one) // 2
    assert one[:half] != other[:half] and one[half:] != other[half:] and one[:half] != one[half:]
    states = [bytes(state.numpy()) for state in noise + other_noise]
    assert len(set(states)) == len(states), "no step of any epoch draws another's noise again"
    assert_same_run("a", "b")


# --------------------------------------------------------------------------------------------------------------- resume
JUNK = b"999,9,0.123,0.4"  # a line that a kill has torn


@each_script
def test_a_stopped_and_resumed_run_equals_one_never_stopped(script, straight):
    first = "2" if script is gan_mnist_mlp else "1"  # its modes.csv has no row after the first epoch
    script.main([*SCRIPTS[script], "--epochs", first, "--out", "run"])
    if script is wgan_celeba:
        assert checkpoint("run")["d_steps"] == 16, "in the middle of a round"
    for path in Path("run").glob("*.csv"):
        path.write_bytes(path.read_bytes() + JUNK)
    Path("run/samples/step_999999.png.tmp").touch()
    script.main(["--resume", "run", "--epochs", "3"])
    Path("run/samples/step_999999.png.tmp").unlink()
    assert_same_run(straight(script)[0], "run")
    Path("run/training.gif").unlink()
    script.main(["--resume", "run"])  # nothing is left to do: only the drawings are made again
    assert_same_run(straight(script)[0], "run")


@each_script
def test_a_resume_draws_from_the_runs_own_fixed_noise(script, straight):
    """Also with a torch that draws other numbers from the same seed."""
    saved = checkpoint(straight(script)[0])
    Path("run/samples").mkdir(parents=True)
    torch.save({**saved, "fixed_z": saved["fixed_z"] + 1, "step": 0, "epoch": 0}, "run/checkpoint.pt")
    script.main(["--resume", "run", "--epochs", "1"])
    assert torch.equal(checkpoint("run")["fixed_z"], saved["fixed_z"] + 1)


@each_script
def test_ctrl_c_says_what_a_resume_begins_with_and_loses_nothing_else(script, straight, stops, monkeypatch):
    """Not even the --epochs of a resume that has not finished one of its own."""
    steps, add_row = len(csv_rows(straight(script)[0] / "losses.csv")[1]) // 3, common.add_row

    def interrupt(rows, **values):
        add_row(rows, **values)
        if values["step"] == stop_at:
            raise KeyboardInterrupt

    new, again = [*SCRIPTS[script], "--epochs", "1", "--out", "run"], ["--resume", "run"]
    longer = [*again, "--epochs", "3"]
    for flags, stop_at, epoch in [(new, 2, 1), (longer, 3, 1), (again, 2 * steps + 3, 3),
                                  (again, 3 * steps, 3)]:  # at its last step an epoch is not finished
        with monkeypatch.context() as patch:
            patch.setattr(common, "add_row", interrupt)
            line = stops(launched(script), flags, status=130)
        assert "interrupted" in line and f"--resume run goes on with epoch {epoch}\n" in line
        saved = checkpoint("run")
        assert (saved["epoch"], saved["step"]) == (epoch - 1, (epoch - 1) * steps)
    script.main(again)
    assert_same_run(straight(script)[0], "run")


@each_script
def test_ctrl_c_before_the_first_step_ends_with_130(script, stops, monkeypatch):
    def interrupt(*inputs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(script, "load_images", interrupt)
        assert stops(launched(script), [*SCRIPTS[script], "--out", "run"], status=130) == "error: interrupted\n"
    assert not Path("run").exists()
    monkeypatch.setattr(common, "shuffled_batches", interrupt)
    line = stops(launched(script), [*SCRIPTS[script], "--out", "run"], status=130)
    assert "--resume run goes on with epoch 1" in line and checkpoint("run")["epoch"] == 0
    common.launch.hint = ""  # as in a new process
    assert "--resume run goes on with epoch 1" in stops(launched(script), ["--resume", "run"], status=130)


def test_resume_takes_the_runs_flags_and_refuses_others_by_name(stops, straight):
    saved = checkpoint(straight(gan_mnist_mlp)[0])
    Path("run/samples").mkdir(parents=True)
    args = {**saved["args"], "limit": 32, "images": 32, "lr_g": 0.002}
    torch.save({**saved, "step": 0, "epoch": 0, "args": args}, "run/checkpoint.pt")
    before = Path("run/checkpoint.pt").read_bytes()
    for flag, value in [("--lr-g", 0.001), ("--seed", 5), ("--dataset", "mnist"), ("--batch-size", 8), ("--limit", 100),
                        ("--digit", "all"), ("--g-loss", "saturating"), ("--precision", "bf16"), ("--lr-d", 1)]:
        assert f"{flag} {value}" in stops(gan_mnist_mlp.main, ["--resume", "run", flag, value])
    assert "--out" in stops(gan_mnist_mlp.main, ["--resume", "run", "--out", "other"])
    assert "--resume" in stops(gan_mnist_mlp.main, ["--resume"])
    assert "checkpoint.pt" in stops(gan_mnist_mlp.main, ["--resume", ""])  # an unset variable of the shell
    assert Path("run/checkpoint.pt").read_bytes() == before and not Path("run/config.json").exists()
    gan_mnist_mlp.main("--resume run --epochs 2 --data elsewhere --device cpu --lr-g 0.002".split())
    config = json.loads(Path("run/config.json").read_text())
    assert (config["lr_g"], config["limit"], config["epochs"], config["data"]) == (0.002, 32, 2, "elsewhere")
    assert checkpoint("run")["epoch"] == 2 and checkpoint("run")["args"]["data"] == "elsewhere"


def test_resume_refuses_fewer_epochs_other_images_and_another_net_and_changes_nothing(straight, stops, monkeypatch):
    """--epochs is the total: who takes it for "so many more" is told. Other images would be another experiment."""
    out = straight(gan_mnist_mlp)[0]
    saved = checkpoint(out)
    for name, args in [("few", saved["args"]), ("grown", {**saved["args"], "images": 639})]:
        Path(name).mkdir()
        torch.save({**saved, "args": args}, f"{name}/checkpoint.pt")
    assert "--epochs 2 is out of range: that run has had 3" in stops(gan_mnist_mlp.main, ["--resume", "few", "--epochs", "2"])
    assert "639 images, and there are 640 now" in stops(gan_mnist_mlp.main, ["--resume", "grown", "--epochs", "4"])
    assert all([path.name for path in Path(name).iterdir()] == ["checkpoint.pt"] for name in ("few", "grown"))
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    for name, net in [("Generator", torch.nn.Linear(64, 784)), ("Discriminator", torch.nn.Linear(784, 1))]:
        with monkeypatch.context() as patch:  # who writes another net has to begin again
            patch.setattr(gan_mnist_mlp, name, lambda *sizes: net)
            line = stops(gan_mnist_mlp.main, ["--resume", out, "--epochs", "4"])
        count = sum(p.numel() for p in net.parameters())
        assert f"'{name[0]}': {saved['args']['parameters'][name[0]]}" in line and f"'{name[0]}': {count}" in line
    assert before == {path: path.read_bytes() for path in out.glob("*.*")}


@pytest.mark.parametrize("script, changes", [
    (dcgan_mnist, {"--model": "mlp", "--ngf": 9, "--ndf": 9, "--lr": 0.1}),
    (dcgan_celeba, {"--generator": "vanilla", "--ngf": 9, "--ndf": 9, "--lr": 0.1, "--dataset": "mnist"}),
    (wgan_celeba, {"--loss": "lsgan", "--upsample": "nearest", "--ngf": 9, "--ndf": 9, "--lr": 0.1,
                   "--n-critic": 9, "--clip": 0.5}),
], ids=lambda value: getattr(value, "__name__", ""))
def test_resume_refuses_to_change_the_experiment(script, changes, straight, stops):
    for flag, value in changes.items():
        assert f"{flag} {value}" in stops(script.main, ["--resume", straight(script)[0], flag, value])


def test_no_run_moves_between_mps_and_another_device(stops, straight):
    """Adam's moments are kept in the memory layout of the weights, and the layout on MPS is another one."""
    out = straight(dcgan_celeba)[0]
    assert "--device mps" in stops(dcgan_celeba.main, ["--resume", out, "--device", "mps"])
    saved = checkpoint(out)
    Path("run").mkdir()
    torch.save({**saved, "args": {**saved["args"], "device": "mps"}}, "run/checkpoint.pt")
    assert "--device cpu: that run has mps" in stops(dcgan_celeba.main, ["--resume", "run", "--device", "cpu"])
    torch.save({**saved, "args": {**saved["args"], "device": "mps:0"}}, "run/checkpoint.pt")
    assert "--device cpu: that run has mps:0" in stops(dcgan_celeba.main, ["--resume", "run", "--device", "cpu"])


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_checkpoints_that_are_none_get_one_line_and_run_no_code(stops, straight):
    Path("run").mkdir()
    resume, path = ["--resume", "run"], straight(gan_mnist_mlp)[0] / "checkpoint.pt"
    assert "run/checkpoint.pt" in stops(gan_mnist_mlp.main, resume)
    assert "--resume takes a run's folder" in stops(gan_mnist_mlp.main, ["--resume", path])
    good, saved = path.read_bytes(), checkpoint(path.parent)
    for content in [b"", b"PK", good[:1000], good[:-500], b"<html>quota exceeded</html>", gzip.compress(good),
                    pickle.dumps(Evil())]:
        Path("run/checkpoint.pt").write_bytes(content)
        assert "run/checkpoint.pt is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    for content in [torch.zeros(3), {"G": {}}, {"evil": Evil()}]:
        torch.save(content, "run/checkpoint.pt")
        assert "run/checkpoint.pt is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    torch.save({**saved, "script": "dcgan_mnist"}, "run/checkpoint.pt")
    assert "a run of dcgan_mnist.py" in stops(gan_mnist_mlp.main, resume)
    del saved["fixed_z"]  # which older versions did not save
    torch.save(saved, "run/checkpoint.pt")
    assert "an older version" in stops(gan_mnist_mlp.main, resume)
    assert not Path("executed").exists() and [path.name for path in Path("run").iterdir()] == ["checkpoint.pt"]


# ---------------------------------------------------------------------------------------------- what else can end a run
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["losses.csv", "checkpoint.pt", "samples/step_000040.png"])
def test_a_full_disk_ends_the_run_in_one_line_and_keeps_the_last_checkpoint(name, stops, full_disk, monkeypatch):
    """No pretence: what the first epoch writes there does not fit."""
    place, save = common.shuffled_batches, numpy.savetxt

    def fill(*inputs):
        full_disk.full = name == "checkpoint.pt"
        if name.startswith("samples"):
            Path("run", name).symlink_to("/dev/full")
        return place(*inputs)

    def save_there(file, *inputs, **how):
        with open("/dev/full", "w") as full:
            save(full, *inputs, **how)

    with monkeypatch.context() as patch:
        if name == "losses.csv":  # which is read too, and that device never ends
            patch.setattr(numpy, "savetxt", save_there)
        patch.setattr(common, "shuffled_batches", fill)
        line = stops(launched(gan_mnist_mlp), [*MLP, "--out", "run", "--epochs", "1"], status=1)
    assert "disk is full" in line and "--resume run goes on with epoch 1" in line
    assert checkpoint("run")["epoch"] == 0 and not list(Path("run").glob("unfinished*"))
    assert full_disk.parents == {Path("run").resolve()}, "a file can be moved, whole, on one disk only"
    if name.startswith("samples"):
        Path("run", name).unlink()
    full_disk.full = False
    gan_mnist_mlp.main(["--resume", "run"])  # there is space again
    assert checkpoint("run")["epoch"] == 1


def test_a_loss_that_is_not_finite_ends_the_run_names_the_step_and_keeps_the_last_checkpoint(stops, monkeypatch):
    gan_mnist_mlp.main([*MLP, "--epochs", "1", "--out", "run"])
    before, step_G, calls = checkpoint("run"), gan_mnist_mlp.step_G, []
    nets, fixed_z = {net: before.pop(net) for net in "GD"}, before.pop("fixed_z")
    before["args"]["epochs"] = 3  # what the resume types
    for value in ("nan", "inf", "-inf"):
        calls.clear()
        with monkeypatch.context() as patch:
            patch.setattr(gan_mnist_mlp, "step_G", lambda *inputs: calls.append(0) or
                          (torch.tensor(float(value)) if len(calls) == 3 else step_G(*inputs)))
            line = stops(launched(gan_mnist_mlp), ["--resume", "run", "--epochs", "3"], status=1)
        assert "step 43:" in line and "losses.csv" in line and "smaller rate" in line
        saved = checkpoint("run")
        assert all(same_weights(nets[net], saved.pop(net)) for net in "GD")
        assert torch.equal(fixed_z, saved.pop("fixed_z")) and saved == before
    gan_mnist_mlp.main(["--resume", "run"])
    assert checkpoint("run")["epoch"] == 3
    assert numpy.isfinite(csv_rows("run/losses.csv")[1]).all()


@pytest.mark.parametrize("net", ["G", "D"])
def test_weights_that_are_not_finite_do_not_replace_the_last_checkpoint(net, stops, monkeypatch):
    """As after a loss that is finite and has a gradient that is not, in the last step of an epoch."""
    gan_mnist_mlp.main([*MLP, "--epochs", "1", "--out", "run"])
    save = common.save_checkpoint

    def spoil(out, args, parts, **others):
        if others["epoch"] == 2:
            with torch.no_grad():
                list(parts[net].parameters())[-1][-1] = math.nan
        save(out, args, parts, **others)

    monkeypatch.setattr(common, "save_checkpoint", spoil)
    line = stops(launched(gan_mnist_mlp), ["--resume", "run", "--epochs", "2"], status=1)
    assert "weight is not finite" in line and "run/checkpoint.pt" in line
    saved = checkpoint("run")
    assert saved["epoch"] == 1 and all(value.isfinite().all() for value in saved[net].values())


def test_what_cannot_be_opened_or_made_is_named_in_one_line(stops):
    """As for a folder that is read-only, but permissions would not stop root: a folder in the file's place does."""
    gan_mnist_mlp.main([*MLP, "--epochs", "1", "--out", "run"])
    Path("run/config.json").unlink()
    Path("run/config.json").mkdir()
    line = stops(launched(gan_mnist_mlp), ["--resume", "run", "--epochs", "2"])
    assert "run/config.json: Is a directory; --resume run goes on with epoch 2" in line


def test_too_little_memory_is_one_line_and_another_error_keeps_its_traceback(stops, monkeypatch):
    def raises(error):
        def step(*inputs):
            raise error
        monkeypatch.setattr(dcgan_mnist, "step_G", step)

    flags = [*SCRIPTS[dcgan_mnist], "--epochs", "1", "--out"]
    raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has\nmore lines"))
    line = stops(launched(dcgan_mnist), [*flags, "a"], status=1)
    assert "out of memory" in line and "--resume a goes on with epoch 1" in line
    monkeypatch.setattr(dcgan_mnist, "step_G", lambda *inputs: torch.empty(2**60))  # the CPU has other words
    assert "memory" in stops(launched(dcgan_mnist), [*flags, "b"], status=1)
    cudnn = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")
    for i, error in enumerate([MemoryError(), OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), cudnn]):
        raises(error)
        assert "memory" in stops(launched(dcgan_mnist), [*flags, f"c{i}"], status=1)
    mistakes = [RuntimeError("mat1 and mat2 cannot be multiplied"), ValueError("mine"), FileNotFoundError(2, "no such", "x")]
    for i, error in enumerate(mistakes):
        raises(error)
        with pytest.raises(type(error)) as caught:
            launched(dcgan_mnist)([*flags, f"d{i}"])
        assert caught.value is error


@each_script
def test_a_script_that_is_run_hands_its_main_to_launch(script, monkeypatch):
    handed = []
    monkeypatch.setattr(common, "launch", handed.append)
    runpy.run_path(script.__file__, run_name="__main__")
    main, = handed
    assert main.__name__ == "main" and list(inspect.signature(main).parameters) == ["argv"]
    handed.clear()
    runpy.run_path(script.__file__, run_name="imported")
    assert not handed


# ------------------------------------------------------------------------------------------------------------ bad input
def test_bad_flags_get_one_line(stops):
    Path("file").touch()
    for flags, word in [
        (["--epochs", "0"], "--epochs 0"), (["--epochs", "many"], "--epochs"), (["--limit", "0"], "--limit 0"),
        (["--batch-size", "-3"], "--batch-size -3"), (["--batch-size", "0"], "--batch-size 0"),
        (["--batch-size", "6000"], "larger than the data, 5923"), (["--limit", "12"], "larger than the data, 12"),
        (["--dataset", "cifar"], "--dataset"), (["--precision", "fp8"], "--precision"),
        (["--seed", "4294967296"], "--seed 4294967296"),
        (["--device", "warp"], "--device warp"), (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "meta"], "--device meta cannot be used here, cpu can"),
        (["--limit", "10", "--batch-size", "2"], "10 modes"),
        (["--epochz", "3"], "--epochz"), (["--seed", "-1"], "--seed -1"), (["--seed", "1e3"], "--seed"),
        (["--lr-g", "nan"], "--lr-g nan"), (["--lr-g", "inf"], "--lr-g inf"), (["--lr-g", "-1"], "--lr-g -1"),
        (["--lr-d", "0"], "--lr-d 0"), (["--out", "file"], "file"), (["--out", "file/below"], "file/below"),
        (["--digit", "10"], "--digit"), (["--digit", "3"], "only zeros"), (["--g-loss", "hinge"], "--g-loss"),
    ]:
        assert word in stops(launched(gan_mnist_mlp), ["--dataset", "toy", "--epochs", "1", *flags]), flags
    for script, flags, word in [
        (dcgan_celeba, ["--dataset", "mnist", "--generator", "dcgan"], "only the vanilla"),
        (dcgan_celeba, ["--compare", "nowhere"], "--compare nowhere"),
        (dcgan_celeba, ["--dataset", "fashion"], "--dataset"), (wgan_celeba, ["--n-critic", "0"], "--n-critic 0"),
        (wgan_celeba, ["--loss", "lsgan", "--clip", "0.05"], "--clip 0.05"),
        (wgan_celeba, ["--clip", "-0.1"], "--clip -0.1"), (wgan_celeba, ["--batch-size", "1"], "--batch-size 1"),
        (wgan_celeba, ["--dataset", "mnist"], "--dataset"), (dcgan_mnist, ["--model", "vae"], "--model"),
    ]:
        assert word in stops(script.main, ["--dataset", "toy", "--epochs", "1", *flags]), flags
    assert sorted(path.name for path in Path().iterdir()) == ["file"], "a refused run left something behind"


def test_a_gpu_that_is_there_and_cannot_compute_is_named(stops, monkeypatch):
    """As with a GPU too old for this torch, which nobody asked for by its name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "--device cuda cannot be used here, cpu can" in stops(lambda argv: common.pick_device(None), [])


def test_a_tilde_is_the_home_folder_in_every_shell(monkeypatch, stops):
    """Also in --out=~/run, or on Windows, where the shell leaves it alone."""
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("USERPROFILE", str(Path.cwd()))
    gan_mnist_mlp.main([*MLP, "--epochs", "1", "--out=~/run", "--data=~/data"])
    gan_mnist_mlp.main(["--resume=~/run"])
    assert checkpoint("run")["args"]["data"] == str(Path("data").absolute()) and not Path("~").exists()
    assert str(Path("none").absolute()) in stops(dcgan_celeba.main, ["--compare=~/none"])


@each_script
def test_help_says_what_the_script_is_and_shows_every_default(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and script.__doc__.splitlines()[0] in text
    assert text.startswith(f"usage: {script.__name__}.py") and "(default: fp32)" in text
    if script is dcgan_celeba:
        assert text.endswith("--batch-size None is 128, for mnist 64.")


def test_mnist_that_is_not_there_and_cannot_be_downloaded_gets_one_line(stops, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert "data/MNIST/raw" in (line := stops(gan_mnist_mlp.main, [])) and "--dataset toy" in line
    assert "elsewhere/FashionMNIST/raw" in stops(dcgan_mnist.main, ["--dataset", "fashion", "--data", "elsewhere"])


def cut_short(raw):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])


def wrong_magic(raw):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(b"\x00\x00\x77\x03" + path.read_bytes()[4:])


def web_page(raw):
    for path in raw.iterdir():
        path.write_bytes(b"<!DOCTYPE html><html>403 Forbidden</html>")


def fewer_labels(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())


@pytest.mark.parametrize("spoil", [cut_short, wrong_magic, web_page, fewer_labels])
def test_spoiled_mnist_files_get_one_line(stops, spoil):
    spoil(write_mnist("data"))
    assert "cannot load data/MNIST/raw" in stops(gan_mnist_mlp.main, [])
    assert not Path("runs").exists()


def test_mnist_is_read_pixel_by_pixel_with_its_labels():
    raw = write_mnist("data", count=60)
    images, labels = common.load_mnist("data", "mnist")
    content = (raw / "train-images-idx3-ubyte").read_bytes()[16:]
    assert images.shape == (60, 1, 28, 28) and images.dtype == torch.uint8 and bytes(images.numpy()) == content
    assert labels.tolist() == [i % 10 for i in range(60)]
    both, labels = common.load_mnist("data", "mnist", test=True)
    assert both.shape == (90, 1, 28, 28) and torch.equal(both[:60], images) and len(labels) == 90


# ------------------------------------------------------------------------------------------------------------- homework
def test_a_students_own_flags_may_have_any_value():
    parser = common.training_parser("my_gan.py", "A GAN.", ["toy"], epochs=1, batch_size=2, seed=0)
    parser.add_argument("--penalty", action="store_true")
    parser.add_argument("--weight", type=float, default=0.0)
    parser.add_argument("--shift", type=int, default=-1)
    args, _ = common.parse(parser, [])
    assert (args.penalty, args.weight, args.shift) == (False, 0.0, -1)


def test_one_more_loss_is_saved_printed_and_drawn_and_a_column_may_go(monkeypatch, capsys, drawn):
    """As when a student adds a term to a row of the log, and takes another away."""
    add_row = common.add_row

    def other_columns(rows, *, d_real, **values):
        add_row(rows, **values, loss_penalty=2 * values["loss_d"], quality=values["loss_g"])

    monkeypatch.setattr(common, "add_row", other_columns)
    dcgan_mnist.main([*SCRIPTS[dcgan_mnist], "--epochs", "1", "--out", "run"])
    dcgan_mnist.main(["--resume", "run", "--epochs", "2"])
    header, rows = csv_rows("run/losses.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g", "d_fake", "loss_penalty", "quality"]
    assert len(rows) == 8 and all(row[5] == pytest.approx(2 * row[2]) for row in rows)
    assert "loss_penalty" in capsys.readouterr().out and {label for label, *_ in drawn} == {None, *header[2:]}


def test_a_renamed_copy_trains_alone_with_common():
    """The copy rule: one script and common.py in an empty folder; only --dataset toy wants toy_images.py too."""
    write_mnist("data", count=64)
    for name, copy in [("dcgan_mnist.py", "my_gan.py"), ("common.py", "common.py")]:
        Path(copy).write_bytes((ROOT / name).read_bytes())
    small = ["--ngf", "4", "--ndf", "4", "--batch-size", "16", "--epochs", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "my_gan.py", *small], env={**environment, "OMP_NUM_THREADS": "1"},
                            capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert {path.name for path in Path("runs/my_gan").iterdir()} == CONTENT
    assert checkpoint("runs/my_gan")["script"] == "my_gan"


# ------------------------------------------------------------------------------------------------------------ toy zeros
def test_toy_zeros_are_zeros_and_always_the_same():
    images = toy_images.zeros()
    assert images.shape == (5923, 1, 28, 28) and images.dtype == torch.uint8
    torch.manual_seed(7)
    assert torch.equal(images, toy_images.zeros.__wrapped__())
    assert len(images.flatten(1).unique(dim=0)) == 5923
    ink = images.float() / 255
    hole = ink[:, :, 13:15, 13:15].mean()
    assert hole < 0.1 < 0.15 < ink.mean() < 0.25, "a dark hole in a ring about as heavy as MNIST's (0.17)"
    border = torch.cat([ink[..., 0, :], ink[..., -1, :], ink[..., :, 0], ink[..., :, -1]], dim=-1)
    assert border.mean() < 0.02


# ----------------------------------------------------------------------------------------------------------------- CUDA
@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@each_script
def test_a_run_on_a_GPU_goes_on_on_a_CPU_and_back(script, precision):
    script.main([*SCRIPTS[script], "--precision", precision, "--epochs", "1", "--out", "run"])
    config = json.loads(Path("run/config.json").read_text())
    assert config["device_name"] == torch.cuda.get_device_name(), "though nobody asked for it"
    for epochs, device in [("2", "cpu"), ("3", "cuda")]:
        script.main(["--resume", "run", "--epochs", epochs, "--device", device])
    header, rows = csv_rows("run/losses.csv")
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)) and rows[-1][1] == 3
    assert all(value.device.type == "cpu" for value in common.load_checkpoint("run/checkpoint.pt")["G"].values())


@on_gpu
def test_images_are_held_on_the_GPU_where_they_fit_and_the_order_is_the_CPUs():
    images, device = torch.zeros(64, 1, 28, 28, dtype=torch.uint8), torch.device("cuda")
    assert common.hold(images, 16, device).device.type == "cuda"
    half = torch.cuda.mem_get_info(device)[0] // 2
    huge = torch.empty(1, dtype=torch.uint8).expand(half + 2**28)  # takes one byte; nbytes counts them all
    assert common.hold(huge, 16, device).device.type == "cpu"
    torch.manual_seed(0)
    on_gpu = list(common.shuffled_batches(images.to(device), 16, 0, 1))
    torch.manual_seed(0)
    on_cpu = list(common.shuffled_batches(images, 16, 0, 1))
    assert all(a.device.type == "cuda" and torch.equal(a.cpu(), b) for a, b in zip(on_gpu, on_cpu))


@on_gpu
def test_fp32_is_TF32_on_a_GPU_and_only_training_tries_out_kernels():
    for training in (False, True):
        common.pick_device(None, training)
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.benchmark == training
