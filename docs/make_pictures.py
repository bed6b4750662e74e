"""Make the pictures of the README: run each command below, unless its run is there already, and cut the picture out of it.

    .venv/bin/python docs/make_pictures.py            all of them; hours on a laptop
    .venv/bin/python docs/make_pictures.py zeros      those whose name begins so

The runs stay in runs/docs. Nothing is picked: a picture shows the first samples of the fixed noise.
"""
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

# run -> the command that makes it; --out is added
RUNS = {
    "zeros": "gan_mnist_mlp.py --epochs 100",
    "zeros-collapse": "gan_mnist_mlp.py --lr-g 0.05 --lr-d 0.01 --epochs 25",
    "blog-dcgan": "dcgan_mnist.py --epochs 16",
    "blog-mlp": "dcgan_mnist.py --model mlp --epochs 16",
    "lab-mnist": "dcgan_celeba.py --dataset mnist",
    "lab-vanilla": "dcgan_celeba.py --generator vanilla --ngf 32 --ndf 32 --epochs 10",
    "lab-dcgan": "dcgan_celeba.py --generator dcgan --ngf 32 --ndf 32 --epochs 10",
}


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


# picture -> the run it comes from, and how
PICTURES = {
    "zeros-modes.png": ("zeros", lambda run: copy(run, "modes.png").convert("RGB").quantize(64)),
    "zeros-samples.png": ("zeros", lambda run: in_time(run, [1, 5, 10, 20, 100], rows=4, columns=5, size=28).quantize(24)),
    "zeros-collapse-modes.png": ("zeros-collapse", lambda run: copy(run, "modes.png").convert("RGB").quantize(64)),
    "blog-dcgan-samples.png": ("blog-dcgan", lambda run: in_time(run, [1, 4, 16], rows=8, columns=8, size=28).quantize(24)),
    "blog-mlp-samples.png": ("blog-mlp", lambda run: in_time(run, [1, 4, 16], rows=8, columns=8, size=28).quantize(24)),
    "lab-mnist-samples.png": ("lab-mnist", lambda run: in_time(run, [1, 2, 3, 4, 5], rows=5, columns=5, size=28).quantize(24)),
    "lab-vanilla-samples.png": ("lab-vanilla", lambda run: in_time(run, [1, 3, 5, 10], rows=3, columns=4, size=64).quantize(128)),
    "lab-dcgan-samples.png": ("lab-dcgan", lambda run: in_time(run, [1, 3, 5, 10], rows=3, columns=4, size=64).quantize(128)),
}


def main():
    for name, (run, draw) in PICTURES.items():
        if name.startswith(tuple(sys.argv[1:] or [""])):
            out = ROOT / "runs/docs" / run
            if not (out / "training.gif").exists():
                subprocess.run([sys.executable, *shlex.split(RUNS[run]), "--out", str(out)], cwd=ROOT, check=True)
            draw(run).save(ROOT / "docs" / name, optimize=True)
            print(f"docs/{name}: python {RUNS[run]}")


if __name__ == "__main__":
    main()
