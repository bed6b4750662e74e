"""Pictures out: grids of images, samples, curves and the GIF."""
import os
from pathlib import Path

import numpy
import pytest
import torch
from conftest import csv_rows, do_not_paint, each_script
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import common
import dcgan_celeba
import dcgan_mnist
import wgan_celeba


def pixels(path):
    with Image.open(path) as image:
        return torch.from_numpy(numpy.array(image)).permute(2, 0, 1)


# ------------------------------------------------------------------------------------------ grids
def test_black_is_minus_one_and_white_is_one():
    assert common.to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
    middle = common.to_float(torch.tensor([127, 128], dtype=torch.uint8))
    assert middle.tolist() == pytest.approx([-1 / 255, 1 / 255], rel=1e-4)
    assert middle.dtype == torch.float32


def test_every_grey_survives_the_way_to_float_and_into_a_picture():
    """All 256 values in each of four cells: a grid that stretched the range of its images would
    show."""
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
    values = (-1.0, 0.0, 1.0, 5.0, -5.0, 1.0)
    images = torch.stack([torch.full((3, 4, 4), value) for value in values])
    common.save_grid("grid.png", images, columns=3)
    grid = pixels("grid.png")[0]
    assert grid.shape == (14, 20)
    assert [grid[y, x].item() for y in (3, 9) for x in (3, 9, 15)] == [0, 128, 255, 255, 0, 255]
    common.save_grid("square.png", torch.zeros(9, 1, 4, 4))
    assert pixels("square.png").shape == (3, 20, 20)


# ---------------------------------------------------------------------------------------- samples
@pytest.mark.parametrize("G", [
    dcgan_mnist.DCGANGenerator(ngf=4), dcgan_celeba.VanillaGenerator(ngf=4),
    dcgan_celeba.DCGANGenerator(ngf=4), wgan_celeba.Generator(ngf=4),
    wgan_celeba.Generator(ngf=4, upsample="bilinear")], ids=lambda G: type(G).__name__)
def test_a_sample_does_not_depend_on_its_batch_mates(G):
    """Pictures are made in eval mode, without a graph, and G goes on in train mode."""
    torch.manual_seed(0)
    for weight in G.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.3)
    latent_dim = 128 if isinstance(G, dcgan_mnist.DCGANGenerator) else 100
    z = torch.randn(4, latent_dim)
    G(z)  # so that BatchNorm's running statistics are not those of the beginning
    before = {name: value.clone() for name, value in G.state_dict().items()}
    common.save_samples(Path("x.png"), G, z)
    assert G.training and all(module.training for module in G.modules())
    assert all(torch.equal(before[name], value) for name, value in G.state_dict().items())
    with torch.no_grad():
        alone = torch.cat([G.eval()(one) for one in z.split(1)])
        crowd = G.train()(z)  # train mode: what must not be in the pictures
    grid, size = common.to_float(pixels("x.png")), alone.shape[-1]
    cells = torch.stack([grid[:, 2 + y * (size + 2):, 2 + x * (size + 2):][:, :size, :size]
                         for y in (0, 1) for x in (0, 1)])
    assert (cells - alone).abs().max() < 0.01 < 0.1 < (cells - crowd).abs().max()


def test_a_G_with_more_inputs_than_z_can_be_sampled():
    """As a student's with labels."""
    class Labelled(nn.Module):
        def forward(self, z, labels):
            return (z + labels).view(-1, 1, 2, 2)

    common.save_samples(Path("x.png"), Labelled(), torch.zeros(4, 4), torch.ones(4, 1))
    assert pixels("x.png").min() == 255


def test_samples_that_cannot_be_saved_cost_a_line_and_nothing_else(capsys):
    Path("there.png").mkdir()
    G = wgan_celeba.Generator(ngf=1)
    common.save_samples(Path("there.png"), G, torch.zeros(4, 100))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("there.png could not be made (")
    assert G.training and os.listdir() == ["there.png"]


# ----------------------------------------------------------------------------------------- curves
@each_script
def test_every_column_is_drawn_pale_and_smooth(script, straight, drawn, monkeypatch):
    out, _ = straight(script)
    if script is not wgan_celeba:  # which has the most panels
        monkeypatch.setattr(Figure, "savefig", do_not_paint)
    drawn.clear()
    header, rows = csv_rows(out / "losses.csv")
    common.draw_losses(Path("losses.png"), common.read_csv(out / "losses.csv"))
    steps, *columns = map(list, zip(*rows))
    columns = {name: column for name, column in zip(header[1:], columns)
               if name not in ("epoch", "g_step")}
    pale = [line for line in drawn if not line[0]]
    smooth = [line for line in drawn if line[0]]
    assert len(pale) == len(smooth) == len(columns)
    assert all((None, steps, column) in pale for column in columns.values())
    for name, column in columns.items():
        x, y = common.running_median(numpy.array(steps), numpy.array(column))
        assert (name, x.tolist(), y.tolist()) in smooth
    if script is wgan_celeba:
        with Image.open("losses.png") as picture:
            assert picture.format == "PNG" and len(picture.getcolors(10**6)) > 100


@pytest.fixture
def panels(monkeypatch):
    """Draw a table of these columns; return a panel's (names, the x label, heights of its dashed
    lines), from top to bottom."""
    def run(*names, **more):
        figures = []
        monkeypatch.setattr(common, "save_figure", lambda path, figure: figures.append(figure))
        table = {name: numpy.arange(1.0, 30.0) for name in ("step", *names)}
        common.draw_losses(Path("x.png"), table, **more)
        return [({text.get_text() for text in axes.get_legend().get_texts()}, axes.get_xlabel(),
                 [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"])
                for axes in figures[0].axes]
    return run


def test_columns_whose_names_begin_alike_share_a_panel(panels):
    got = panels("epoch", "loss_d", "loss_g", "d_real", "d_fake", "g_step", "w_estimate", "quality")
    assert got == [({"w_estimate"}, "", []), ({"loss_d", "loss_g"}, "", []),
                   ({"d_real", "d_fake"}, "", []), ({"quality"}, "step", [])]


def test_the_losses_of_a_D_that_cannot_tell_are_a_dashed_line(panels):
    (losses, _, heights), (answers, _, others) = panels("loss_d", "d_real", chance_level=0.693)
    assert heights == [0.693] and any("0.693" in name for name in losses)
    assert answers == {"d_real"} and others == []


def test_a_very_long_run_is_thinned_out_before_it_is_drawn(monkeypatch):
    lengths, plot = [], Axes.plot

    def note(axes, x, y, *style, **how):
        lengths.append(len(x))
        assert len(x) == len(y)
        return plot(axes, x, y, *style, **how)

    monkeypatch.setattr(Axes, "plot", note)
    steps = numpy.arange(1.0, 158_251.0)
    common.draw_losses(Path("x.png"), {"step": steps, "loss_d": steps})
    assert len(lengths) == 2 and all(1000 <= length <= 20_000 for length in lengths)


# -------------------------------------------------------------------------------------------- GIF
def paint(step, grey=None):
    """A picture of a run in this folder, of one grey."""
    Path("samples").mkdir(exist_ok=True)
    grey = step % 256 if grey is None else grey
    Image.new("RGB", (4, 4), (grey,) * 3).save(f"samples/step_{step:06d}.png")


def film(path="training.gif"):
    """The frames of the GIF: (grey, milliseconds)."""
    common.draw_gif(path, common.pictures_of(Path()))
    frames = []
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0, "it begins again"
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            frames.append((gif.convert("L").getpixel((0, 0)), gif.info["duration"]))
    return frames


@each_script
def test_the_GIF_shows_every_picture_of_a_run_in_order(script, straight):
    out, _ = straight(script)
    pictures = sorted((out / "samples").iterdir())
    with Image.open(out / "training.gif") as gif:
        assert gif.n_frames == len(pictures) >= 4
        for i, path in enumerate(pictures):
            gif.seek(i)
            shown = numpy.asarray(gif.convert("RGB")).astype(int)
            with Image.open(path) as picture:
                wanted = numpy.asarray(picture).astype(int)
            assert abs(shown - wanted).mean() < 8, "a GIF has 256 colours"


def test_a_picture_is_shown_in_proportion_to_the_steps_that_led_to_it():
    for step in (0, 10, 20, 50, 100, 200):
        paint(step)
    greys, times = zip(*film())
    assert greys == (0, 10, 20, 50, 100, 200)
    per_step = sum(times) / 210  # the first one, to which no step led, is shown like the second
    wanted = [per_step * steps for steps in (10, 10, 10, 30, 50, 100)]
    assert times == pytest.approx(wanted, abs=10), "a GIF counts hundredths of a second"
    assert 1000 < sum(times) <= 2000, "a quarter of a second each"


@pytest.mark.parametrize("count", [1, 2])
def test_the_GIF_of_a_run_that_has_just_begun(count):
    for step in range(count):
        paint(step, 100 * step + 50)
    assert [grey for grey, _ in film()] == [50, 150][:count]


@pytest.mark.parametrize("count", [99, 100, 101, 150, 801])
def test_the_GIF_has_100_frames_at_most_lasts_ten_seconds_and_ends_with_the_last_picture(count):
    for i in range(count):  # the names get longer on the way: step_1000000 comes after step_999999
        paint(999_900 + i, i * 255 // (count - 1))
    greys, times = zip(*film())
    assert 50 <= len(greys) <= 100 and list(greys) == sorted(greys)
    assert greys[-1] == 255 and greys[0] <= 8 and (count > 100 or len(greys) == count)
    assert sum(times) == pytest.approx(10_000, rel=0.1) and min(times) >= 20


def test_a_damaged_picture_costs_its_frame_and_a_line(capsys):
    for step in (0, 50, 100, 150, 200):
        paint(step)
    whole = Path("samples/step_000050.png").read_bytes()
    Path("samples/step_000050.png").write_bytes(b"")
    Path("samples/step_000100.png").write_bytes(whole[:50])
    Path("samples/step_000000.png").write_bytes(b"<html>")
    assert [grey for grey, _ in film()] == [150, 200]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("step_000" in line and "frame" in line for line in lines)


def test_other_files_among_the_samples_are_left_alone():
    """As a file manager's copy, or a student's own."""
    for step in (0, 50):
        paint(step)
    for name in ("step_000050 copy.png", "step_best.png", "mine.png", "step_000020.png.part"):
        Path("samples", name).touch()
    assert [grey for grey, _ in film()] == [0, 50]
    Path("losses.csv").touch()
    common.cut_run(Path(), 20)
    kept = {path.name for path in Path("samples").iterdir()}
    assert kept == {"step_000000.png", "step_000050 copy.png", "step_best.png", "mine.png",
                    "step_000020.png.part"}


def test_without_a_picture_the_older_GIF_stays():
    paint(0)
    film()
    before = Path("training.gif").read_bytes()
    Path("samples/step_000000.png").unlink()
    with pytest.raises(ValueError, match="no pictures"):
        film()
    assert Path("training.gif").read_bytes() == before
