"""What the scripts share that teaches nothing about GANs: flags, images in, pictures out, a run's folder, checkpoints.

Read a training script first; come here for the details of a helper that it calls. Whatever goes wrong ends in `fail`:
one line on stderr, and exit status 2 for bad input, 1 for a run that failed, 130 for Ctrl-C.
"""
import argparse
import contextlib
import json
import math
import os
import re
import signal
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from tqdm import tqdm


# ------------------------------------------------------------------------------------------- flags and device
def fail(message, status=2):
    """End the program with one line on stderr."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


def new_parser(file, doc):
    """An ArgumentParser for the script `file`, described by the first line of its docstring, with errors of one line."""
    parser = argparse.ArgumentParser(Path(file).name, description=doc.splitlines()[0], allow_abbrev=False,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.error = lambda message: fail(f"{message} (see: python {parser.prog} --help)")
    return parser


def training_parser(file, doc, datasets, epochs, batch_size, seed):
    """The flags that every training script has, with its defaults; the script adds its algorithm's own after them."""
    parser = new_parser(file, doc)
    parser.add_argument("--data", default="data", metavar="DIR", help="folder of the datasets")
    parser.add_argument("--dataset", default=datasets[0], choices=datasets, help="toy is drawn by code: nothing to download")
    parser.add_argument("--limit", type=int, metavar="N", help="train on the first N images only")
    parser.add_argument("--out", metavar="DIR", help=f"the run's folder; None: runs/{parser.prog[:-3]}, or the next free number")
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the data in total, also with --resume")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="real images in a minibatch; None: what the source used")
    parser.add_argument("--seed", type=int, default=seed, help="of the weights, the noise and the order of the images")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; None: cuda when there is one, else cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="fp32 is TF32 on CUDA; bf16 is autocast, "
                        "faster on a GPU, and on a CPU if lscpu lists amx_bf16 or avx512_bf16")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out; without --out, the latest one")
    return parser


def parse(parser, argv):
    """Parse a training script's flags. Returns (args, saved); `saved` is the checkpoint of a --resume, else None.

    With --resume a flag that was not typed takes the checkpoint's value, and a typed one may differ only where that does
    not change the experiment: --epochs, --device, --data.
    """
    args, saved = parser.parse_args(argv), None
    script = parser.prog.removesuffix(".py")
    runs = default_folders(script)
    if args.resume:
        out = args.out or (runs[max(runs)] if runs else f"runs/{script}")
        saved = load_checkpoint(Path(out) / "checkpoint.pt")
        of_the_run = {name: value for name, value in saved["args"].items() if name not in ("out", "resume", "compare")}
        args = parser.parse_args(argv, argparse.Namespace(**of_the_run))
        for name, value in of_the_run.items():
            if getattr(args, name) != value and name not in ("epochs", "device", "data"):
                fail(f"--{name.replace('_', '-')} {getattr(args, name)}: the run in {out} was made with {value}")
        if saved["script"] != script or args.epochs < saved["epoch"]:
            fail(f"{out} holds a run of {saved['script']}.py that has had {saved['epoch']} epochs")
        args.out = str(out)
    elif args.out and any(Path(args.out, name).exists() for name in ("checkpoint.pt", "losses.csv")):
        fail(f"--out {args.out} holds a run already: choose another folder, or continue that run with --resume")
    for name, value in vars(args).items():
        if type(value) in (int, float) and not (0 <= value < 2**32 if name == "seed" else 0 < value < math.inf):
            fail(f"--{name.replace('_', '-')} {value} is out of range")
    args.script = script
    return args, saved


def setup(args):
    """Seed everything from --seed and return the torch.device of --device."""
    signal.signal(signal.SIGINT, lambda *_: fail("interrupted", status=130))  # training has a gentler way to stop
    try:
        probe = torch.zeros(1, device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        probe.item()  # the device meta can be named, but holds no numbers
        device = probe.device
    except (RuntimeError, AssertionError, ImportError) as error:
        fail(f"--device {args.device} cannot be used here: {str(error).splitlines()[0]}")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # for cuda:1, say: its random state is then the one in the checkpoint
        torch.set_float32_matmul_precision("high")  # TF32: float32's range with 10 bits of mantissa, several times faster
        torch.backends.cudnn.benchmark = True  # every batch has the same shape, so the search for the best kernel pays
    torch.manual_seed(args.seed)
    return device


def place(net, device, precision):
    """Move a net to the device, and with bf16 make it run its forward pass under autocast; weights and outputs stay float32."""
    if device.type != "mps":  # channels_last is faster on CPU and CUDA; on Apple's MPS BatchNorm's gradients were wrong with it
        net.to(memory_format=torch.channels_last)
    if precision == "bf16":
        forward = net.forward
        net.forward = lambda x: torch.autocast(device.type, torch.bfloat16)(forward)(x).float()
    return net.to(device)


# -------------------------------------------------------------------------------------------------- images in
def load_mnist(root, dataset, test=False):
    """MNIST or Fashion-MNIST, downloaded when missing; `test` appends the 10,000 test images to the 60,000.

    Returns images uint8 (N, 1, 28, 28) and labels int64 (N,).
    """
    from torchvision import datasets  # imported here: --dataset toy does not need it

    kind = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[dataset]
    try:
        parts = [kind(root, train=train, download=True) for train in ([True, False] if test else [True])]
        images, labels = torch.cat([part.data for part in parts]), torch.cat([part.targets for part in parts])
        if images.shape != (len(labels), 28, 28):
            raise ValueError(f"images {tuple(images.shape)} and labels {tuple(labels.shape)} do not fit together")
    except Exception as error:  # no network, a web page in place of a file, a wrong magic number: torchvision raises many types
        fail(f"cannot load {kind.__name__} from {root}/{kind.__name__}/raw: {error}. Put its files there, or try --dataset toy")
    return images.unsqueeze(1), labels


def toy_zeros():
    """Zeros drawn by code, near MNIST's in looks and number: uint8 (5923, 1, 28, 28), always the same ones.

    Each is an ellipse of random height, width, slant and position under a pen of random thickness and softness.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(low, high):
        return low + (high - low) * torch.rand(5923, 1, 1, 1, generator=generator)

    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    x, y = x + uniform(-1, 1), y + uniform(-1, 1)
    x = x + uniform(-0.1, 0.6) * y  # slant: most hands lean to the right
    height = uniform(6.5, 8.5)  # half axes in pixels; MNIST fits its digits into 20 x 20
    width = height * uniform(0.45, 1)
    distance = (((x / width) ** 2 + (y / height) ** 2).sqrt() - 1).abs() * (width * height).sqrt()  # to the pen's path
    ink = torch.sigmoid((uniform(1, 2.4) - distance) / uniform(0.25, 0.6))
    return (255 * ink).round().to(torch.uint8)


def find_pictures(root):
    """Find the pictures below root/celeba, or below root: at any depth, or in an img_align_celeba.zip; root may be a zip itself.

    Returns the folder, the names in alphabetical order, and the open ZipFile or None.
    """
    def pictures(names):
        return sorted(name for name in names if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
                      and "__MACOSX" not in name and not os.path.basename(name).startswith("."))

    folder = Path(root, "celeba") if Path(root, "celeba").exists() else Path(root)
    if names := pictures(os.path.join(parent, name) for parent, _, files in os.walk(folder, followlinks=True) for name in files):
        return folder, names, None
    for path in [folder] if folder.is_file() else sorted(folder.rglob("img_align_celeba.zip")):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile:
            with path.open("rb") as file:
                page = file.read(200).lstrip().startswith(b"<")
            fail(f"{path} is not a complete zip archive" + (" but a web page, most likely Google Drive's quota page" if page else ""))
        if names := pictures(archive.namelist()):
            return path.parent, names, archive
    fail(f"no pictures in {folder}. CelebA is img_align_celeba.zip (202,599 JPEGs, 1.4 GB) from "
         "mmlab.ie.cuhk.edu.hk/projects/CelebA.html, or kaggle.com/datasets/jessicali9530/celeba-dataset, or the pictures of "
         f"huggingface.co/datasets/nielsr/CelebA-faces: put it, zipped or not, into {Path(root, 'celeba')}. Or try --dataset toy")


def decode_face(archive, name, out):
    """Write a picture's centre square (178 x 178 in CelebA), scaled down with antialiasing, into out, uint8 (3, 64, 64).

    Returns False if the picture is broken.
    """
    try:
        with Image.open(archive.open(name) if archive else name) as image:
            image.draft("RGB", (128, 128))  # a JPEG decodes faster at 1/2, 1/4, 1/8 size, where that leaves at least 128 pixels
            ImageOps.exif_transpose(image, in_place=True)  # phones note in the file how they were held
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            out[:] = numpy.asarray(ImageOps.fit(rgb, (64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        return True
    except Exception:  # broken pictures, and broken archives, raise many types
        return False


def load_faces(root, limit=None):
    """CelebA, or anybody's pictures (see `find_pictures` and `decode_face`): uint8 (N, 3, 64, 64).

    The decoded images are kept beside the pictures, and decoded again when a file changes. `limit`: the first N, not kept.
    """
    folder, names, archive = find_pictures(root)
    stats = [os.stat(path) for path in ([archive.filename] if archive else names)]
    fingerprint = [len(names), sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)]
    with contextlib.suppress(Exception):  # not kept yet, or not whole: decode
        kept = torch.load(folder / "faces64.pt", weights_only=True, mmap=True)
        if kept["fingerprint"] == fingerprint:
            return kept["images"][:limit]
    names = names[:limit]
    images = numpy.empty((len(names), 3, 64, 64), numpy.uint8)

    def decode(first):
        """Decode a hundred pictures; as a task each, they would cost the threads as much in waking one another."""
        return [i for i, name in enumerate(names[first:first + 100], start=first) if not decode_face(archive, name, images[i])]

    hundreds = range(0, len(names), 100)
    with ThreadPoolExecutor(min(4, os.cpu_count())) as pool:  # more would only queue for Python's lock
        parts = tqdm(pool.map(decode, hundreds), "decoding", len(hundreds), disable=None, leave=False, unit_scale=100)
        broken = [i for part in parts for i in part]
    if broken:
        say = fail if len(broken) > len(names) / 100 else print
        say(f"{len(broken)} of {len(names)} pictures in {folder} are broken: "
            + ", ".join(os.path.basename(names[i]) for i in broken[:3]))
        images = numpy.delete(images, broken, axis=0)
    images = torch.from_numpy(images)
    if limit is None and os.access(folder, os.W_OK):
        with replacing(folder / "faces64.pt") as file:
            torch.save({"fingerprint": fingerprint, "images": images}, file)
    elif limit is None:
        print(f"{folder} cannot be written, so the decoded images are not kept for the next run")
    return images


def toy_faces(count=10_000):
    """Faces drawn by code: images uint8 (count, 3, 64, 64), labels int64 (count,), factors: name -> float (count,).

    A label is 2 * hair colour (black, brown, blond, red) + mouth open: eight kinds, equally many among the 10,000. They are
    always the same, and a smaller count gives the first ones.
    """
    generator = torch.Generator().manual_seed(0)
    names = ["skin", "length", "width", "jaw", "eyes", "turn", "shade", "red", "green", "blue"]
    factors = dict(zip(names, torch.rand(len(names), 10_000, generator=generator)[:, :count]))  # all uniform in [0, 1]
    labels = torch.randperm(10_000, generator=generator)[:count] % 8
    colours = torch.tensor([[25.0, 20, 20], [95, 55, 30], [225, 190, 110], [170, 60, 25],  # black, brown, blond, red hair
                            [110, 70, 45], [250, 215, 190], [150, 40, 50]]).view(-1, 3, 1, 1)  # dark and light skin, lips
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    chunks = []
    for part in torch.arange(len(labels)).split(50):  # 50 faces fit into the processor's cache: eight times faster than 1,000
        skin, length, width, jaw, eyes, turn, shade, *back = (factors[name][part].view(-1, 1, 1, 1) for name in names)
        open_mouth = (labels[part] % 2).view(-1, 1, 1, 1)
        hair = colours[labels[part] // 2] * (0.8 + 0.4 * shade)
        skin = torch.lerp(colours[4], colours[5], skin)
        turn, width = 0.3 * turn - 0.15, 0.38 + 0.12 * width
        image = 60 + 170 * torch.cat(back, dim=1) * (1 - 0.3 * y)

        def paint(colour, cx, cy, rx, ry, where=1.0):
            """Lay an ellipse over the image, with an edge one pixel soft."""
            radius = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2).sqrt()
            inside = ((1 - radius) * torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry)) * 32 + 0.5).clamp(0, 1) * where
            image.lerp_(torch.as_tensor(colour, dtype=torch.float32).expand_as(image), inside)

        paint(hair, 0, 0.1 + 0.25 * length, width + 0.16, 0.55 + 0.45 * length)
        paint(255 - hair, 0, 1.25, 0.85, 0.45)  # clothes
        paint(0.85 * skin, 0, 0.7, 0.17, 0.3)  # neck
        paint(hair, 0, -0.15, width + 0.12, 0.62)
        paint(skin, 0.3 * turn, 0.05, width, 0.58)
        paint(skin, 0.5 * turn, 0.3, width * (0.65 + 0.25 * jaw), 0.42)
        paint(hair, -turn, -0.5, width + 0.05, 0.24)  # fringe
        for side in (-1, 1):
            paint(245.0, turn + 0.19 * side, -0.02, 0.10, 0.045 + 0.03 * eyes)
            paint(40.0, 1.2 * turn + 0.19 * side, -0.02, 0.045, 0.045)
            paint(0.6 * hair, turn + 0.19 * side, -0.15, 0.11, 0.025)
        paint(0.8 * skin, 1.4 * turn, 0.17, 0.05, 0.09)  # nose
        paint(colours[6], turn, 0.42, 0.17, 0.035 + 0.075 * open_mouth)
        paint(250.0, turn, 0.385, 0.12, 0.03, where=open_mouth)  # teeth
        chunks.append(image.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(chunks), labels, factors


def to_float(images):
    """uint8 in [0, 255] -> float in [-1, 1], the range of G's Tanh."""
    return images / 127.5 - 1


# ----------------------------------------------------------------------------------------------- pictures out
def to_uint8(images):
    """float in [-1, 1] -> uint8 in [0, 255]."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte()


@contextlib.contextmanager
def replacing(path):
    """Open a temporary file that takes the place of `path` once it is complete: a crash or a full disk leaves the old one intact."""
    temporary = Path(f"{path}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        fail(f"cannot write {path}: {error}", status=1)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path, new=False):
    """Make a folder and those above it. With new=True it must not be there yet; returns whether it was made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=not new)
    except OSError as error:
        if new and Path(path).is_dir():
            return False
        fail(f"cannot make the folder {path}: {error.strerror}")
    return True


def save_grid(path, images, columns):
    """Save images, float (N, C, H, W) in [-1, 1], as one PNG with `columns` of them in a row."""
    from torchvision.utils import make_grid

    grid = make_grid(to_uint8(images).cpu(), nrow=columns, pad_value=255)
    with replacing(path) as file:
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(file, "png")


def save_gif(path, frames, seconds):
    """Save PIL images as an endless GIF that takes about `seconds` a round."""
    with replacing(path) as file:
        frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=1000 * seconds / len(frames), loop=0)


def read_csv(path):
    """A run's CSV: column name -> float64 NumPy array."""
    with open(path) as file:
        return dict(zip(file.readline().strip().split(","), numpy.loadtxt(file, delimiter=",", ndmin=2).T))


def running_median(x, y, window):
    """y smoothed by the median over `window` of its values, and the x at the middle of each window."""
    window = min(window, len(y))
    return x[window // 2:][:len(y) - window + 1], numpy.median(numpy.lib.stride_tricks.sliding_window_view(y, window), axis=1)


def plot_curves(path, table, *panels):
    """Draw columns of a losses.csv against its step, one panel above the other, raw and smoothed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    for axes, names in zip(figure.subplots(len(panels), sharex=True), panels):
        for color, name in enumerate(names):
            axes.plot(table["step"], table[name], f"C{color}", alpha=0.2, linewidth=0.5)
            axes.plot(*running_median(table["step"], table[name], 101), f"C{color}", label=name)
        axes.legend()
    axes.set_xlabel("step")
    with replacing(path) as file:
        figure.savefig(file, dpi=100)


# --------------------------------------------------------------------------------------- a run and its folder
def default_folders(script):
    """The runs that a script made without --out: number -> folder, for runs/script, runs/script-2, ..."""
    folders = [path.parent for path in Path("runs").glob("*/checkpoint.pt")]
    matches = [(re.fullmatch(rf"{re.escape(script)}(?:-(\d+))?", folder.name), folder) for folder in folders]
    return {int(match[1] or 1): folder for match, folder in matches if match}


def load_checkpoint(path):
    """Read a training script's checkpoint, onto the CPU. weights_only=True: no file can run code."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not {"script", "args", "generator", "G", "step", "epoch"} <= saved.keys():
            raise ValueError("it was not made by these scripts")
        return saved
    except Exception as error:  # missing, cut short, something else, or one that would run code: torch.load raises many types
        fail(f"{path} is not a checkpoint that can be loaded: {str(error).split(chr(10))[0] or type(error).__name__}")


class Run:
    """A run's folder, and all that must survive a crash: the nets, their optimizers, the position in the data, the CSVs.

    Args:
        args, saved: what `parse` returned.
        images: uint8 (N, C, H, W); they move to the training device if they take less than half of its free memory.
        generator: the keywords that G was built with, for whoever rebuilds it from the checkpoint.
        samples: how many pictures to make from the fixed noise after every epoch, a square number.
        tables: names of more CSV files; the script adds their rows to `rows`, each beginning with its step, and they are kept and
            resumed like losses.csv.
    """

    def __init__(self, args, saved, images, G, D, opt_G, opt_D, generator, samples=64, tables=()):
        self.args, self.generator = args, generator
        self.parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}
        self.step, self.epoch, self.stopping = 0, 0, False
        self.rows = {name: [] for name in ["losses.csv", *tables]}  # the rows that wait for the end of the epoch
        if args.batch_size > len(images):
            fail(f"--batch-size {args.batch_size} is larger than the data, {len(images)} images")
        self.device = next(G.parameters()).device
        fits = self.device.type != "cuda" or images.nbytes < torch.cuda.mem_get_info(self.device)[0] / 2
        self.images = images.to(self.device) if fits else images
        noise = torch.Generator().manual_seed(args.seed)  # on the CPU: the same noise for every device
        self.fixed_z = torch.randn(samples, generator["latent_dim"], generator=noise).to(self.device)
        self.out = self._make_folder()
        if saved:
            self._restore(saved)
        self._describe()
        if not saved:
            save_grid(self.out / "real.png", to_float(images[:samples]), math.isqrt(samples))
            self._save_samples()
            self.save()

    def _make_folder(self):
        """The folder --out, or else a new one: the first free number above all runs of this script."""
        if self.args.out:
            make_folder(Path(self.args.out, "samples"))
        number = max(default_folders(self.args.script), default=0)
        while not self.args.out:  # of two scripts started at once, only one can make a folder
            number += 1
            folder = f"runs/{self.args.script}" + (f"-{number}" if number > 1 else "")
            if make_folder(Path(folder, "samples"), new=True):
                self.args.out = folder
        return Path(self.args.out)

    def _restore(self, saved):
        try:
            if saved["images"] != len(self.images):
                raise ValueError(f"it was made with {saved['images']} images, not {len(self.images)}")
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            torch.set_rng_state(saved["random"]["cpu"])
            if self.device.type in saved["random"].keys() - {"cpu"}:
                torch.get_device_module(self.device).set_rng_state(saved["random"][self.device.type])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            fail(f"the checkpoint in {self.out} does not fit this run: {error}")
        self.step, self.epoch = saved["step"], saved["epoch"]
        for path in filter(Path.exists, [self.out / name for name in self.rows]):  # drop the rows written after the checkpoint
            header, *lines = path.read_bytes().splitlines(keepends=True)
            with replacing(path) as file:
                file.writelines([header] + [line for line in lines if int(line.split(b",")[0]) <= self.step])

    def _describe(self):
        """Say what runs, and keep it in config.json."""
        count = {name: sum(weight.numel() for weight in self.parts[name].parameters()) for name in "GD"}
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        print(f"{len(self.images):,} images of {self.args.dataset}; G has {count['G']:,} and D {count['D']:,} parameters; "
              f"{device}, {self.args.precision}; into {self.out}" + (f", from step {self.step}" if self.step else ""), flush=True)
        config = {**vars(self.args), "device_name": device, "images": len(self.images), "parameters": count,
                  "versions": {"python": sys.version.split()[0], "torch": torch.__version__}}
        with replacing(self.out / "config.json") as file:
            file.write(json.dumps(config, indent=2).encode())

    def minibatches(self):
        """Yield all the minibatches still to do: float (B, C, H, W) in [-1, 1]. The end of an epoch saves everything.

        An epoch's order is a function of (seed, epoch), so that a resumed run needs no memory of it; its incomplete last
        minibatch is dropped. Ctrl-C ends the run after the current step, with a checkpoint.
        """
        def stop(*_):
            self.stopping = True
            signal.signal(signal.SIGINT, previous)  # a second Ctrl-C does not wait

        previous = signal.signal(signal.SIGINT, stop)
        size, steps = self.args.batch_size, len(self.images) // self.args.batch_size
        while self.epoch < self.args.epochs:
            clock, first = time.perf_counter(), self.step - self.epoch * steps  # first > 0 after a Ctrl-C in mid-epoch
            shuffle = torch.Generator().manual_seed(1_000_003 * self.args.seed + self.epoch)
            order = torch.randperm(len(self.images), generator=shuffle).to(self.images.device)
            for i in tqdm(range(first, steps), f"epoch {self.epoch + 1}", steps, initial=first, disable=None, leave=False):
                yield to_float(self.images[order[i * size:(i + 1) * size]].to(self.device))
                if self.stopping:
                    self.save()
                    print(f"stopped after step {self.step}; continue with --resume --out {self.out}", file=sys.stderr)
                    raise SystemExit(130)
            self.epoch += 1
            self._save_samples()
            losses = self.save()
            seconds = (time.perf_counter() - clock) / max(1, steps - first)
            print(f"epoch {self.epoch}/{self.args.epochs}, step {self.step}: {losses}, {size / seconds:,.0f} images/s, "
                  f"{seconds * steps * (self.args.epochs - self.epoch) / 60:.1f} min left", flush=True)
        signal.signal(signal.SIGINT, previous)

    def log(self, **losses):
        """End a step. Its losses stay on the device until the epoch ends: reading a number now would stall a GPU."""
        self.step += 1
        self.rows["losses.csv"].append({"step": self.step, "epoch": self.epoch + 1, **losses})

    def _save_samples(self):
        """Pictures from the fixed noise, in eval mode: with BatchNorm's running statistics none depends on its batch mates."""
        G = self.parts["G"].eval()
        with torch.no_grad():
            save_grid(self.out / f"samples/step_{self.step:06d}.png", G(self.fixed_z), math.isqrt(len(self.fixed_z)))
        G.train()

    def save(self):
        """Append the waiting rows to their CSV files, then replace the checkpoint. Returns the mean losses as text.

        A number that is not finite ends the run before the checkpoint: the last good one is kept.
        """
        means = []
        for path, rows in [(self.out / name, rows) for name, rows in self.rows.items() if rows]:
            columns = {key: torch.stack([torch.as_tensor(row[key]) for row in rows]).tolist() for key in rows[0]}
            means += [f"{key} {sum(columns[key]) / len(rows):.3f}" for key in ("loss_d", "loss_g", "w_estimate") if key in columns]
            lines = list(zip(*columns.values()))
            old = path.read_text() if path.exists() else ",".join(columns) + "\n"
            with replacing(path) as file:
                file.write((old + "".join(",".join(f"{value:.8g}" for value in line) + "\n" for line in lines)).encode())
            for line in lines:
                if not all(map(math.isfinite, line)):
                    fail(f"step {line[0]}: a number in {path} is not finite; the last good checkpoint, {self.out}/checkpoint.pt, "
                         "is kept", status=1)
            rows.clear()
        random = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            random[self.device.type] = torch.get_device_module(self.device).get_rng_state()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with replacing(self.out / "checkpoint.pt") as file:
            torch.save({"script": self.args.script, "args": vars(self.args), "images": len(self.images), **states, "random": random,
                        "generator": {"class": type(self.parts["G"]).__name__, **self.generator},
                        "step": self.step, "epoch": self.epoch}, file)
        return ", ".join(means)

    def finish(self, *more_panels):
        """Draw the curves and the film of the samples, from the files: a resumed run shows the whole."""
        losses = read_csv(self.out / "losses.csv")
        plot_curves(self.out / "losses.png", losses, *more_panels, ["loss_d", "loss_g"], ["d_real", "d_fake"])
        frames = [Image.open(path).copy() for path in sorted(self.out.glob("samples/step_*.png"))]
        save_gif(self.out / "training.gif", frames, seconds=min(10, len(frames) / 4))
