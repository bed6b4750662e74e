"""Make the pictures of the pages, and the runs behind them and behind most tables.

    python docs/make_pictures.py                      all pictures: a day; the runs at full width want a GPU
    python docs/make_pictures.py zeros                those whose name begins so, and their runs
    python docs/make_pictures.py --run blog-mlp       only this run, if it is not there yet
    python docs/make_pictures.py --list               the commands of all runs

The data are in data/. A run stays in runs/docs, in a folder named after its command, so that a run of another
command is never taken for it. Nothing is picked: a picture shows the first samples of the fixed noise.
"""
import hashlib
import importlib
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the scripts
QUARTER = "--limit 10000 --ngf 16 --ndf 16"
HALF = "--limit 10000 --ngf 32 --ndf 32 --epochs 20"
TOY = "--dataset toy --ngf 16 --ndf 16 --epochs 20"

SEEDS = [("", ""), ("-1", " --seed 1"), ("-2", " --seed 2")]
BLOG = [("43", "--seed 43"), ("44", "--seed 44"), ("slow", "--lr 5e-5"), ("fast", "--lr 1e-3")]  # its own seed is 42

# run -> the command that makes it; --out is added. "full" is full width, on a GPU, for as long as there was time
RUNS = {
    **{f"zeros-{seed}": f"gan_mnist_mlp.py --epochs 100 --seed {seed}" for seed in (0, 1, 2)},
    "zeros-250": "gan_mnist_mlp.py --epochs 250",
    **{f"zeros-{name}{suffix}": f"gan_mnist_mlp.py {flags}{seed}"
       for name, flags in [("500", "--epochs 500"), ("saturating", "--g-loss saturating --epochs 20"),
                           ("fast-both", "--lr-g 0.05 --lr-d 0.01 --epochs 25"),
                           ("fast-g", "--lr-g 0.05 --epochs 25"), ("slow-d", "--lr-d 0.0005 --epochs 100")]
       for suffix, seed in SEEDS},
    "blog-dcgan": "dcgan_mnist.py --epochs 16",
    "blog-mlp": "dcgan_mnist.py --model mlp --epochs 16",
    **{f"blog-{model}-16-{name}": f"dcgan_mnist.py --model {model} --epochs 16 {flags}"
       for model in ("dcgan", "mlp") for name, flags in BLOG},
    "blog-mlp-16-slow-43": "dcgan_mnist.py --model mlp --epochs 16 --lr 5e-5 --seed 43",
    **{f"blog-{model}-100-slow": f"dcgan_mnist.py --model {model} --lr 5e-5" for model in ("dcgan", "mlp")},
    **{f"blog-{model}-100-slow-43": f"dcgan_mnist.py --model {model} --lr 5e-5 --seed 43" for model in ("dcgan", "mlp")},
    "blog-dcgan-100": "dcgan_mnist.py",
    "blog-mlp-100": "dcgan_mnist.py --model mlp",
    **{f"blog-{model}-100-{seed}": f"dcgan_mnist.py --model {model} --seed {seed}"
       for model in ("dcgan", "mlp") for seed in (43, 44)},
    "blog-dcgan-fashion": "dcgan_mnist.py --dataset fashion",
    "blog-mlp-fashion": "dcgan_mnist.py --dataset fashion --model mlp",
    **{f"blog-{model}-fashion-43": f"dcgan_mnist.py --dataset fashion --model {model} --seed 43" for model in ("dcgan", "mlp")},
    **{f"blog-{model}-fashion-16-43": f"dcgan_mnist.py --model {model} --dataset fashion --epochs 16 --seed 43"
       for model in ("dcgan", "mlp")},
    "blog-mlp-fashion-slow": "dcgan_mnist.py --dataset fashion --model mlp --epochs 16 --lr 5e-5",
    **{f"blog-{model.split()[0]}-{name}": f"dcgan_mnist.py --model {model} --epochs 4 {flags}"
       for model in ("dcgan --precision bf16", "mlp") for name, flags in [("42", "--seed 42"), *BLOG]},
    **{f"blog-eval-{net}{suffix}": f"dcgan_mnist.py --precision bf16 --epochs 4{seed}"
       for net in "gd" for suffix, seed in [("", ""), ("-43", " --seed 43"), ("-44", " --seed 44")]},
    **{f"blog-eval-mlp-{seed}": f"dcgan_mnist.py --model mlp --epochs 4 --seed {seed}" for seed in (42, 43, 44)},
    "blog-dcgan-saturating": "dcgan_mnist.py --precision bf16 --epochs 4",
    "blog-mlp-saturating": "dcgan_mnist.py --model mlp --epochs 4",
    **{f"blog-{model}-saturating-{seed}": f"dcgan_mnist.py --model {model} --epochs 4 --seed {seed}"
       for model in ("dcgan", "mlp") for seed in (43, 44)},
    "lab-mnist": "dcgan_celeba.py --dataset mnist",
    "lab-mnist-1": "dcgan_celeba.py --dataset mnist --seed 1",
    "lab-mnist-2": "dcgan_celeba.py --dataset mnist --seed 2",
    "lab-mnist-0.002": "dcgan_celeba.py --dataset mnist --lr 0.002",
    **{f"lab-{name}-full-{seed}": f"dcgan_celeba.py --generator {name} --limit 10000 --epochs {epochs} --seed {seed}"
       for seed in (0, 1, 2) for name, epochs in [("dcgan", 47), ("vanilla", 61)]},
    "lab-vanilla-full-0.002": "dcgan_celeba.py --generator vanilla --limit 10000 --epochs 66 --lr 0.002",
    **{f"lab-{name}-celeba-full-{seed}": f"dcgan_celeba.py --generator {name} --limit 10000 --seed {seed} --cuda-graph"
       for seed in (0, 1, 2) for name in ("dcgan", "vanilla")},
    **{f"lab-dcgan-celeba-full-{name}": f"dcgan_celeba.py --limit 10000{flags}"
       for name, flags in [("eager", ""), ("bf16", " --cuda-graph --precision bf16"),
                           ("0.002", " --cuda-graph --lr 0.002 --epochs 3")]},
    "lab-dcgan": f"dcgan_celeba.py --generator dcgan {HALF}",
    "lab-vanilla": f"dcgan_celeba.py --generator vanilla {HALF} --compare {{lab-dcgan}}",
    "lab-dcgan-1": f"dcgan_celeba.py --generator dcgan {HALF} --precision bf16 --seed 1",
    "lab-vanilla-1": f"dcgan_celeba.py --generator vanilla {HALF} --precision bf16 --seed 1",
    **{f"lab-{name}-2": f"dcgan_celeba.py --generator {name} {HALF} --seed 2" for name in ("dcgan", "vanilla")},
    **{f"lab-{name}-long": f"dcgan_celeba.py --generator {name} {HALF.replace('20', '102')}" for name in ("dcgan", "vanilla")},
    "wgan": f"wgan_celeba.py {QUARTER} --precision bf16",
    **{f"wgan-{name}{suffix}": f"wgan_celeba.py {QUARTER}{seed} --epochs 25{flags}"
       for suffix, seed in [("", " --precision bf16"), ("-1", " --seed 1")]
       for name, flags in [("clip-0.05", " --clip 0.05"), ("25", " --n-critic 25"), ("adam", "")]},
    **{f"wgan-long-{seed}": f"wgan_celeba.py {QUARTER} --seed {seed} --epochs 200" for seed in (0, 1, 2)},
    **{f"wgan-long-clip-0.05-{seed}": f"wgan_celeba.py {QUARTER} --seed {seed} --epochs 200 --clip 0.05" for seed in (1, 2)},
    "minimax-50": f"wgan_celeba.py --loss minimax {QUARTER} --epochs 50",
    **{f"{loss}-long{suffix}": f"wgan_celeba.py --loss {loss} {QUARTER} --epochs 200{seed}"
       for loss in ("lsgan", "minimax") for suffix, seed in SEEDS[:2]},
    **{f"minimax-{name}-{seed}": f"wgan_celeba.py --loss minimax {flags} --epochs 200 --seed {seed}" for seed in (0, 1)
       for name, flags in [("mirrored", QUARTER), ("narrow-d", QUARTER.replace("--ndf 16", "--ndf 8"))]},
    **{f"wgan-{seed}": f"wgan_celeba.py {QUARTER} --seed {seed}" for seed in (1, 2)},
    **{f"{name}{suffix}": f"wgan_celeba.py --loss {flags} {QUARTER} --epochs {epochs}{seed}"
       for name, flags, epochs in [("minimax", "minimax", 8), ("minimax-all-bn", "minimax", 8),
                                   ("minimax-nearest", "minimax --upsample nearest", 8),
                                   ("minimax-bilinear", "minimax --upsample bilinear", 8), ("lsgan", "lsgan", 14)]
       for suffix, seed in SEEDS},
    **{f"{name}-celeba-full": f"wgan_celeba.py --limit 10000 --epochs {flags}"
       for name, flags in [("minimax", "2 --loss minimax"), ("lsgan", "2 --loss lsgan"), ("wgan", "3"),
                           ("wgan-clip-0.05", "3 --clip 0.05"),
                           ("minimax-longer", "3 --loss minimax --cuda-graph"),
                           ("wgan-longer", "16 --cuda-graph"), ("lsgan-longer", "8 --loss lsgan --cuda-graph")]},
    **{f"minimax-{name}-full-{seed}": f"wgan_celeba.py --loss minimax --limit 10000 --epochs 8 --seed {seed}{flags}"
       for seed in (0, 1) for name, flags in [("8", ""), ("all-bn", ""), ("nearest", " --upsample nearest")]},
    "toy-vanilla": f"dcgan_celeba.py --generator vanilla --batch-size 64 {TOY}",
    "toy-dcgan": f"dcgan_celeba.py --generator dcgan --batch-size 64 {TOY}",
    "toy-minimax": f"wgan_celeba.py --loss minimax {TOY}",
    "toy-lsgan": f"wgan_celeba.py --loss lsgan {TOY}",
    "toy-lsgan-32": f"wgan_celeba.py --loss lsgan {TOY.replace('20', '32')}",
    "toy-wgan": f"wgan_celeba.py --loss wgan {TOY.replace('20', '40')}",
}
PATCHES = ROOT / "docs/notebook/patches"


def patch_of(run):
    """The patch that a run's script needs, or None."""
    script = RUNS[run].split()[0]
    if run.startswith("blog-eval-g"):
        return PATCHES / "eval_g.patch"
    if run.startswith(("blog-eval-d", "blog-eval-mlp")):
        return PATCHES / "eval_d.patch"
    if run.startswith("blog") and "saturating" in run:
        return PATCHES / "saturating.patch"
    if run.startswith("minimax-all-bn"):
        return PATCHES / "all_batchnorm.patch"
    if run.startswith("minimax-mirrored"):
        return PATCHES / "mirrored.patch"
    if "celeba-full" in run:
        return PATCHES / ("celeba_size_lab.patch" if script == "dcgan_celeba.py" else "celeba_size_wgan.patch")
    if run.startswith("wgan-adam"):
        return PATCHES / "adam.patch"
    return None


def folder(run):
    """The folder of a run: its name, and eight digits that depend on its command and patch."""
    patch = patch_of(run)
    recipe = RUNS[run] + (patch.read_text() if patch else "")
    return ROOT / "runs/docs" / f"{run}-{hashlib.sha1(recipe.encode()).hexdigest()[:8]}"


def make(run):
    """Train a run, if it is not there; go on with it, if it was cut."""
    out, (script, *flags) = folder(run), shlex.split(RUNS[run])
    if (out / "training.gif").exists():
        return
    for needed in [flag[1:-1] for flag in flags if flag[0] == "{"]:
        make(needed)
    place = ROOT
    if patch_of(run):  # a copy of the script, patched
        place = out.parent / f"{out.name}-code"
        place.mkdir(parents=True, exist_ok=True)
        for name in ("common.py", "cuda_graph.py", script):
            shutil.copy(ROOT / name, place)
        outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(place.parent)}  # not as a part of this repository
        subprocess.run(["git", "apply", str(patch_of(run))], cwd=place, env=outside, check=True)
    started = (out / "checkpoint.pt").exists()
    flags = [str(folder(flag[1:-1])) if flag[0] == "{" else flag for flag in flags]  # another run's folder
    flags = ["--resume", str(out)] if started else [*flags, "--data", str(ROOT / "data"), "--out", str(out),
                                                            "--sample-every", "0"]
    if subprocess.run([sys.executable, script, *flags], cwd=place, check=False).returncode:
        sys.exit(f"{run} was not made")


def copy(run, name):
    """A picture as the run left it."""
    return Image.open(folder(run) / name).convert("RGB")


def grids(run):
    """The paths of a run's samples; the index is the epoch."""
    return sorted((folder(run) / "samples").glob("step_*.png"))


def in_time(run, epochs, rows, columns, size):
    """The first rows x columns samples after each of the epochs, side by side."""
    box = (0, 0, columns * (size + 2) + 2, rows * (size + 2) + 2)  # a grid has 2 pixels between pictures
    strip, paths = Image.new("RGB", (len(epochs) * (box[2] + 8) - 8, box[3]), "white"), grids(run)
    for i, epoch in enumerate(epochs):
        strip.paste(Image.open(paths[epoch]).crop(box), (i * (box[2] + 8), 0))
    return strip


def below(*pictures):
    """Pictures under one another."""
    height = sum(picture.height + 8 for picture in pictures) - 8
    stack = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    for i, picture in enumerate(pictures):
        stack.paste(picture, (0, sum(other.height + 8 for other in pictures[:i])))
    return stack


def explore(run, flags, name):
    """A picture that explore_latent.py makes of a run."""
    command = ["explore_latent.py", str(folder(run) / "checkpoint.pt"), *shlex.split(flags)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    return copy(run, f"explore/{name}")


def walk(run):
    """The latent and the screen walk between seeds 140 and 180, each a strip."""
    strip = explore(run, "walk --seeds 140,180 --space all", "walk_140-180_all.png")
    row = (strip.height - 2) // 3  # latent, sphere, screen
    return [strip.crop((0, i * row, strip.width, (i + 1) * row + 2)) for i in (0, 2)]


def play(run):
    """The assignment's figure 5: for seeds 140 and 180 the original, then the five dimensions that change it most,
    each at +3 and at -3."""
    rows = []
    for seed in (140, 180):
        grid = explore(run, f"play --seeds {seed}", f"play_{seed}.png")
        with open(folder(run) / f"explore/play_{seed}.csv") as file:
            top = [int(line.split(",")[0]) for line in file.readlines()[1:6]]
        size = (grid.width - 8) // 3 + 2
        row = Image.new("RGB", (11 * size + 2, size + 2), "white")
        row.paste(grid.crop((0, 0, size + 2, size + 2)), (0, 0))
        for i, dimension in enumerate(top):
            for j in (1, 2):
                cell = grid.crop((j * size, dimension * size, (j + 1) * size + 2, (dimension + 1) * size + 2))
                row.paste(cell, ((2 * i + j) * size, 0))
        rows.append(row)
    return below(*rows)


def compared(runs):
    """The losses of runs over one another, as `dcgan_celeba.py --compare` draws them."""
    from dcgan_celeba import plot_comparison

    plot_comparison(ROOT / "runs/docs/compared.png", list(map(folder, runs)))
    return Image.open(ROOT / "runs/docs/compared.png").convert("RGB")


def scores(runs):
    """The bars of score_samples.py."""
    out = ROOT / "runs/docs/scores"
    checkpoints = [str(folder(run) / "checkpoint.pt") for run in runs]
    subprocess.run([sys.executable, "score_samples.py", *checkpoints, "--out", str(out)], cwd=ROOT, check=True)
    return Image.open(out / "scores.png").convert("RGB")


def upsampling():
    """The assignment's figures 1 to 3, after Odena et al. 2016: a ramp, enlarged twice in four ways by kernels of ones."""
    from matplotlib.figure import Figure

    ramp, four, three = torch.arange(1.0, 9).view(1, 1, 8), torch.ones(1, 1, 4), torch.ones(1, 1, 3)
    nearest, linear = (F.interpolate(ramp, scale_factor=2, mode=mode) for mode in ("nearest", "linear"))
    outputs = {
        "deconvolution, kernel 4, stride 2: even": F.conv_transpose1d(ramp, four / 2, stride=2, padding=1),
        "deconvolution, kernel 3, stride 2: checkered":
            F.conv_transpose1d(ramp, three / 1.5, stride=2, padding=1, output_padding=1),
        "nearest, then convolution, kernel 3: even": F.conv1d(nearest, three / 3, padding=1),
        "bilinear, then convolution, kernel 3: even": F.conv1d(linear, three / 3, padding=1),
    }
    figure = Figure(figsize=(11, 2.4), layout="constrained")
    for axes, (title, output) in zip(figure.subplots(1, 4, sharey=True), outputs.items()):
        axes.bar(range(16), output.flatten().tolist(), width=1, edgecolor="white", color="tab:blue")
        axes.set_title(title, fontsize=8)
        axes.set_xticks([])
    path = ROOT / "runs/docs/upsampling.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return Image.open(path).convert("RGB")


def growth():
    """Zeros, digits and faces from noise to pictures: four samples at six moments, a row each."""
    rows = []
    for run, epochs, size in [("zeros-0", [0, 3, 4, 8, 20, 100], 28), ("blog-dcgan", [0, 1, 2, 4, 8, 16], 28),
                              ("lab-vanilla-full-0", [0, 4, 8, 12, 24, 61], 64)]:
        row, paths = Image.new("RGB", (6 * 148 - 8, 140), "white"), grids(run)
        for i, epoch in enumerate(epochs):
            block = Image.open(paths[epoch]).crop((2, 2, 2 * (size + 2), 2 * (size + 2)))
            row.paste(block.resize((140, 140), Image.Resampling.BICUBIC), (i * 148, 0))
        rows.append(row)
    return below(*rows)


def fresh(run, seeds):
    """Samples from fresh noise in one row, unpicked: seeds 0, 1, 2, ..."""
    grid = explore(run, f"sample --seeds 0-{seeds - 1}", "sample.png")
    columns, size = math.ceil(math.sqrt(seeds)), 30
    row = Image.new("RGB", (seeds * size + 2, size + 2), "white")
    for i in range(seeds):
        left, top = i % columns * size, i // columns * size
        row.paste(grid.crop((left, top, left + size + 2, top + size + 2)), (i * size, 0))
    return row


def walks(first, second):
    """The assignment's figures 6 and 7: screen space, then latent space, the first model above the second."""
    latent, screen = zip(walk(first), walk(second))
    return below(*screen, *latent)


def last(run, rows, columns, size):
    """The first rows x columns samples of the last epoch."""
    return in_time(run, [len(grids(run)) - 1], rows, columns, size)


def upsamplings(runs):
    """A row of samples of each run, and a number for the checkerboard: the energy of 1,024 samples at the pixel
    frequency (a period of two pixels, across or down), over that of 1,024 real faces."""
    import common
    from explore_latent import images_of, load_generator

    def energy(images):
        spectrum = torch.fft.fft2(images - images.mean(dim=(2, 3), keepdim=True)).abs() ** 2
        return (spectrum[..., 32, :].sum() + spectrum[..., :, 32].sum()).item() / len(images)

    real = energy(common.to_float(common.load_faces(ROOT / "data", 1024)))
    for run in runs:
        G, latent_dim = load_generator(folder(run) / "checkpoint.pt", torch.device("cpu"))
        z = torch.randn(1024, latent_dim, generator=torch.Generator().manual_seed(0))
        print(f"{run}: checkerboard {energy(images_of(G, z)) / real:.2f} of the reals'")
    return below(*(last(run, 1, 8, 64) for run in runs))


def likeness(path):
    """How alike the 64 pictures of a grid are: the mean correlation of two of them, in grey, in the middle 40 x 40
    pixels, of what a blur of 9 x 9 pixels takes away."""
    grey = torch.from_numpy(numpy.array(Image.open(path).convert("L"))).float()
    x = grey[2:, 2:].unfold(0, 64, 66).unfold(1, 64, 66).reshape(64, 1, 64, 64)[..., 12:52, 12:52]
    detail = x[..., 4:-4, 4:-4] - F.avg_pool2d(x, 9, stride=1)
    return ((torch.corrcoef(detail.flatten(1)).sum() - 64) / (64 * 63)).item()


@torch.no_grad()
def by_heart(runs):
    """Each run's mean D, as in losses.csv, on 2,048 of its faces, on their mirror images, and on samples; in training
    mode, as it was trained."""
    import common
    from explore_latent import load_generator
    from wgan_celeba import mean_of

    torch.manual_seed(0)
    faces = common.to_float(common.load_faces(ROOT / "data", 10000)[torch.randperm(10000)[:2048]])
    z = torch.randn(2048, 100)
    for run in runs:
        saved = common.load_checkpoint(folder(run) / "checkpoint.pt")
        size, game = saved["args"]["batch_size"], saved["args"].get("loss", "minimax")
        G, _ = load_generator(folder(run) / "checkpoint.pt", torch.device("cpu"))
        D = importlib.import_module(saved["script"]).Discriminator(saved["args"]["ndf"])
        D.load_state_dict(saved["D"])
        samples = torch.cat([G.train()(part) for part in z.split(size)])
        means = [mean_of(game, torch.cat([D(part) for part in x.split(size)])) for x in (faces, faces.flip(3), samples)]
        print(f"{run}: D on its faces, mirrored, samples:", *(f"{mean:.3f}" for mean in means))


def games():
    """A row of samples of the least squares and the minimax GAN after some epochs, with a narrow D too; all the
    likenesses; and whether D knows its faces by heart."""
    by_heart([*BRIEF, *GAMES])
    for run in GAMES:
        paths = grids(run)
        values = {epoch: f"{likeness(paths[epoch]):.2f}" for epoch in (8, 14, 25, 50, 75, 100, 150, 200)
                  if epoch < len(paths)}
        print(f"{run}: reals {likeness(folder(run) / 'real.png'):.2f}, samples after ... epochs {values}")
    shown = [("lsgan-long", 50), ("lsgan-long", 200), *(("minimax-long", epoch) for epoch in (50, 199, 200)),
             ("minimax-long-1", 200), ("minimax-narrow-d-0", 200)]
    return below(*(in_time(run, [epoch], 1, 6, 64) for run, epoch in shown))


def full_games():
    """Samples of the four games at full width, and what D and the likeness say of them."""
    by_heart(FULL)
    for run in FULL:
        print(f"{run}: likeness after each epoch", *(f"{likeness(path):.2f}" for path in grids(run)[1:]))
    return below(*(last(run, rows, 8, 64) for run, rows in zip(FULL, (2, 2, 1, 1))))


def long_faces():
    """The lab's two generators in a long training; and whether D knows its faces by heart."""
    by_heart(LONG)
    return below(*(in_time(run, [20, 60, 102], 2, 4, 64) for run in LONG))


BLOG_PAIRS = [f"blog-{model}{name}" for name in ["", *(f"-16-{name}" for name, _ in BLOG)] for model in ("dcgan", "mlp")]
BLOG_100 = ["blog-dcgan-100-43", "blog-mlp-100-43"]
SLOW = ["blog-dcgan-100-slow", "blog-mlp-100-slow"]
WGANS = ["wgan", "wgan-clip-0.05", "wgan-adam", "wgan-25"]
FASHION = ["blog-dcgan-fashion", "blog-mlp-fashion"]
LONG = ["lab-dcgan-long", "lab-vanilla-long"]
PATIENT = ["wgan-long-2", "wgan-long-clip-0.05-2"]
BRIEF = ["minimax", "minimax-50"]
FULL_PAIR = ["lab-dcgan-celeba-full-0", "lab-vanilla-celeba-full-0"]
WALKED = ["minimax-celeba-full", "wgan-celeba-full"]
FULL = [f"{name}-celeba-full" for name in ("minimax-longer", "wgan-longer", "lsgan-longer", "wgan-clip-0.05")]
BATCHNORM = ["minimax", "minimax-all-bn", "minimax-8-full-0", "minimax-all-bn-full-0"]
GAMES = ["lsgan-long", "lsgan-long-1", "minimax-long", "minimax-long-1", *(f"wgan-long-{seed}" for seed in (0, 1, 2)),
         *(f"minimax-{name}-{seed}" for name in ("mirrored", "narrow-d") for seed in (0, 1))]
UPSAMPLINGS = ["minimax", "minimax-nearest", "minimax-bilinear"]
# picture -> the runs that it needs, how it is drawn, its number of colours
PICTURES = {
    "growth.png": (["zeros-0", "blog-dcgan", "lab-vanilla-full-0"], growth, 128),
    "zeros-modes.png": (["zeros-0"], lambda: copy("zeros-0", "modes.png"), 64),
    "zeros-samples.png": (["zeros-0"], lambda: in_time("zeros-0", [1, 4, 8, 20, 100], 4, 5, 28), 24),
    "zeros-slow-d-modes.png": (["zeros-slow-d"], lambda: copy("zeros-slow-d", "modes.png"), 64),
    "zeros-fast-modes.png": (["zeros-fast-both"], lambda: copy("zeros-fast-both", "modes.png"), 64),
    "zeros-fast-samples.png":
        (["zeros-fast-both"], lambda: in_time("zeros-fast-both", [1, 4, 8, 16, 25], 2, 5, 28), 24),
    "zeros-saturating-samples.png":
        (["zeros-saturating"], lambda: in_time("zeros-saturating", [0, 5, 10, 20], 2, 5, 28), 24),
    "zeros-250-fresh.png": (["zeros-250"], lambda: fresh("zeros-250", 10), 24),
    "zeros-losses.png": (["zeros-500"], lambda: copy("zeros-500", "losses.png"), 32),
    "blog-dcgan-samples.png": (["blog-dcgan-100"], lambda: in_time("blog-dcgan-100", [1, 16, 100], 8, 8, 28), 24),
    "blog-mlp-samples.png": (["blog-mlp-100"], lambda: in_time("blog-mlp-100", [1, 16, 100], 8, 8, 28), 24),
    "blog-losses.png": (BLOG_100, lambda: compared(BLOG_100), 64),
    "blog-pairs.png": (BLOG_PAIRS, lambda: below(*(in_time(run, [16], 2, 16, 28) for run in BLOG_PAIRS)), 24),
    "blog-fashion-samples.png": (FASHION, lambda: below(*(in_time(run, [1, 16, 100], 4, 8, 28) for run in FASHION)), 32),
    "blog-slow-samples.png":
        (SLOW, lambda: below(*(in_time(run, [1, 4, 8, 16, 25, 50, 75, 100], 2, 3, 28) for run in SLOW)), 24),
    "blog-eval-samples.png":
        (["blog-dcgan-42", "blog-eval-g", "blog-eval-d"],
         lambda: below(*(in_time(run, [4], 2, 12, 28) for run in ("blog-dcgan-42", "blog-eval-g", "blog-eval-d"))), 24),
    "lab-mnist-samples.png": (["lab-mnist"], lambda: in_time("lab-mnist", [1, 2, 3, 4, 5], 5, 5, 28), 24),
    "lab-full-samples.png":
        (FULL_PAIR, lambda: below(*(in_time(run, [1, 2, 3, 4, 5], 2, 3, 64) for run in FULL_PAIR)), 256),
    "lab-dcgan-samples.png": (["lab-dcgan"], lambda: in_time("lab-dcgan", [1, 3, 5, 10, 20], 3, 4, 64), 256),
    "lab-vanilla-samples.png": (["lab-vanilla"], lambda: in_time("lab-vanilla", [1, 3, 5, 10, 20], 3, 4, 64), 256),
    "lab-long-samples.png": (LONG, long_faces, 256),
    "lab-comparison.png": (["lab-vanilla"], lambda: copy("lab-vanilla", "losses_comparison.png"), 64),
    "upsampling.png": ([], upsampling, 32),
    "upsampling-samples.png": (UPSAMPLINGS, lambda: upsamplings(UPSAMPLINGS), 256),
    "wgan-samples.png": (["wgan"], lambda: in_time("wgan", [1, 10, 25, 50], 3, 4, 64), 256),
    "wgan-variants.png": (WGANS, lambda: below(*(in_time(run, [25], 1, 8, 64) for run in WGANS)), 256),
    "wgan-long-samples.png":
        (PATIENT, lambda: below(*(in_time(run, [50, 100, 200], 2, 4, 64) for run in PATIENT)), 256),
    "wgan-losses.png": (["wgan"], lambda: copy("wgan", "losses.png"), 64),
    "minimax-over-wgan.png": (FULL, full_games, 256),
    "minimax-batchnorm.png":
        (BATCHNORM, lambda: below(*(last(run, 1, 8, 64) for run in BATCHNORM)), 256),
    "lsgan-minimax-samples.png": ([*BRIEF, *GAMES], games, 128),
    "walk-digits.png": (["blog-dcgan-100"], lambda: below(*walk("blog-dcgan-100")), 24),
    "walks.png": (WALKED, lambda: walks(*WALKED), 256),
    "play-models.png": (WALKED, lambda: below(*map(play, WALKED)), 256),
    "scores.png":
        (["blog-dcgan", "lab-mnist", "blog-mlp", "zeros-0"],
         lambda: scores(["blog-dcgan", "lab-mnist", "blog-mlp", "zeros-0"]), 32),
    "toy-faces.png":
        (["toy-vanilla", "toy-dcgan", "toy-minimax", "toy-lsgan", "toy-wgan"],
         lambda: below(copy("toy-vanilla", "real.png").crop((0, 0, 530, 68)),
                       *(last(f"toy-{kind}", 1, 8, 64) for kind in ("vanilla", "dcgan", "minimax", "lsgan", "wgan"))),
         256),
}


def main():
    words = sys.argv[1:]
    if words[:1] == ["--list"]:
        for run, command in RUNS.items():
            print(f"{folder(run).name}: python {command}" + (f" ({patch_of(run).name})" if patch_of(run) else ""))
    elif words[:1] == ["--run"]:
        for run in words[1:]:
            make(run)
    else:
        for name, (runs, draw, colours) in PICTURES.items():
            if name.startswith(tuple(words or [""])):
                for run in runs:
                    make(run)
                draw().quantize(colours).save(ROOT / "docs/pictures" / name, optimize=True)
                print(f"docs/pictures/{name}")


if __name__ == "__main__":
    main()
