"""Helpers of the scripts. Nothing here is about GANs.

Read a training script first, and come here for the details of a helper that it calls. The sections:
how a program ends, flags, device, images in, pictures out, tables, the log of a run, the run's
folder, checkpoints.

Bad input ends in `fail`: one line on stderr, exit status 2. Every mistake in the code, yours or
ours, keeps its traceback.
"""
import argparse
import contextlib
import errno
import hashlib
import io
import itertools
import json
import math
import os
import secrets
import shutil
import sys
import time
import warnings
import zipfile
import zlib
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torchvision import datasets, utils
from tqdm import tqdm


# ------------------------------------------------------------------------------ how a program ends
def fail(message, status=2):
    """End the program with one line on stderr."""
    print("error:", " ".join(str(message).splitlines()), file=sys.stderr)
    raise SystemExit(status)


def launch(main):
    """Run a script's main. Where it stops for a reason that is no bug, print one line.

    Such reasons are Ctrl-C (exit status 130), too little memory and a full disk (1), and a file or
    folder that cannot be read or written (2). Everything else keeps its traceback. So does a
    missing file: most likely it is a mistake in your code.
    """
    os.environ["MPLBACKEND"] = "agg"  # no window; Jupyter names a backend that may be missing here
    if sys.stdout is None:  # closed, as with >&-
        sys.stdout = io.StringIO()
    if sys.stderr is None:
        sys.stderr = io.StringIO()
    if hasattr(sys.stdout, "reconfigure"):  # print a name even if the console lacks its letters
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except KeyboardInterrupt:
        if is_terminal():
            print(file=sys.stderr)  # leave the line of the progress bar
        fail(f"interrupted{how_to_go_on}", 130)
    except (MemoryError, torch.OutOfMemoryError) as error:
        fail(f"out of memory: fewer images at once (--batch-size, --n) may fit ({str(error)[:150]})"
             f"{how_to_go_on}", 1)
    except BrokenPipeError:  # as with | head
        sys.stdout = io.StringIO()
        fail(f"nobody reads the output any more{how_to_go_on}", 1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"the disk is full: {error}{how_to_go_on}", 1)
        if error.filename is None or isinstance(error, FileNotFoundError):
            raise
        fail(f"{error.filename}: {error.strerror}{how_to_go_on}")


how_to_go_on = ""  # what `launch` adds when a run stops: "; --resume DIR goes on with epoch 3"


def set_how_to_go_on(folder, epoch, epochs):
    """Set the hint that `launch` prints when the run in `folder` stops: how to go on with it."""
    global how_to_go_on
    if epoch < epochs:
        how_to_go_on = f"; --resume {folder} goes on with epoch {epoch + 1}"
    else:
        how_to_go_on = f"; all epochs are done: --resume {folder} only draws the pictures again"


def is_terminal():
    """Whether somebody watches: then a progress bar is drawn, and else plain lines are printed."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))


# ------------------------------------------------------------------------------------------- flags
def new_parser(file, doc):
    """An ArgumentParser for the script `file`, described by the first line of its docstring."""
    first_line = (doc or "").partition("\n")[0]  # python -OO removes docstrings
    # allow_abbrev: --cuda must not pass for --cuda-graph
    parser = argparse.ArgumentParser(Path(file).name, description=first_line, allow_abbrev=False)
    parser.error = lambda message: fail(f"{message} (see: python {parser.prog} --help)")
    return parser


def positive(number):
    """For a flag's `type`: a number above 0, `number` being int or float."""
    def convert(text):
        value = number(text)
        if not 0 < value < 2**32:  # nan fails too
            raise argparse.ArgumentTypeError(f"{text} is out of range: above 0, below 2**32")
        return value

    convert.__name__ = number.__name__  # argparse names it where the text is no number
    return convert


def not_negative(number):
    """For a flag's `type`: a number from 0 on, `number` being int or float."""
    def convert(text):
        value = number(text)
        if not 0 <= value < 2**32:
            raise argparse.ArgumentTypeError(f"{text} is out of range: at least 0, below 2**32")
        return value

    convert.__name__ = number.__name__
    return convert


def folder(text):
    """For a flag's `type`: a path. ~ is the home folder, which not every shell replaces."""
    if not text:  # a variable of the shell that is not set
        raise argparse.ArgumentTypeError("the path is empty")
    return os.path.expanduser(text)


def training_parser(file, doc, kinds, epochs, batch_size, seed, sample_every):
    """The flags of every training script, with its own defaults. The script adds the flags of its
    algorithm. `kinds`: the datasets, the default first."""
    parser = new_parser(file, doc)
    add = parser.add_argument
    add("--data", type=folder, default="data", metavar="DIR",
        help="folder of the datasets; for faces also a folder or a zip of your own pictures "
             "(default: %(default)s)")
    add("--dataset", default=kinds[0], choices=kinds,
        help="what to train on (default: %(default)s); toy is drawn by code and needs no download")
    add("--limit", type=positive(int), metavar="N",
        help="train on the first N images only (default: all)")
    new_or_old = parser.add_mutually_exclusive_group()
    new_or_old.add_argument(
        "--out", type=folder, metavar="DIR",
        help=f"folder for the new run (default: runs/{Path(file).stem}, or where that is taken the "
             f"next free one, such as runs/{Path(file).stem}-2)")
    new_or_old.add_argument(
        "--resume", type=folder, metavar="DIR",
        help="continue the run in this folder after its last finished epoch. Its flags are known: "
             "only --epochs, --data, --device, --sample-every and --cuda-graph may be typed anew")
    add("--epochs", type=positive(int), default=epochs, metavar="N",
        help="passes over the data, counted from the start of the run, also with --resume "
             "(default: %(default)s)")
    add("--batch-size", type=positive(int), default=batch_size, metavar="N",
        help="real images in a minibatch" + (" (default: %(default)s)" if batch_size else ""))
    add("--seed", type=not_negative(int), default=seed, metavar="N",
        help="random seed of the initial weights, the noise and the order of the images "
             "(default: %(default)s)")
    add("--sample-every", type=not_negative(int), default=sample_every, metavar="N",
        help="save samples every N steps, and at steps 10, 20, 50, 100 and 200; 0 saves neither "
             "(default: %(default)s). Samples after each epoch are always saved")
    add("--device", help="cpu, cuda, cuda:1 or mps (default: cuda where there is one, else cpu)")
    add("--precision", default="fp32", choices=["fp32", "bf16"],
        help="number format of the nets (default: %(default)s; on CUDA that is TF32). Depending on "
             "the processor, bf16 is up to twice as fast, or much slower: see docs/speed.md")
    add("--cuda-graph", action=argparse.BooleanOptionalAction, default=False,
        help="on CUDA, record a training step once and replay it, which is faster. The step must "
             "not read a number from the GPU, and the learning rate must stay the same")
    return parser


def parse(parser, argv):
    """Parse the flags of a training script.

    Returns (args, saved). saved is the checkpoint of the run that --resume names, else None.
    """
    args = parser.parse_args(argv)
    saved = None
    if args.resume is not None:
        saved = load_run(args.resume, Path(parser.prog).stem)
        # Parse again: the run's values become the defaults, so a flag that is typed wins. This also
        # brings back args.images and args.checksum (see check_images).
        parser.set_defaults(**saved["args"])
        args = parser.parse_args(argv)
        check_resumed_flags(args, saved)
        set_how_to_go_on(args.resume, saved["epoch"], args.epochs)
    elif args.out and Path(args.out).is_dir() and os.listdir(args.out):
        fail(f"--out {args.out} is not empty: name another folder, or, if it holds a run, "
             f"--resume {args.out}")
    args.script = Path(parser.prog).stem
    args.data = os.path.abspath(args.data)  # a resume may start in another folder
    return args, saved


def load_run(run, script):
    """The checkpoint in the folder `run`, which must be of this script."""
    saved = load_checkpoint(Path(run, "checkpoint.pt"))
    if saved.get("export"):
        fail(f"--resume {run}: its checkpoint.pt is an export, the generator alone. To train on, "
             "D and both optimizers are needed too")
    if saved["script"] != script or "fixed_z" not in saved:
        fail(f"{run} holds a run of {saved['script']}.py, or of an older version of it")
    return saved


MAY_CHANGE_ON_RESUME = ["epochs", "data", "device", "sample_every", "cuda_graph"]


def check_resumed_flags(args, saved):
    """End the program where a flag would make another experiment of the resumed run."""
    for name, value in saved["args"].items():
        typed = getattr(args, name)
        if typed != value and name not in MAY_CHANGE_ON_RESUME:
            flag = "--" + name.replace("_", "-")
            fail(f"{flag} {typed}: that run has {value}, and it cannot change")
    if args.epochs < saved["epoch"]:
        fail(f"--epochs {args.epochs}: that run has had {saved['epoch']}; this number is the total")
    # on MPS the weights have another memory layout (see `prepare`), and so do Adam's moments
    before = str(saved["args"]["device"])
    now = str(args.device)
    if before != now and ("mps" in before or "mps" in now):
        fail(f"--device {now}: that run has {before}; no run can move to mps, or away from it")
    if args.dataset == "celeba" and args.data == saved["args"]["data"]:  # the others are downloaded
        check_data_of_run(args.data, args.resume)


def check_data_of_run(data, run):
    """End the program where the folder of images that a run names is not here."""
    if not os.path.exists(data):
        fail(f"the run {run} was trained on --data {data}, and from this folder there is no such "
             "path: say where the images are now, with --data")


# ------------------------------------------------------------------------------------------ device
def pick_device(name, training=True):
    """The torch.device of --device; ends the program if it cannot be used."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        (torch.ones(1, device=device) + 1).cpu()  # a GPU too old for this torch may only fail here
    except (RuntimeError, AssertionError, ImportError) as error:
        fail(f"--device {name} cannot be used here, cpu can: {str(error)[:150]}")
    if device.type == "cuda":
        # fp32 matrices are multiplied in TF32 (10 bits of mantissa) by GPUs since Ampere
        torch.set_float32_matmul_precision("high")
        # try out several kernels: this pays in training, where all batches have one shape
        torch.backends.cudnn.benchmark = training
    return device


def prepare(net, device, precision="fp32"):
    """Move a net to the device. With bf16 it computes under autocast; its weights and its output
    stay float32. (Do not deep-copy such a net: the copy would compute with this net's weights.)"""
    if precision == "bf16":
        # wrapped once: a `with torch.autocast` in each call would take longer
        forward_in_bf16 = torch.autocast(device.type, torch.bfloat16)(net.forward)
        net.forward = lambda *inputs: forward_in_bf16(*inputs).float()
    # channels_last is faster on a CPU, and 1.1 to 1.5 times as fast on an H200
    memory_format = torch.channels_last
    if device.type == "mps":  # where BatchNorm's gradients were wrong with it
        memory_format = torch.contiguous_format
    return net.to(device, memory_format=memory_format)


def to_device_if_it_fits(images, device):
    """The images (uint8) on the device, if they take less than half of its free memory."""
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


# --------------------------------------------------------------------------------------- images in
def load_mnist(root, dataset, test=False):
    """MNIST or Fashion-MNIST, downloaded when missing; `test` appends the 10,000 test images.

    Returns images uint8 (N, 1, 28, 28) and labels int64 (N,).
    """
    kind = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[dataset]
    folder = Path(root, kind.__name__)
    try:
        parts = [kind(root, train=True, download=True)]
        if test:
            parts.append(kind(root, train=False, download=True))
        labels = torch.cat([part.targets for part in parts])
        images = torch.cat([part.data for part in parts])
        return images.view(len(labels), 1, 28, 28), labels
    except Exception as error:  # no network, a web page as file, a wrong size: many types
        complete = len(list(folder.glob("raw/*-ubyte"))) == 4
        if complete and not isinstance(error, OSError):  # torchvision fetches only what is missing
            remedy = f"A file is damaged: remove the folder {folder}, it will be downloaded again"
        else:
            remedy = "Is --data right? --dataset toy needs no files"
        fail(f"cannot load {folder / 'raw'}: {type(error).__name__}: {error}. {remedy}")


# Images in: what is gathered. All other files but zip archives are left out, and counted.
PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
# Bins and previews that Macs, Windows, Linux and network drives keep, as in folders with a dot
SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin",
                  "lost+found", "system volume information")
HOW_TO_GET_CELEBA = (
    "CelebA (1.4 GB): put img_align_celeba.zip of mmlab.ie.cuhk.edu.hk/projects/CelebA.html or "
    "kaggle.com/datasets/jessicali9530/celeba-dataset into {}/celeba, or train on --dataset toy")


class Picture(NamedTuple):
    """Where a picture is, and what shows that it has changed."""
    name: str  # its path; in an archive: the archive's path, and its path there
    size: int  # in bytes
    time: int  # of the last change of the file, or of the archive, in nanoseconds
    archive: object = None  # the open ZipFile
    member: object = None  # the path in it


def is_hidden(name):
    """Whether this is the name of a file or folder that its owner does not see or did not make."""
    starts_with_dot = name.startswith(".") and name not in (".", "..")
    return starts_with_dot or name.lower() in SYSTEM_FOLDERS


def owner_of(subfolders, names):
    """What a folder is if its pictures are no dataset, judged by its other files. Else None."""
    if "samples" in subfolders and ("checkpoint.pt" in names or "config.json" in names):
        return "folders of our own runs"  # full of generated pictures
    if "pyvenv.cfg" in names:
        return "Python environments"  # full of icons
    return None


def find_files(root, left_out):
    """The paths of all files at or below root. Links are followed, but each folder is read once.

    Skips folders that is_hidden or owner_of names, and counts them in left_out.
    """
    if os.path.isfile(root):
        return [str(root)]

    def stop(error):  # os.walk itself would go on without that folder
        fail(f"the folder {error.filename} cannot be read: {error.strerror}")

    paths = []
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        owner = owner_of(subfolders, names)
        if real in seen:  # a link led back to it
            subfolders.clear()
            continue
        if owner and folder != str(root):
            left_out[owner] += 1
            subfolders.clear()
            continue
        seen.add(real)
        paths += [os.path.join(folder, name) for name in names]
        for name in sorted(subfolders):
            if is_hidden(name):
                left_out[f"folders named {name}"] += 1
                subfolders.remove(name)
        subfolders.sort()  # of two links to one folder, always the same one counts
    return sorted(paths)


def loose_picture(path):
    """The Picture that is a file of its own."""
    try:
        stat = os.stat(path)
        return Picture(path, stat.st_size, stat.st_mtime_ns)
    except OSError:  # a link to nowhere, for example: `read` finds out
        return Picture(path, size=-1, time=-1)


def pictures_in_zip(path, left_out):
    """The Pictures in a zip archive, which is read in place."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror or error}")
    except Exception as error:  # cut short, a web page, ...: many types
        fail(f"{path} is no complete zip archive (a picture or a web page instead?): {error}")
    changed = os.stat(path).st_mtime_ns
    pictures = []
    for member in archive.infolist():
        suffix = os.path.splitext(member.filename)[1].lower()
        if member.is_dir():
            continue
        if any(is_hidden(part) for part in member.filename.split("/")):
            left_out["hidden files"] += 1
        elif suffix in PICTURES:
            name = f"{path}/{member.filename}"
            pictures.append(Picture(name, member.file_size, changed, archive, member.filename))
        elif suffix == ".zip":
            left_out[".zip within a .zip: unpack it"] += 1
        else:
            left_out[suffix or "files without a suffix"] += 1
    if not pictures:
        left_out[".zip without pictures"] += 1
    return pictures


def is_unpacked(inside, loose):
    """Whether all Pictures of an archive are also among the loose ones.

    torchvision leaves CelebA like this, and no face should be there twice. The names and the sizes
    of all are compared, and the content of three.
    """
    there = {(os.path.basename(picture.name), picture.size): picture for picture in loose}
    for picture in inside:
        if (os.path.basename(picture.name), picture.size) not in there:
            return False
    for picture in (inside[0], inside[len(inside) // 2], inside[-1]):
        other = there[os.path.basename(picture.name), picture.size]
        if zlib.crc32(Path(other.name).read_bytes()) != picture.archive.getinfo(picture.member).CRC:
            return False
    return True


def gather(root):
    """All pictures at or below root, at any depth and in zip archives; root may be a zip itself.

    Returns a list of Pictures in the order of their names, and a Counter: kind of file or folder
    that was left out -> how many.
    """
    left_out = Counter()
    loose = []
    zips = {}  # by its real path: one zip may be linked twice
    for path in find_files(root, left_out):
        name = os.path.basename(path)
        suffix = os.path.splitext(name)[1].lower()
        if path == str(root):  # a file: its suffix does not matter
            zips[path] = path
        elif is_hidden(name):
            left_out["hidden files"] += 1
        elif suffix in PICTURES:
            loose.append(loose_picture(path))
        elif not os.path.exists(path):
            left_out["broken links"] += 1
        elif suffix == ".zip":
            zips.setdefault(os.path.realpath(path), path)
        elif suffix not in (".pt", ".tmp"):  # those we keep here ourselves
            left_out[suffix or "files without a suffix"] += 1
    pictures = list(loose)
    for path in zips.values():
        inside = pictures_in_zip(path, left_out)
        if inside and is_unpacked(inside, loose):
            left_out[".zip whose pictures are also there unpacked"] += 1
        else:
            pictures += inside
    pictures.sort(key=lambda picture: picture.name)
    return pictures, left_out


def find_pictures(root):
    """Gather the pictures of root/celeba or, where there are none, of root, and say what was found.

    Returns the folder, or the zip archive, and the Pictures in the order of their names.
    """
    place = Path(root, "celeba")
    pictures = []
    if os.path.isdir(place):
        pictures, left_out = gather(place)
    if not pictures:
        place = Path(root)
        if not os.path.exists(place):
            fail(f"--data {root}: no such folder. {HOW_TO_GET_CELEBA.format(root)}")
        pictures, left_out = gather(place)
    said = ""
    if left_out:
        kinds = [f"{kind} ({count:,})" for kind, count in left_out.most_common()]
        said = f" Left out: {', '.join(kinds)}."
    if not pictures:
        fail(f"--data {root}: no pictures (jpg, png, ...) in {place}.{said} "
             + HOW_TO_GET_CELEBA.format(root))
    folders = {os.path.dirname(picture.name) for picture in pictures if not picture.archive}
    archives = {picture.archive for picture in pictures if picture.archive}
    print(f"Pictures in {place}: {len(pictures):,} (folders: {len(folders):,}, zip archives: "
          f"{len(archives):,}).{said}", flush=True)
    return place, pictures


# Images in: how a picture is decoded. Pillow's limits guard servers that strangers send files to.
# Here they would stop a scan of 200 million pixels, and a PNG with a colour profile of 2 MB.
Image.MAX_IMAGE_PIXELS = 2**29  # twice as many are an error
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30  # bytes

# EXIF's note of how the camera was held -> what turns the picture upright
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
         4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
         6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}


def decode(file, size):
    """A picture as we train on it: its centre square (178 x 178 in CelebA), upright, in RGB, scaled
    to size x size with antialiasing. Returns a PIL image.

    You may change it (a crop, a flip): the pictures are then decoded again.
    """
    with Image.open(file) as image:
        image.draft("RGB", (2 * size, 2 * size))  # JPEGs: faster at 1/2 or less
        rgb = to_rgb(turn_upright(image))
        return ImageOps.fit(rgb, (size, size), Image.Resampling.BILINEAR)


def turn_upright(image):
    """The image as it was seen, however the camera was held."""
    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF (many types) says nothing about the picture
        return image
    if orientation in TURNS:
        return image.transpose(TURNS[orientation])
    return image


def to_rgb(image):
    """The image in RGB, 8 bits each. What is transparent shows white paper."""
    if image.mode[0] in "IF":  # I, I;16, I;16B, F
        image = to_8_bits(image)
    if image.mode in ("La", "RGBa"):  # colours that are multiplied by alpha
        image = image.convert(image.mode.upper())
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def to_8_bits(image):
    """A grey image of 16 or 32 bits, or of floats, as one of 8 bits.

    White is 65,535 in an image of 16 bits. The other modes do not say what white is: it is the
    first of 1, 255 and 65,535 that is not exceeded by far (a sharpened picture exceeds 1 a little),
    or else the brightest pixel.
    """
    pixels = numpy.asarray(image, dtype=numpy.float32)
    if not numpy.isfinite(pixels).all():
        raise ValueError("a pixel is not a finite number")
    white = brightest = pixels.max()
    for candidate in (65535, 255, 1):
        if brightest < 2 * candidate:
            white = candidate
    if image.mode.startswith("I;16"):
        white = 65535
    return Image.fromarray((pixels / white * 255).round().clip(0, 255).astype(numpy.uint8))


class CannotRead(Exception):
    """A picture could not be read, but may be whole: a permission, the network, a password."""


def read(picture):
    """A picture's bytes. Any other error than CannotRead means that the picture is broken."""
    try:
        if picture.archive:
            return picture.archive.read(picture.member)
        with open(picture.name, "rb") as file:
            return file.read()
    except FileNotFoundError:  # a link to nowhere
        raise
    except OSError as error:  # permission, a network drive; without an errno: damaged data in a zip
        if error.errno is None:
            raise
        raise CannotRead(f"{picture.name} cannot be read: {error.strerror}") from error
    except RuntimeError as error:  # a password; a compression that zipfile does not know
        raise CannotRead(f"{picture.name}: {error}. Unpack the archive yourself") from error


def read_and_decode(picture, size):
    """(pixels uint8 (3, size, size), None), or (None, the reason why the picture is broken)."""
    try:
        square = decode(io.BytesIO(read(picture)), size)
        return numpy.ascontiguousarray(numpy.asarray(square).transpose(2, 0, 1)), None
    except (CannotRead, MemoryError):
        raise
    except Exception as error:  # cut short, a web page, nothing at all: many types
        # without the address in "cannot identify image file <_io.BytesIO object at 0x7f...>"
        return None, f"{type(error).__name__}: {error}".partition(" <")[0]


def decode_all(pictures, size):
    """Decode Pictures in threads.

    Returns the images of the whole ones, uint8 (N, 3, size, size), and a dict: name of a broken
    one -> the reason.
    """
    images = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    whole = 0
    broken = {}
    pool = ThreadPool(min(4, os.cpu_count()))  # more would only queue for Python's lock
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow; with python -W error they are errors
            results = pool.imap(lambda picture: read_and_decode(picture, size), pictures, 10)
            for picture in tqdm(pictures, "decoding", disable=None, leave=False):
                pixels, reason = next(results)
                if reason:
                    broken[picture.name] = reason
                else:
                    images.numpy()[whole] = pixels
                    whole += 1
    except CannotRead as error:
        fail(error)
    finally:  # a thread that is alive when Python ends can crash it
        pool.terminate()
        pool.join()
    return images[:whole], broken


def report_broken(broken, count, place):
    """Name the broken ones of `count` pictures. More than one in ten end the program."""
    names = list(broken)
    message = (f"{len(broken)} of {count} pictures in {place} are broken (one in ten may be): "
               f"{names[0]} ({broken[names[0]]})")
    if len(names) > 1:
        message += ", " + ", ".join(names[1:9])
    if len(broken) > count / 10:
        fail(message)
    print(message, flush=True)


# -- The copy of the decoded pictures that is kept beside them
THIS_FILE = Path(__file__).read_bytes()  # as it runs: it may be edited while a notebook uses it


def fingerprint_of(place, pictures):
    """What decoded pictures depend on, as a short text: their names in order, sizes and times, and
    this file and the one in which `decode` is written. So an edit there decodes them again.

    None if `decode` is in no file, as in a notebook: nobody could tell whether it has changed.
    """
    content = hashlib.sha256(THIS_FILE)
    try:
        content.update(Path(decode.__code__.co_filename).read_bytes())
    except OSError:
        return None
    for picture in pictures:
        name = picture.name.removeprefix(str(place))
        content.update(repr((name, picture.size, picture.time)).encode())
    return content.hexdigest()


def load_kept(path, fingerprint):
    """The images that were kept for this fingerprint, or None."""
    try:
        kept = torch.load(path, weights_only=True, mmap=True)
        return kept["images"] if kept["fingerprint"] == fingerprint else None
    except Exception:  # not kept yet, not whole, of an older version: many types
        return None


def load_faces(root, limit=None, size=64):
    """CelebA, or anybody's pictures (see `gather` and `decode`): uint8 (N, 3, size, size).

    `limit`: the first N only. Without a limit, and if no picture is broken, the decoded images are
    saved beside the pictures. That copy is used until a picture or the code of `decode` changes.
    """
    place, pictures = find_pictures(root)
    folder = place if place.is_dir() else place.parent
    remove_leftovers(folder)
    kept_path = folder / f"faces{size}.pt"
    fingerprint = fingerprint_of(place, pictures)
    images = load_kept(kept_path, fingerprint)
    if images is None:
        images, broken = decode_all(pictures[:limit], size)
        if broken:
            report_broken(broken, len(pictures[:limit]), place)
        elif limit is None and fingerprint:
            save_if_possible(kept_path, {"fingerprint": fingerprint, "images": images})
    return images[:limit]


def check_images(images, args):
    """End the program if there are too few images for a minibatch, or others than before a resume.

    Their number and a checksum of some of them are noted in args, and so in the checkpoint.
    """
    if args.batch_size > len(images):
        fail(f"--batch-size {args.batch_size} is larger than the data, {len(images)} images")
    some = images[::max(1, len(images) // 1000)]
    checksum = zlib.crc32(some.contiguous().numpy())
    if getattr(args, "images", len(images)) != len(images):
        fail(f"that run has {args.images} images, and there are {len(images)} now: it cannot go on "
             "with other images")
    if getattr(args, "checksum", checksum) != checksum:
        fail(f"--data {args.data} has other images than that run was trained on: it cannot go on")
    args.images, args.checksum = len(images), checksum


def shuffled_batches(images, batch_size):
    """One epoch's minibatches: indices (steps, batch_size) into the images, on their device.

    The order is drawn on the CPU: the same for every device. The incomplete last one is dropped.
    """
    order = torch.randperm(len(images))
    steps = len(images) // batch_size
    return order[:steps * batch_size].view(steps, batch_size).to(images.device)


def to_float(images):
    """uint8 in [0, 255] -> float in [-1, 1], the range of G's Tanh."""
    return images / 127.5 - 1


# ------------------------------------------------------------------------------------ pictures out
@contextlib.contextmanager
def whole_file(path):
    """Open a file to write bytes into. It gets its name when it is complete.

    So a crash, a kill or a full disk leave the old file as it was, and never half of a new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{secrets.token_hex(4)}.tmp")
    try:
        with open(unfinished, "xb") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:  # Ctrl-C too
        unfinished.unlink(missing_ok=True)
        raise


def remove_leftovers(folder):
    """Remove what `whole_file` left when it was killed: nobody writes for longer than an hour."""
    for path in Path(folder).glob("unfinished-*.tmp"):
        with contextlib.suppress(OSError):  # another program was faster
            if time.time() - path.stat().st_mtime > 3600:
                if path.is_dir():  # of an older version
                    shutil.rmtree(path)
                else:
                    path.unlink()


@contextlib.contextmanager
def optional(path):
    """A file that a run can do without: if it cannot be made, say why, and go on."""
    try:
        yield
    except Exception as error:
        print(f"{path} could not be made ({type(error).__name__}: {error})", flush=True)


def save_grid(path, images, columns=None):
    """Save images, float (N, C, H, W) in [-1, 1], as one PNG: a square, or `columns` in a row."""
    columns = columns or math.isqrt(len(images))
    with whole_file(path) as file:
        utils.save_image(images, file, format="png", nrow=columns, normalize=True,
                         value_range=(-1, 1), pad_value=1)


def save_samples(path, G, *inputs):
    """Save what G draws from fixed inputs: z, and whatever else your G takes.

    In eval mode BatchNorm uses its running statistics, so no image depends on the others in its
    batch. Afterwards G is back in training mode.
    """
    G.eval()
    with torch.no_grad():
        images = G(*inputs)
    G.train()
    with optional(path):
        save_grid(path, images)


def picture_is_due(step, steps_an_epoch, sample_every):
    """Whether to save pictures after this step: at the end of an epoch, and within long ones."""
    if step % steps_an_epoch == 0:
        return True
    return sample_every > 0 and (step % sample_every == 0 or step in (10, 20, 50, 100, 200))


def new_figure(**keywords):
    """A matplotlib Figure. No backend is needed for it."""
    from matplotlib.figure import Figure  # slow to import: only when there is something to draw
    return Figure(layout="constrained", **keywords)


def save_figure(path, figure):
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=100)


def running_median(x, y, window=101):
    """The median of y over `window` neighbours, and the x in their middle. (Of a short y, over a
    third of its values.)

    At most about 2,000 medians, evenly spaced: more cannot be seen, and take long.
    """
    windows = numpy.lib.stride_tricks.sliding_window_view(y, min(window, len(y) // 3 + 1))
    middles = x[windows.shape[1] // 2:][:len(windows)]
    every = len(windows) // 2000 + 1
    return middles[::every], numpy.median(windows[::every], axis=1)


def draw_losses(path, table, chance_level=None):
    """Draw a run's losses.csv (see read_csv): columns whose names begin alike (loss_, d_) share a
    panel, pale, with their running medians. chance_level: loss_d of a D that cannot tell."""
    panels = {}  # how its columns begin -> their names: "loss" -> ["loss_d", "loss_g"]
    for name in table:
        if name not in ("step", "epoch", "g_step"):
            panels.setdefault(name.split("_")[0], []).append(name)
    if "w" in panels:  # w_estimate comes first
        panels = {"w": panels.pop("w"), **panels}
    figure = new_figure(figsize=(9, 3 * len(panels)))
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False).flat
    every = len(table["step"]) // 10_000 + 1  # of a long run only some rows: more cannot be seen
    for axes, (kind, names) in zip(all_axes, panels.items()):
        for i, name in enumerate(names):
            axes.plot(table["step"][::every], table[name][::every], f"C{i}", alpha=0.2,
                      linewidth=0.5)
            axes.plot(*running_median(table["step"], table[name]), f"C{i}", label=name)
        if kind == "loss" and chance_level is not None:
            axes.axhline(chance_level, color="0.5", linestyle="--",
                         label=f"loss_d {chance_level:.3f}: D cannot tell")
        axes.legend(loc="upper right")
    axes.set_xlabel("step")  # the lowest one
    save_figure(path, figure)


def draw_gif(path, pictures):
    """Draw a GIF of a run's pictures (see pictures_of): 100 at most, and always the last one.

    Each is shown in proportion to the steps that led to it; all of them take 10 seconds at most.
    """
    every = max(1, math.ceil(len(pictures) / 100))
    first = (len(pictures) - 1) % every  # so that the last one is among them
    pictures = pictures[first::every]
    frames, steps = [], []
    for picture in pictures:
        with optional(f"the frame of {picture} in {path}"):  # a damaged file costs its frame
            with Image.open(picture) as image:
                # 256 colours by an octree: ten to thirty times faster than Pillow's own choice
                frames.append(image.convert("RGB").quantize(method=Image.Quantize.FASTOCTREE))
            steps.append(step_of(picture))
    if not frames:
        raise ValueError("there are no pictures")
    durations = numpy.diff(steps, prepend=0)
    durations[0] = durations[1] if len(steps) > 1 else 1
    milliseconds = min(250 * len(frames), 10_000) * durations / durations.sum()
    with whole_file(path) as file:
        frames[0].save(file, format="gif", save_all=True, append_images=frames[1:], loop=0,
                       # browsers show what should last less than 20 for 100
                       duration=milliseconds.clip(min=20).round().astype(int).tolist())


def pictures_of(out):
    """A run's samples/step_000500.png, ..., in the order of their steps. Whatever else is there,
    such as "step_000500 copy.png", is not the run's."""
    pictures = [picture for picture in Path(out, "samples").glob("step_*.png")
                if picture.stem.removeprefix("step_").isdecimal()]
    return sorted(pictures, key=step_of)


def step_of(picture):
    """samples/step_000500.png -> 500"""
    return int(picture.stem.removeprefix("step_"))


# ------------------------------------------------------------------------------------------ tables
def add_row(rows, **values):
    """Add a row to a table that is not written yet. All rows need the same columns.

    Tensors stay where they are, without their graphs, which would fill the memory.
    """
    if rows and values.keys() != rows[0].keys():
        raise ValueError(f"this row has {list(values)}, the first one has {list(rows[0])}")
    for name, value in values.items():
        if torch.is_tensor(value):
            values[name] = value.detach()
    rows.append(values)


def to_table(rows):
    """Rows of numbers, or of tensors of one element, as a float64 array (rows, columns)."""
    columns = []
    for name in rows[0]:
        column = [row[name] for row in rows]
        if all(torch.is_tensor(value) for value in column):
            columns.append(torch.stack(column).flatten().tolist())  # the GPU is asked only once
        else:
            columns.append([float(value) for value in column])
    return numpy.array(columns).T


def append_rows(path, rows):
    """Append rows to a CSV file, and return them as an array.

    Ends the program if the file has other columns, as after a resume of a changed script, and if
    a number is not finite: the last checkpoint, of an earlier epoch, is still good.
    """
    names = ",".join(rows[0])
    table = to_table(rows)
    with open(path, "a+") as file:
        file.seek(0)
        header = file.readline().strip()
        if header not in ("", names):
            fail(f"{path} has the columns {header}, not {names}: a changed log needs a new run")
        numpy.savetxt(file, table, "%.8g", ",", header="" if header else names, comments="")
    bad = ~numpy.isfinite(table).all(axis=1)
    if bad.any():
        fail(f"step {table[bad][0, 0]:.0f}: a number in {path} is not finite. checkpoint.pt is of "
             "an earlier epoch, and good. A smaller learning rate may help", 1)
    return table


def keep_rows(path, count):
    """Cut a CSV file down to its header and its first `count` rows, or to nothing if count is 0.

    The rows are counted, not read: the last one may be torn.
    """
    with open(path, "a+b") as file:
        file.seek(0)
        end = 0
        if count > 0:
            for line in itertools.islice(file, count + 1):  # the header and the rows
                end += len(line)
        file.truncate(end)


def read_csv(path):
    """A run's CSV file: column name -> array. A torn last line is left out."""
    lines = Path(path).read_text(errors="replace").split("\n")
    names = lines[0].split(",")
    rows = [line for line in lines[1:-1] if line.count(",") == len(names) - 1]
    if not rows:
        raise ValueError(f"{path} has no rows")
    return dict(zip(names, numpy.loadtxt(rows, delimiter=",", ndmin=2).T))


# -------------------------------------------------------------------------------- the log of a run
class Log:
    """Writes losses.csv, and shows how a run goes: the progress bar, the lines, the drawings.

    A training script calls, in this order: start_epoch; add, after each step; write, whenever it
    saves pictures; end_epoch, when the checkpoint is saved; draw, when the run is finished. Within
    a run, add and end_epoch draw now and then.
    """

    def __init__(self, out, args, chance_level=None, draw_more=None):
        """out: the run's folder. chance_level: loss_d of a D that cannot tell, to be drawn.
        draw_more: a function that draws what else the script has."""
        self.out, self.args, self.chance_level = out, args, chance_level
        self.draw_more = draw_more
        self.live = is_terminal()
        self.rows = []  # not written yet. Tensors stay on the device: .item() makes a GPU wait
        self.pause = 60  # seconds between two drawings; the first one may come after 30
        self.last_drawing = time.perf_counter() - 30
        self.checkpoint_was_announced = False

    def start_epoch(self, epoch, steps):
        """epoch counts from 0; steps: how many it has."""
        self.title = f"epoch {epoch + 1}/{self.args.epochs}"
        self.epochs_left = self.args.epochs - epoch - 1
        self.steps, self.steps_done = steps, 0
        self.tables = []  # what is written of this epoch
        self.start = self.last_news = time.perf_counter()
        self.bar = tqdm(total=steps, desc=self.title, leave=False, disable=not self.live)

    def add(self, **values):
        """Add a row to losses.csv: step and epoch first, then one column for each value.

        Columns whose names begin alike, as loss_d and loss_g, share a panel of losses.png.
        """
        add_row(self.rows, **values)
        self.steps_done += 1
        self.bar.update()
        now = time.perf_counter()
        if now - self.last_news > (1 if self.live else 60):
            self.show_news(now - self.start)
            self.last_news = now
        if now - self.last_drawing >= self.pause and self.steps_done < self.steps:
            self.write()
            self.draw_if_due()

    def show_news(self, seconds):
        """The newest losses, on the bar or in a line. It waits for the GPU, so not at every step.
        seconds: how old the epoch is."""
        newest = dict(zip(self.rows[-1], to_table(self.rows[-1:])[0]))
        speed = self.steps_done / seconds
        if self.live:
            self.bar.set_postfix_str(in_words(newest, leave_out=("d_real", "d_fake")))
        else:
            print(f"{self.title}, step {self.steps_done} of {self.steps}: {in_words(newest)}, "
                  f"{speed * self.args.batch_size:,.0f} images/s", flush=True)
        if seconds > 10 and not self.checkpoint_was_announced:
            self.checkpoint_was_announced = True
            minutes = self.steps / speed / 60
            if minutes > 5:
                message = f"An epoch takes {minutes:.0f} minutes; a checkpoint is saved at its end."
                if self.args.images > 10_000:
                    message += " Shorter epochs: --limit 10000, in a new run."
                self.bar.write(message)

    def write(self):
        """Append the rows so far to losses.csv. Ends the run if a number is not finite."""
        if self.rows:
            self.names = list(self.rows[0])
            self.tables.append(append_rows(self.out / "losses.csv", self.rows))
            self.rows = []

    def draw_if_due(self):
        """Draw, but at most once a minute, and for at most a twentieth of the time."""
        start = time.perf_counter()
        if start - self.last_drawing < self.pause:
            return
        self.draw()
        self.last_drawing = time.perf_counter()
        self.pause = max(60, 20 * (self.last_drawing - start))

    def draw(self):
        """losses.png and training.gif, from the run's files: a resumed run shows the whole."""
        with optional(self.out / "losses.png"):
            table = read_csv(self.out / "losses.csv")
            draw_losses(self.out / "losses.png", table, self.chance_level)
        with optional(self.out / "training.gif"):
            draw_gif(self.out / "training.gif", pictures_of(self.out))
        if self.draw_more is not None:
            self.draw_more()

    def end_epoch(self):
        """Print the epoch's line: its mean losses, its speed, and the time that is left."""
        self.bar.close()
        table = numpy.concatenate(self.tables)
        means = dict(zip(self.names, table.mean(axis=0)))
        seconds = time.perf_counter() - self.start
        print(f"{self.title}, step {table[-1, 0]:.0f}: {in_words(means)}, "
              f"{len(table) * self.args.batch_size / seconds:,.0f} images/s, "
              f"{self.epochs_left * seconds / 60:.1f} min left", flush=True)
        if self.epochs_left > 0:
            self.draw_if_due()


def in_words(row, leave_out=()):
    """{"loss_d": 0.5, "loss_g": 2.0} -> "loss_d 0.5, loss_g 2"; steps and epochs are left out."""
    leave_out = {"step", "epoch", "g_step", *leave_out}
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in leave_out)


# --------------------------------------------------------------------------- a run and its folder
def open_run(args, device, G, D):
    """Make the folder of a new run, or take that of --resume; say what runs, and write config.json.

    Returns the folder, a Path.
    """
    out = Path(args.resume) if args.resume else new_folder(args)
    chip = device.type
    if chip == "cuda":
        chip = torch.cuda.get_device_name(device)
    parameters = {"G": count_parameters(G), "D": count_parameters(D)}
    print(f"{args.images:,} images of {args.dataset}; G has {parameters['G']:,} parameters, D "
          f"{parameters['D']:,}; {chip}, {args.precision}; into {out}", flush=True)
    if device.type == "cuda" and not args.cuda_graph:
        print("--cuda-graph would make this faster", flush=True)
    for folder_of_run in (out, out / "samples"):
        remove_leftovers(folder_of_run)
    config = {**vars(args), "out": str(out), "parameters": parameters, "device_name": chip,
              "python": sys.version, "torch": torch.__version__}
    with whole_file(out / "config.json") as file:
        file.write(json.dumps(config, indent=2).encode())
    return out


def new_folder(args):
    """The folder of a new run: --out, or the first of runs/SCRIPT, runs/SCRIPT-2, ... that is free.
    Two runs that start at the same moment get two folders."""
    if args.out:
        try:
            Path(args.out, "samples").mkdir(parents=True)
        except FileExistsError:
            fail(f"--out {args.out}: another run has just begun there, or it is a file")
        return Path(args.out)
    Path("runs").mkdir(exist_ok=True)
    number = 1
    while True:
        out = Path("runs", args.script if number == 1 else f"{args.script}-{number}")
        try:
            out.mkdir()
            return out
        except FileExistsError:
            number += 1


def count_parameters(net):
    return sum(weight.numel() for weight in net.parameters())


def cut_run(out, step):
    """On a resume, remove what the run has written after its checkpoint, which is of this step."""
    keep_rows(out / "losses.csv", step)
    for picture in pictures_of(out):
        if step_of(picture) > step:
            picture.unlink()


# ------------------------------------------------------------------------------------ checkpoints
def save_checkpoint(out, args, parts, **others):
    """Save what a resume needs: the run's flags, the states of its nets and optimizers (parts), and
    `others`, such as step and epoch.

    Ends the run, and keeps the older checkpoint, if a weight is not finite: no resume could mend
    that.
    """
    for net in (parts["G"], parts["D"]):
        if not all(weight.isfinite().all() for weight in net.parameters()):
            fail(f"a weight is not finite. {out / 'checkpoint.pt'} is of an earlier epoch, and "
                 "good. A smaller learning rate may help", 1)
    flags = {name: value for name, value in vars(args).items()
             if name not in ("out", "resume", "compare")}
    states = {name: part.state_dict() for name, part in parts.items()}
    save_whole(out / "checkpoint.pt", {"script": args.script, "args": flags, **states, **others})
    set_how_to_go_on(out, others["epoch"], args.epochs)


def restore(parts, saved):
    """Give nets and optimizers (parts) the states that a checkpoint has for them."""
    try:
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        fail(f"the checkpoint does not fit the script, which has most likely been changed since: a "
             f"changed net or optimizer needs a new run ({type(error).__name__}: {error})")


def save_whole(path, content):
    """torch.save, in a way that never leaves half a file."""
    remove_leftovers(Path(path).parent)
    with whole_file(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch.save hides a full disk behind a RuntimeError of its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_if_possible(path, content):
    """Save what could be made again. Where it cannot be saved, say why, and go on."""
    try:
        save_whole(path, content)
    except OSError as error:
        print(f"{path} is not kept ({error.strerror}): it will be made again", flush=True)


def load_checkpoint(path):
    """A checkpoint of a training script, or an export of one, on the CPU.

    weights_only=True: no file can run code.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(saved, dict):
            raise TypeError(f"it holds a {type(saved).__name__}")
        kinds = {"script": str, "args": dict, "generator": dict, "G": dict, "step": int,
                 "epoch": int}
        for name, kind in kinds.items():
            if not isinstance(saved[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        return saved
    except Exception as error:  # missing, cut short, something else, hostile: many types
        reason = repr(error).partition(" This file")[0][:200]
        fail(f"{path} is not a checkpoint of these scripts (--resume takes the folder of a run, a "
             f"tool the checkpoint.pt in it): {reason}")
