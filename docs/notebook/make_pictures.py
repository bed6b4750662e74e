"""Draw docs/pictures from the runs of runs.txt, with labels.

    python docs/notebook/make_pictures.py                 all pictures
    python docs/notebook/make_pictures.py zeros walks     those whose names begin so

Nothing is trained here: the runs must be in runs/notebook. Nothing is picked: a picture shows the
first samples of the fixed noise. Pictures that need no run have programs of their own: draw_gan.py,
draw_upsampling.py.
"""
import io
import math
import sys
from functools import cache, partial
from pathlib import Path

import matplotlib.font_manager
import numpy
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for common.py

import common

GAP = 8  # white pixels around a block and around a label
FONT = matplotlib.font_manager.findfont("DejaVu Sans")


# --------------------------------------------------------------------------------------- labels
def labelled(blocks, row_labels, column_labels=()):
    """Paste pictures into a white one, with labels at the left and above.

    blocks: rows of pictures, as high as the first one of their row, as wide as that of their
    column. A label may have several lines.
    """
    widths = [block.width + GAP for block in blocks[0]]
    heights = [row[0].height + GAP for row in blocks]
    font = ImageFont.truetype(FONT, max(16, sum(widths) // 40))  # can be read on a projector
    if any(size_of(label, font)[0] > width for label, width in zip(column_labels, widths)):
        column_labels = [label.replace(" ", "\n") for label in column_labels]
    left = 2 * GAP + max(size_of(label, font)[0] for label in row_labels)
    top = GAP + max((size_of(label, font)[1] + GAP for label in column_labels), default=0)
    sheet = Image.new("RGB", (left + sum(widths), top + sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)

    x = left
    for label, width in zip(column_labels, widths):
        middle = (x + (width - GAP) / 2, top / 2)
        pen.text(middle, label, "black", font, anchor="mm", align="center")
        x += width
    y = top
    for row, label, height in zip(blocks, row_labels, heights):
        end = (left - GAP, y + (height - GAP) / 2)
        pen.text(end, label, "black", font, anchor="rm", align="right")
        x = left
        for block, width in zip(row, widths):
            sheet.paste(block, (x, y))
            x += width
        y += height
    return sheet


def size_of(text, font):
    """Width and height of a text, in pixels."""
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    _, _, right, bottom = pen.textbbox((0, 0), text, font)
    return round(right), round(bottom)


def words(epoch):
    if epoch == 0:
        return "untrained"
    return "1 epoch" if epoch == 1 else f"{epoch} epochs"


# ------------------------------------------------------------------- what a run has left behind
def file_of(run, name, made_by=None):
    """The path of a file in a run's folder. Where it is missing, the program ends with the line of
    runs.txt that makes it: the one that has `made_by`, or --out and the run's folder."""
    path = ROOT / "runs/notebook" / run / name
    made_by = made_by or f"--out runs/notebook/{run}"
    if not path.exists():
        lines = Path(__file__).with_name("runs.txt").read_text().splitlines()
        command = next(line for line in lines if f"{made_by} " in f"{line} ")
        common.fail(f"there is no {path}; docs/notebook/runs.txt makes it: {command}")
    return path


def picture_of(run, name, made_by=None):
    return Image.open(file_of(run, name, made_by)).convert("RGB")


def explored(run, command, name):
    """A picture that explore_latent.py has made of a run."""
    file_of(run, "checkpoint.pt")
    return picture_of(run, f"explore/{name}", made_by=f"{run}/checkpoint.pt {command}")


@cache
def steps_an_epoch(run):
    table = common.read_csv(file_of(run, "losses.csv"))
    return (table["epoch"] == 1).sum()


def samples(run, epoch, rows, columns, pixels):
    """The first rows x columns samples after an epoch, each of pixels x pixels."""
    grid = picture_of(run, f"samples/step_{epoch * steps_an_epoch(run):06d}.png")
    return cells(grid, 0, 0, rows, columns, pixels)


def cells(grid, top, left, rows, columns, pixels):
    """rows x columns pictures of a grid, which has 2 pixels around each."""
    step = pixels + 2
    return grid.crop((left * step, top * step,
                      (left + columns) * step + 2, (top + rows) * step + 2))


# ------------------------------------------------------------------------------ samples of runs
# a row for each run, a column for each epoch:
# picture -> epochs, rows and columns and pixels of a block, label -> run
TIMES = {
    "zeros-samples": ([1, 4, 8, 20, 100], (4, 5, 28), {"": "zeros-0"}),
    "zeros-fast-samples": ([1, 4, 8, 16, 25], (2, 5, 28), {"": "zeros-fast-both"}),
    "zeros-saturating-samples": ([0, 5, 10, 20], (2, 5, 28), {"": "zeros-saturating"}),
    "blog-dcgan-samples": ([1, 16, 100], (8, 8, 28), {"DCGAN": "blog-dcgan-100"}),
    "blog-mlp-samples": ([1, 16, 100], (8, 8, 28), {"MLP": "blog-mlp-100"}),
    "blog-fashion-samples": ([1, 16, 100], (4, 8, 28),
                             {"DCGAN": "blog-dcgan-fashion", "MLP": "blog-mlp-fashion"}),
    "blog-slow-samples": ([1, 4, 8, 16, 25, 50, 75, 100], (2, 3, 28),
                          {"DCGAN": "blog-dcgan-100-slow", "MLP": "blog-mlp-100-slow"}),
    "lab-mnist-samples": ([1, 2, 3, 4, 5], (5, 5, 28), {"": "lab-mnist"}),
    "lab-full-samples": ([1, 2, 3, 4, 5], (2, 3, 64), {"DCGAN": "lab-dcgan-celeba-full-0",
                                                       "vanilla": "lab-vanilla-celeba-full-0"}),
    "lab-dcgan-samples": ([1, 3, 5, 10, 20], (3, 4, 64), {"DCGAN": "lab-dcgan"}),
    "lab-vanilla-samples": ([1, 3, 5, 10, 20], (3, 4, 64), {"vanilla": "lab-vanilla"}),
    "lab-long-samples": ([20, 60, 102], (2, 4, 64),
                         {"DCGAN": "lab-dcgan-long", "vanilla": "lab-vanilla-long"}),
    "wgan-samples": ([1, 10, 25, 50], (3, 4, 64), {"WGAN": "wgan-0"}),
    "wgan-long-samples": ([50, 100, 200], (2, 4, 64),
                          {"clip 0.01": "wgan-long-2", "clip 0.05": "wgan-long-clip-0.05-2"}),
}

# a row for each run and epoch: picture -> columns, pixels, label -> (run, epoch, rows)
ROWS = {
    "blog-pairs": (16, 28, {
        "DCGAN,\nseed 42": ("blog-dcgan", 16, 2), "MLP,\nseed 42": ("blog-mlp", 16, 2),
        "DCGAN,\nseed 43": ("blog-dcgan-16-43", 16, 2), "MLP,\nseed 43": ("blog-mlp-16-43", 16, 2),
        "DCGAN,\nseed 44": ("blog-dcgan-16-44", 16, 2), "MLP,\nseed 44": ("blog-mlp-16-44", 16, 2),
        "DCGAN,\nrate 5e-5": ("blog-dcgan-16-slow", 16, 2),
        "MLP,\nrate 5e-5": ("blog-mlp-16-slow", 16, 2),
        "DCGAN,\nrate 1e-3": ("blog-dcgan-16-fast", 16, 2),
        "MLP,\nrate 1e-3": ("blog-mlp-16-fast", 16, 2)}),
    "blog-eval-samples": (12, 28, {
        "the script\nas it is": ("blog-dcgan-42", 4, 2),
        "G in\neval mode": ("blog-eval-g", 4, 2), "D in\neval mode": ("blog-eval-d", 4, 2)}),
    "upsampling-samples": (8, 64, {
        "deconvolution": ("minimax-8", 8, 1), "nearest": ("minimax-nearest", 8, 1),
        "bilinear": ("minimax-bilinear", 8, 1)}),
    "wgan-variants": (8, 64, {
        "the default": ("wgan", 25, 1), "clip 0.05": ("wgan-clip-0.05", 25, 1),
        "Adam": ("wgan-adam", 25, 1), "25 updates of\nthe critic": ("wgan-25", 25, 1)}),
    "wgan-critic": (8, 64, {
        "5 or 20 updates,\n225 of G": ("wgan-small-batches", 3, 1),
        "5 or 20 updates,\n350 of G": ("wgan-small-batches", 4, 1),
        "100 updates,\n200 of G": ("wgan-critic-100", 32, 1),
        "100 updates,\n300 of G": ("wgan-critic-100", 48, 1)}),
    "minimax-over-wgan": (8, 64, {
        "minimax,\n3 epochs": ("minimax-longer-celeba-full", 3, 2),
        "WGAN,\n16 epochs": ("wgan-longer-celeba-full", 16, 2),
        "least squares,\n8 epochs": ("lsgan-longer-celeba-full", 8, 1),
        "WGAN, clip 0.05,\n3 epochs": ("wgan-clip-0.05-celeba-full", 3, 1)}),
    "minimax-batchnorm": (8, 64, {
        "quarter width,\nas it is": ("minimax-8", 8, 1),
        "quarter width,\nmore BatchNorm": ("minimax-all-bn", 8, 1),
        "full width,\nas it is": ("minimax-8-full-0", 8, 1),
        "full width,\nmore BatchNorm": ("minimax-all-bn-full-0", 8, 1)}),
    "lsgan-minimax-samples": (6, 64, {
        "least squares,\n50 epochs": ("lsgan-long", 50, 1),
        "least squares,\n200 epochs": ("lsgan-long", 200, 1),
        "minimax,\n50 epochs": ("minimax-long", 50, 1),
        "minimax,\n199 epochs": ("minimax-long", 199, 1),
        "minimax,\n200 epochs": ("minimax-long", 200, 1),
        "minimax, seed 1,\n200 epochs": ("minimax-long-1", 200, 1),
        "minimax, D half as\nwide, 200 epochs": ("minimax-narrow-d-0", 200, 1)}),
    "toy-faces": (8, 64, {
        "vanilla": ("toy-vanilla", 20, 1), "DCGAN": ("toy-dcgan", 20, 1),
        "minimax": ("toy-minimax", 20, 1), "least squares": ("toy-lsgan", 20, 1),
        "WGAN": ("toy-wgan", 40, 1)}),
}


def in_time(name):
    epochs, shape, runs = TIMES[name]
    blocks = [[samples(run, epoch, *shape) for epoch in epochs] for run in runs.values()]
    return labelled(blocks, list(runs), [words(epoch) for epoch in epochs])


def in_rows(name):
    columns, pixels, runs = ROWS[name]
    labels = list(runs)
    blocks = [[samples(run, epoch, rows, columns, pixels)] for run, epoch, rows in runs.values()]
    if name == "toy-faces":
        labels.insert(0, "drawn faces")
        blocks.insert(0, [cells(picture_of("toy-vanilla", "real.png"), 0, 0, 1, columns, pixels)])
    return labelled(blocks, labels)


def growth():
    """Zeros, digits and faces from noise to pictures: four samples at six moments, a row each."""
    sheets = []
    for label, run, epochs, pixels in [("zeros", "zeros-0", [0, 3, 4, 8, 20, 100], 28),
                                       ("digits", "blog-dcgan", [0, 1, 2, 4, 8, 16], 28),
                                       ("faces", "lab-vanilla-full-0", [0, 4, 8, 12, 24, 61], 64)]:
        blocks = []
        for epoch in epochs:
            block = samples(run, epoch, 2, 2, pixels)
            block = block.crop((2, 2, block.width - 2, block.height - 2))
            blocks.append(block.resize((140, 140), Image.Resampling.BICUBIC))
        sheets.append(labelled([blocks], [label], [words(epoch) for epoch in epochs]))
    return below(sheets)


def below(sheets):
    """Pictures under one another; their right edges are in line."""
    width = max(sheet.width for sheet in sheets)
    pile = Image.new("RGB", (width, sum(sheet.height for sheet in sheets)), "white")
    y = 0
    for sheet in sheets:
        pile.paste(sheet, (width - sheet.width, y))
        y += sheet.height
    return pile


# ------------------------------------------------------- what explore_latent.py makes of a run
def fresh():
    """Zeros of the seeds 0 to 9, enlarged."""
    grid = explored("zeros-250", "sample", "sample.png")  # 4 in a row
    blocks = []
    for seed in range(10):
        zero = cells(grid, seed // 4, seed % 4, 1, 1, 28)
        blocks.append(zero.resize((60, 60), Image.Resampling.NEAREST))
    return labelled([blocks], ["250 epochs"], [f"seed {seed}" for seed in range(10)])


def explored_models(command, names):
    """What explore_latent.py drew of two models, below one another: a row of pictures for each."""
    blocks = []
    for run in ("minimax-celeba-full", "wgan-celeba-full"):
        blocks.append([explored(run, command, name) for name in names])
    return labelled(blocks, ["minimax", "WGAN"])


# ---------------------------------------------------------------------------------------- plots
def compared(runs, chance_level):
    """The losses of runs (label -> run) over one another, pale, with their running medians.

    chance_level: loss_d of a D that cannot tell reals from fakes.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ["loss_g", "loss_d"]):
        tops = []
        for i, (label, run) in enumerate(runs.items()):
            table = common.read_csv(file_of(run, "losses.csv"))
            axes.plot(table["step"], table[name], f"C{i}", alpha=0.2, linewidth=0.5)
            smooth = common.running_median(table["step"], table[name], window=25)
            axes.plot(*smooth, f"C{i}", label=label)
            tops.append(numpy.percentile(table[name], 99))
        # the highest minibatches are cut off: a few of them are ten times as high as the medians
        axes.set(title=name, xlabel="step", ylim=(0, max(tops)))
        if name == "loss_d":
            axes.axhline(chance_level, color="0.4", linestyle="--", label="D cannot tell")
        axes.legend()
    return painted(figure)


def toy_wgan():
    """The first command of the lesson on the WGAN: the gap with its bound, and samples."""
    run, clip, ndf = "toy-wgan-lesson", 0.01, 16
    table = common.read_csv(file_of(run, "losses.csv"))
    bound = 2 * (16 * 8 * ndf) * clip ** 2
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(table["step"], table["w_estimate"], "C0", alpha=0.2, linewidth=0.5)
    axes.plot(*common.running_median(table["step"], table["w_estimate"]), "C0", linewidth=3)
    axes.axhline(bound, color="0.4", linestyle="--")
    axes.text(table["step"][-1], bound, f"the bound of the clip: {bound:.2f}", ha="right",
              va="bottom")
    axes.set(xlabel="step (one update of the critic)", ylabel="w_estimate", ylim=(-0.1, 0.47))
    epochs = [1, 2, 3, 5]
    strips = labelled([[samples(run, epoch, 2, 4, 64) for epoch in epochs]], [""],
                      [f"step {epoch * steps_an_epoch(run):,}" for epoch in epochs])
    return below([painted(figure), strips])


def painted(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    return Image.open(file).convert("RGB")


# picture -> how it is drawn
PICTURES = {
    "growth": growth,
    **{name: partial(in_time, name) for name in TIMES},
    **{name: partial(in_rows, name) for name in ROWS},
    "zeros-250-fresh": fresh,
    "zeros-modes": lambda: picture_of("zeros-0", "modes.png"),
    "zeros-slow-d-modes": lambda: picture_of("zeros-slow-d", "modes.png"),
    "zeros-fast-modes": lambda: picture_of("zeros-fast-both", "modes.png"),
    "zeros-losses": lambda: picture_of("zeros-2000", "losses.png"),
    "blog-losses": lambda: compared({"DCGAN": "blog-dcgan-100", "MLP": "blog-mlp-100"},
                                    math.log(2)),
    "lab-comparison": lambda: compared({"DCGAN": "lab-dcgan", "vanilla": "lab-vanilla"},
                                       2 * math.log(2)),
    "wgan-losses": lambda: picture_of("wgan-0", "losses.png"),
    "wgan-toy": toy_wgan,
    "walk-digits": lambda: picture_of("walk-digits", "walk_140-180_all.png"),
    "walks": lambda: explored_models("walk", ["walk_140-180_all.png"]),
    "play-models": lambda: explored_models("play", ["play_140_top.png", "play_180_top.png"]),
    "scores": lambda: picture_of("scores", "scores.png"),
}


def with_few_colours(picture):
    """For a small file: 32 greys where there is no colour, else 256 colours."""
    grey = picture.convert("L").convert("RGB")
    return picture.quantize(32 if grey.tobytes() == picture.tobytes() else 256)


def main():
    matplotlib.rcParams["font.size"] = 16
    chosen = tuple(sys.argv[1:] or [""])
    for name, draw in PICTURES.items():
        if name.startswith(chosen):
            path = ROOT / f"docs/pictures/{name}.png"
            with_few_colours(draw()).save(path, optimize=True)
            print(path)


if __name__ == "__main__":
    common.launch(main)
