"""Make the pictures of the README: run each command below, unless its run is there already, and cut the picture out of it.

    .venv/bin/python docs/make_pictures.py            all of them; hours on a laptop
    .venv/bin/python docs/make_pictures.py zeros      those whose name begins so

The runs stay in runs/docs. Nothing is picked: a picture shows the first samples of the fixed noise.
"""
import shlex
import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent

# run -> the command that makes it; --out is added
RUNS = {
    "zeros": "gan_mnist_mlp.py --epochs 100",
    "zeros-collapse": "gan_mnist_mlp.py --lr-g 0.05 --lr-d 0.01 --epochs 25",
    "blog-dcgan": "dcgan_mnist.py --epochs 16",
    "blog-mlp": "dcgan_mnist.py --model mlp --epochs 16",
    "lab-mnist": "dcgan_celeba.py --dataset mnist",
    "lab-dcgan": "dcgan_celeba.py --limit 10000 --generator dcgan --ngf 32 --ndf 32 --epochs 20",
    "lab-vanilla": "dcgan_celeba.py --limit 10000 --generator vanilla --ngf 32 --ndf 32 --epochs 20 --compare runs/docs/lab-dcgan",
    "lab-lr-0.002": "dcgan_celeba.py --limit 10000 --generator vanilla --ngf 32 --ndf 32 --lr 0.002 --epochs 4",
    "wgan": "wgan_celeba.py --limit 10000 --loss wgan --ngf 16 --ndf 16 --epochs 50",
    "minimax": "wgan_celeba.py --limit 10000 --loss minimax --ngf 16 --ndf 16 --epochs 8",
    "lsgan": "wgan_celeba.py --limit 10000 --loss lsgan --ngf 16 --ndf 16 --epochs 14",
    "toy-vanilla": "dcgan_celeba.py --dataset toy --generator vanilla --ngf 16 --ndf 16 --batch-size 64 --epochs 20",
    "toy-dcgan": "dcgan_celeba.py --dataset toy --generator dcgan --ngf 16 --ndf 16 --batch-size 64 --epochs 20",
    "toy-minimax": "wgan_celeba.py --dataset toy --loss minimax --ngf 16 --ndf 16 --epochs 20",
    "toy-lsgan": "wgan_celeba.py --dataset toy --loss lsgan --ngf 16 --ndf 16 --epochs 20",
    "toy-wgan": "wgan_celeba.py --dataset toy --loss wgan --ngf 16 --ndf 16 --epochs 40",
}
DIGITS = ["blog-dcgan", "lab-mnist", "blog-mlp", "zeros"]
FACES = ["toy-vanilla", "toy-dcgan", "toy-minimax", "toy-lsgan", "toy-wgan"]
# run or picture -> the other runs that it needs
NEEDS = {"lab-vanilla": ["lab-dcgan"], "minimax-over-wgan.png": ["minimax"], "walk-minimax-over-wgan.png": ["minimax"],
         "scores.png": DIGITS, "toy-faces.png": FACES}


def copy(run, name):
    """A picture as the run left it."""
    return Image.open(ROOT / "runs/docs" / run / name)


def in_time(run, epochs, rows, columns, size):
    """The first rows x columns samples after each of the epochs, side by side. A grid has `size` pixels a picture, 2 between."""
    grids = sorted((ROOT / "runs/docs" / run / "samples").glob("step_*.png"))
    box = (0, 0, columns * (size + 2) + 2, rows * (size + 2) + 2)
    strip = Image.new("RGB", (len(epochs) * (box[2] + 8) - 8, box[3]), "white")
    for i, epoch in enumerate(epochs):
        strip.paste(Image.open(grids[epoch]).crop(box), (i * (box[2] + 8), 0))
    return strip


def last(run, rows, columns, size):
    """The first rows x columns samples of the last epoch."""
    count = len(list((ROOT / "runs/docs" / run / "samples").glob("step_*.png")))
    return in_time(run, [count - 1], rows, columns, size)


def below(*pictures):
    """Pictures under one another."""
    height = sum(picture.height + 8 for picture in pictures) - 8
    stack = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    for i, picture in enumerate(pictures):
        stack.paste(picture, (0, sum(other.height + 8 for other in pictures[:i])))
    return stack


def explore(run, flags, name):
    """A picture that explore_latent.py makes of a run."""
    command = ["explore_latent.py", f"runs/docs/{run}/checkpoint.pt", *shlex.split(flags)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    return copy(run, f"explore/{name}")


def walk(run):
    """The latent and the screen walk between seeds 140 and 180."""
    strip = explore(run, "walk --seeds 140,180 --space all", "walk_140-180_all.png")
    row = (strip.height - 2) // 3  # latent, sphere, screen
    return below(strip.crop((0, 0, strip.width, row + 2)), strip.crop((0, 2 * row, strip.width, strip.height)))


def play(run):
    """The five dimensions of z that change seed 140 most."""
    picture = explore(run, "play --seeds 140", "play_140_top.png").convert("RGB")
    return picture.crop((0, 0, picture.width, picture.height // 2 + 1))


def scores(_):
    """The bars of score_samples.py for the MNIST runs."""
    checkpoints = [str(ROOT / "runs/docs" / run / "checkpoint.pt") for run in DIGITS]
    subprocess.run([sys.executable, "score_samples.py", *checkpoints, "--out", "runs/docs/scores"], cwd=ROOT, check=True)
    return copy("scores", "scores.png").convert("RGB")


def upsampling(run):
    """The assignment's figures 1 to 3, after Odena et al. 2016: a ramp, enlarged twice in four ways by kernels of ones."""
    from matplotlib.figure import Figure

    ramp, four, three = torch.arange(1.0, 9).view(1, 1, 8), torch.ones(1, 1, 4), torch.ones(1, 1, 3)
    nearest, linear = (F.interpolate(ramp, scale_factor=2, mode=mode) for mode in ("nearest", "linear"))
    outputs = {
        "deconvolution, kernel 4, stride 2: even": F.conv_transpose1d(ramp, four / 2, stride=2, padding=1),
        "deconvolution, kernel 3, stride 2: checkered": F.conv_transpose1d(ramp, three / 1.5, stride=2, padding=1, output_padding=1),
        "nearest, then convolution, kernel 3: even": F.conv1d(nearest, three / 3, padding=1),
        "bilinear, then convolution, kernel 3: even": F.conv1d(linear, three / 3, padding=1),
    }
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    for axes, (title, output) in zip(figure.subplots(1, 4, sharey=True), outputs.items()):
        axes.bar(range(16), output.flatten().tolist(), width=1, edgecolor="white", color="tab:blue")
        axes.set_title(title, fontsize=8)
        axes.set_xticks([])
    figure.savefig(ROOT / "docs/upsampling.png", dpi=90)
    return Image.open(ROOT / "docs/upsampling.png").convert("RGB").quantize(32)


# picture -> the run it comes from, and how
PICTURES = {
    "zeros-modes.png": ("zeros", lambda run: copy(run, "modes.png").convert("RGB").quantize(64)),
    "zeros-samples.png": ("zeros", lambda run: in_time(run, [1, 5, 10, 20, 100], rows=4, columns=5, size=28).quantize(24)),
    "zeros-collapse-modes.png": ("zeros-collapse", lambda run: copy(run, "modes.png").convert("RGB").quantize(64)),
    "zeros-collapse-samples.png": ("zeros-collapse", lambda run: in_time(run, [1, 5, 8, 16, 25], rows=4, columns=5, size=28).quantize(24)),
    "blog-dcgan-samples.png": ("blog-dcgan", lambda run: in_time(run, [1, 4, 16], rows=8, columns=8, size=28).quantize(24)),
    "blog-mlp-samples.png": ("blog-mlp", lambda run: in_time(run, [1, 4, 16], rows=8, columns=8, size=28).quantize(24)),
    "lab-mnist-samples.png": ("lab-mnist", lambda run: in_time(run, [1, 2, 3, 4, 5], rows=5, columns=5, size=28).quantize(24)),
    "lab-vanilla-samples.png": ("lab-vanilla", lambda run: in_time(run, [1, 3, 5, 10, 20], rows=3, columns=4, size=64).quantize(256)),
    "lab-dcgan-samples.png": ("lab-dcgan", lambda run: in_time(run, [1, 3, 5, 10, 20], rows=3, columns=4, size=64).quantize(256)),
    "lab-lr-0.002-samples.png": ("lab-lr-0.002", lambda run: in_time(run, [4], rows=2, columns=6, size=64).quantize(256)),
    "lab-lr-0.0002-samples.png": ("lab-vanilla", lambda run: in_time(run, [4], rows=2, columns=6, size=64).quantize(256)),
    "upsampling.png": (None, upsampling),
    "wgan-samples.png": ("wgan", lambda run: in_time(run, [1, 10, 25, 50], rows=3, columns=4, size=64).quantize(256)),
    "minimax-over-wgan.png": ("wgan", lambda run: below(last("minimax", 2, 8, 64), last(run, 2, 8, 64)).quantize(256)),
    "lsgan-samples.png": ("lsgan", lambda run: last(run, 2, 8, 64).quantize(256)),
    "toy-faces.png": ("toy-wgan", lambda run: below(copy(run, "real.png").crop((0, 0, 530, 68)),
                                                    *(last(face, 1, 8, 64) for face in FACES)).quantize(256)),
    "scores.png": ("zeros", lambda run: scores(run).quantize(32)),
    "walk-digits.png": ("blog-dcgan", lambda run: walk(run).quantize(24)),
    "play-faces.png": ("lab-vanilla", lambda run: play(run).quantize(256)),
    "walk-minimax-over-wgan.png": ("wgan", lambda run: below(walk("minimax"), walk(run)).quantize(256)),
    "wgan-losses.png": ("wgan", lambda run: copy(run, "losses.png").convert("RGB").quantize(64)),
    "lab-comparison.png": ("lab-vanilla", lambda run: copy(run, "losses_comparison.png").convert("RGB").quantize(64)),
}


def main():
    for name, (run, draw) in PICTURES.items():
        if name.startswith(tuple(sys.argv[1:] or [""])):
            for needed in filter(None, [*NEEDS.get(name, []), *NEEDS.get(run, []), run]):
                out, (script, *flags) = ROOT / "runs/docs" / needed, shlex.split(RUNS[needed])
                flags = ["--resume"] if (out / "checkpoint.pt").exists() else flags
                if not (out / "training.gif").exists():
                    if subprocess.run([sys.executable, script, *flags, "--out", str(out)], cwd=ROOT).returncode:
                        sys.exit(f"docs/{name} was not made")
            draw(run).save(ROOT / "docs" / name, optimize=True)
            print(f"docs/{name}" + (f": python {RUNS[run]}" if run else ""))


if __name__ == "__main__":
    main()
