"""Draw docs/pictures/gan.png: the best D for three generators, and the two losses of G.

Run       python docs/notebook/draw_gan.py
Look at   docs/pictures/gan.png, explained in docs/gan.md

Nothing is trained here. An "image" is one number x, and all curves are formulas of docs/gan.md.
"""
from pathlib import Path

import numpy
from matplotlib.figure import Figure
from PIL import Image

PICTURE = Path(__file__).resolve().parent.parent / "pictures/gan.png"
REALS, FAKES, BEST_D = "tab:blue", "#d95f02", "black"
NONSATURATING, SATURATING = "tab:green", "tab:red"

FIRST_MODE, SECOND_MODE = -0.5, 3.5  # the two kinds of real image
FAR_OFF = -4.5  # where an untrained G draws


def bell(x, mean, deviation=0.7):
    """The density of a normal distribution at x."""
    height = 1 / (deviation * numpy.sqrt(2 * numpy.pi))
    return height * numpy.exp(-0.5 * ((x - mean) / deviation) ** 2)


def sigmoid(logit):
    return 1 / (1 + numpy.exp(-logit))


def draw_best_D(panel, title, x, p_data, p_g):
    """The densities of reals and fakes, and the D that is best against them."""
    best_D = p_data / (p_data + p_g)
    panel.fill_between(x, p_data, color=REALS, alpha=0.3)
    panel.plot(x, p_data, color=REALS, linewidth=2)
    panel.fill_between(x, p_g, color=FAKES, alpha=0.3)
    panel.plot(x, p_g, color=FAKES, linewidth=2.5, linestyle="--")
    panel.plot(x, best_D, color=BEST_D, linewidth=4)
    panel.set_title(title)
    panel.set_xlim(x[0], x[-1])
    panel.set_xticks([])
    panel.set_xlabel("images x (here one number each)")
    panel.set_ylim(0, 1.15)
    panel.set_yticks([0, 0.5, 1], ["0", "1/2", "1"])
    panel.set_ylabel("D(x)")


def draw_losses_of_G(panel, title):
    """Both losses of G over D's logit, and their slopes where D is sure of a fake."""
    logit = numpy.linspace(-6, 6, 241)
    panel.plot(logit, -numpy.log(sigmoid(logit)), color=NONSATURATING, linewidth=4)
    panel.plot(logit, numpy.log(1 - sigmoid(logit)), color=SATURATING, linewidth=4, linestyle="--")

    sure = -4.0
    upper = -numpy.log(sigmoid(sure))
    lower = numpy.log(1 - sigmoid(sure))
    panel.plot(sure, upper, "o", color=NONSATURATING, markersize=12)
    panel.plot(sure, lower, "o", color=SATURATING, markersize=12)
    # a minus sign as long as a plus
    upper_slope = f"slope \N{MINUS SIGN}{1 - sigmoid(sure):.2f}"
    lower_slope = f"slope \N{MINUS SIGN}{sigmoid(sure):.2f}"
    panel.text(sure + 0.4, upper + 0.3, f"{upper_slope}: a strong push", color=NONSATURATING)
    panel.text(sure - 1.6, lower - 0.6, f"{lower_slope}:\nhardly any push", color=SATURATING,
               va="top")
    panel.text(5.7, 0.6, "\N{MINUS SIGN}log D(G(z))", color=NONSATURATING, ha="right")
    panel.text(4.1, -5.9, "log(1 \N{MINUS SIGN} D(G(z)))", color=SATURATING, ha="right")

    panel.set_title(title)
    panel.set_xlim(-6, 6)
    panel.set_ylim(-6.3, 6.6)
    panel.set_xticks([sure, 0, -sure], ["\N{MINUS SIGN}4: surely fake", "0", "4: surely real"])
    panel.set_xlabel("D's logit for a fake")
    panel.set_yticks([-5, 0, 5])
    panel.set_ylabel("loss of G")


def main():
    x = numpy.linspace(-6.4, 5.6, 481)
    p_data = 0.5 * bell(x, FIRST_MODE) + 0.5 * bell(x, SECOND_MODE)

    figure = Figure(figsize=(12, 5.5), dpi=130, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    (start, collapse), (end, losses) = figure.subplots(2, 2)

    draw_best_D(start, "1. G is far off: D is sure", x, p_data, bell(x, FAR_OFF))
    start.text(FAR_OFF, 0.6, "fakes: $p_g$", color=FAKES, ha="center")
    start.text((FIRST_MODE + SECOND_MODE) / 2, 0.33, "reals: $p_{data}$", color=REALS, ha="center")
    start.text(5.3, 0.83, "the best D", color=BEST_D, ha="right")

    draw_best_D(collapse, "2. Mode collapse: one mode of two", x, p_data,
                bell(x, FIRST_MODE))
    collapse.set_yticks([0, 1 / 3, 1], ["0", "1/3", "1"])
    collapse.text(FIRST_MODE, 0.6, "all fakes", color=FAKES, ha="center")
    collapse.text(SECOND_MODE, 0.33, "no fakes", color=REALS, ha="center")
    collapse.text(-6.1, 0.38, "the best D: flat", color=BEST_D)

    draw_best_D(end, "3. Fakes = reals: D can only guess", x, p_data, p_data)
    end.text((FIRST_MODE + SECOND_MODE) / 2, 0.33, "reals and fakes", color=FAKES, ha="center")
    end.text(-6.1, 0.55, "1/2 everywhere", color=BEST_D)

    draw_losses_of_G(losses, "4. The two losses of G")

    for panel in (start, collapse, end, losses):
        for text in [*panel.texts, panel.title, panel.xaxis.label, panel.yaxis.label]:
            text.set_fontsize(17)
        panel.title.set_fontweight("bold")
        panel.tick_params(labelsize=15)
    figure.savefig(PICTURE)
    # 64 colours are enough: the file is 50 kB in place of 180
    Image.open(PICTURE).convert("RGB").quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
