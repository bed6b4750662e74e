"""What the scripts share that teaches nothing about GANs: flags, images in, pictures out, files.

Read a training script first; come here for the details of a helper that it calls. Bad input ends in
`fail`: one line on stderr, and exit status 2. Ctrl-C, a full disk, too little memory and files that
cannot be written get their line from `launch`. Every other error keeps its traceback, so that your
own mistakes can be found.
"""
import argparse
import contextlib
import json
import os
import sys
import tempfile
import zipfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torchvision import datasets, utils
from tqdm import tqdm


# --------------------------------------------------------------------------------- flags and device
def fail(message, status=2):
    """End the program with one line on stderr."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


def launch(main):
    """Run a script's main. Ctrl-C, too little memory, a full disk, and a file or folder that cannot
    be written end it in one line. A missing file keeps its traceback: most likely a mistake in your
    code."""
    try:
        main()
    except KeyboardInterrupt:
        fail(f"interrupted{launch.hint}", status=130)
    except (OSError, RuntimeError, MemoryError) as error:
        # the words of torch and of the system; inline_container: torch.save on a full disk
        words = "out of memory|to allocate|ALLOC|MemoryError|No space|quota|inline_container"
        if any(word in repr(error) for word in words.split("|")):
            fail(f"memory (smaller --batch-size, --n?) or disk is full: {error}{launch.hint}", 1)
        if not getattr(error, "filename", None) or isinstance(error, FileNotFoundError):
            raise
        fail(f"{error.filename}: {error.strerror}{launch.hint}")


launch.hint = ""  # how to go on after the last checkpoint: set by save_checkpoint, by a resume


def new_parser(file, doc):
    """An ArgumentParser for the script `file`, described by its docstring's first line."""
    parser = argparse.ArgumentParser(Path(file).name, description=doc.splitlines()[0])
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.error = lambda message: fail(f"{message} (see: python {parser.prog} --help)")
    return parser


def training_parser(file, doc, kinds, epochs, batch_size, seed):
    """The flags of every training script; the script adds its algorithm's own after them."""
    parser = new_parser(file, doc)
    add, folder = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    # expanduser replaces ~, which not every shell does
    add("--data", type=os.path.expanduser, default="data", metavar="DIR", help="of the datasets")
    add("--dataset", default=kinds[0], choices=kinds, help="toy is drawn by code: no download")
    add("--limit", type=int, metavar="N", help="train on the first N images only")
    folder("--out", type=os.path.expanduser, metavar="DIR", help="of a new run; None: in runs/")
    folder("--resume", type=os.path.expanduser, metavar="DIR", help="of the run to go on with")
    add("--epochs", type=int, default=epochs, help="passes over the data in total, also on resume")
    add("--batch-size", type=int, default=batch_size, help="real images in a minibatch")
    add("--seed", type=int, default=seed, help="of the weights, the noise, the order of the images")
    add("--device", help="cpu, cuda, cuda:1, mps; None: cuda when there is one, else cpu")
    add("--precision", default="fp32", choices=["fp32", "bf16"], help="fp32 is TF32 on CUDA. bf16 "
        "is for GPUs since Ampere, and CPUs with amx_bf16 (Intel) or avx512_bf16 (AMD) in lscpu")
    return parser


def parse(parser, argv):
    """Parse a training script's flags. Returns (args, saved); saved: the checkpoint of a --resume.

    With --resume a flag that was not typed takes the run's value. A typed one may differ only where
    that does not change the experiment: --epochs, --data, --device (not to or from mps).
    """
    args, saved, script = parser.parse_args(argv), None, Path(parser.prog).stem
    if args.resume is not None:
        saved = load_checkpoint(Path(args.resume, "checkpoint.pt"))
        if saved["script"] != script or "fixed_z" not in saved:
            fail(f"{args.resume} holds a run of {saved['script']}.py, or of an older version of it")
        parser.set_defaults(**saved["args"])
        args = parser.parse_args(argv)
        launch.hint = f"; --resume {args.resume} goes on with epoch {saved['epoch'] + 1}"
        for name, value in saved["args"].items():
            # on MPS the weights have another memory layout (see `place`), and so do Adam's moments
            mps = name == "device" and "mps" in f"{value} {args.device}"
            if getattr(args, name) != value and (mps or name not in ("epochs", "data", "device")):
                fail(f"--{name.replace('_', '-')} {getattr(args, name)}: that run has {value}")
    elif args.out and Path(args.out).is_dir() and os.listdir(args.out):
        fail(f"--out {args.out} is not empty: another folder? If it is a run, --resume {args.out}")
    lows = {"seed": 0, "clip": 0, "epochs": max(1, saved["epoch"]) if saved else 1}
    for name in "limit epochs batch-size seed ngf ndf n-critic clip lr lr-g lr-d".split():
        value, low = getattr(args, name.replace("-", "_"), None), lows.get(name, 1e-12)
        if value is not None and not low <= value < 2**32:  # not a number fails too
            fail(f"--{name} {value} is out of range" + f": that run has had {low}" * (low > 1))
    args.script = script
    return args, saved


def pick_device(name, training=True):
    """The torch.device of --device, checked. On CUDA, matrices are multiplied in TF32, by GPUs that
    have it (since Ampere)."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        (torch.ones(1, device=device) + 1).cpu()  # a GPU too old for this torch may only fail here
    except (RuntimeError, AssertionError, ImportError) as error:
        fail(f"--device {name or 'cuda'} cannot be used here, cpu can: {str(error)[:150]}")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32: float32's range, 10 bits of mantissa
        torch.backends.cudnn.benchmark = training  # pays where every batch has the same shape
    return device


def place(net, device, precision="fp32"):
    """Move a net to the device. With bf16 it computes under autocast; weights and outputs stay
    float32. (Do not deep-copy such a net: the copy would compute with the original's weights.)"""
    if precision == "bf16":
        forward = torch.autocast(device.type, torch.bfloat16)(net.forward)
        net.forward = lambda *inputs: forward(*inputs).float()
    # channels_last is faster on a CPU, and 1.1 to 1.5 times as fast on an H200; on MPS BatchNorm's
    # gradients were wrong with it
    layout = torch.contiguous_format if device.type == "mps" else torch.channels_last
    return net.to(device, memory_format=layout)


# ---------------------------------------------------------------------------------------- images in
def load_mnist(root, dataset, test=False):
    """MNIST or Fashion-MNIST, downloaded when missing; `test` appends the 10,000 test images.

    Returns images uint8 (N, 1, 28, 28) and labels int64 (N,).
    """
    kind = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[dataset]
    try:
        parts = [kind(root, train=train, download=True) for train in [True, False][:1 + test]]
        labels = torch.cat([part.targets for part in parts])
        return torch.cat([part.data for part in parts]).view(len(labels), 1, 28, 28), labels
    except Exception as error:  # no network, a web page as file, a wrong size: many types
        fail(f"cannot load {root}/{kind.__name__}/raw: {error}. Is --data right? --dataset toy?")


def find_pictures(root):
    """The pictures below root/celeba, or below root: at any depth, or in a zip there; root may
    be a zip itself. Returns the folder, the sorted names, and the open ZipFile or None."""
    def pictures(names):  # but not what a Mac leaves behind: __MACOSX/..., ._000001.jpg
        return sorted(name for name in names if datasets.folder.is_image_file(name)
                      and "__MACOSX" not in name and not os.path.basename(name).startswith("."))

    folder = Path(root, "celeba") if Path(root, "celeba").exists() else Path(root)
    walk = os.walk(folder, followlinks=True)
    if names := pictures(os.path.join(parent, file) for parent, _, files in walk for file in files):
        return folder, names, None
    for path in [folder] if folder.is_file() else sorted(folder.rglob("*.zip")):
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            fail(f"{path} is no complete zip archive (a picture or a web page instead?): {error}")
        if names := pictures(archive.namelist()):
            return path.parent, names, archive
    fail(f"no such folder, or no pictures (jpg, png, ...) in it: {folder}. CelebA (1.4 GB): put "
         "img_align_celeba.zip of mmlab.ie.cuhk.edu.hk/projects/CelebA.html or kaggle.com/datasets/"
         f"jessicali9530/celeba-dataset into {Path(root, 'celeba')}, or train on --dataset toy")


def decode(zipped, name, out):
    """Write a picture's centre square (178 x 178 in CelebA), scaled down with antialiasing, into
    out, uint8 (3, S, S). Returns True, or None if the picture is broken."""
    with contextlib.suppress(Exception), Image.open(zipped.open(name) if zipped else name) as image:
        image.draft("RGB", (2 * out.shape[2], 2 * out.shape[2]))  # JPEGs: faster at 1/2 or less
        ImageOps.exif_transpose(image, in_place=True)  # phones note how they were held
        square = ImageOps.fit(image.convert("RGB"), out.shape[1:], Image.Resampling.BILINEAR)
        out[:] = numpy.asarray(square).transpose(2, 0, 1)
        return True


def load_faces(root, limit=None, size=64):
    """CelebA, or anybody's pictures (see `find_pictures` and `decode`): uint8 (N, 3, size, size).

    All of them are kept, decoded, beside the pictures until a file changes; `limit`: the first N.
    """
    folder, names, archive = find_pictures(root)
    stats = list(map(os.stat, filter(os.path.exists, [archive.filename] if archive else names)))
    fingerprint = [len(names), sum(s.st_size for s in stats), sum(s.st_mtime for s in stats)]
    cache, names = folder / f"faces{size}.pt", names[:limit]
    with contextlib.suppress(Exception):  # not kept yet, or not whole: decode
        if (kept := torch.load(cache, weights_only=True, mmap=True))["fingerprint"] == fingerprint:
            return kept["images"][:sum(kept["whole"][:limit])]
        del kept  # Windows cannot replace a file that is mapped
    images = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    with ThreadPool(min(4, os.cpu_count())) as pool:  # more would only queue for Python's lock
        work = pool.imap(lambda pair: decode(archive, *pair), zip(names, images.numpy()), 100)
        whole = list(map(bool, tqdm(work, "decoding", len(names), disable=None, leave=False)))
    if bad := [name for name, good in zip(names, whole) if not good]:
        report = fail if len(bad) > len(names) / 100 else print  # fail ends the program
        report(f"{len(bad)} of {len(names)} pictures in {folder} are broken (1% may be): {bad[:9]}")
        images = images[torch.tensor(whole)]
    if limit is None and os.access(folder, os.W_OK):
        save_whole(cache, {"fingerprint": fingerprint, "images": images, "whole": whole})
    return images


def hold(images, batch_size, device):
    """The images, uint8, on the device where they take less than half of its free memory."""
    if batch_size > len(images):
        fail(f"--batch-size {batch_size} is larger than the data, {len(images)} images")
    fits = device.type != "cuda" or images.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    return images.to(device) if fits else images


def shuffled_batches(images, batch_size, epoch, epochs):
    """An epoch's minibatches under a progress bar: index tensors (batch_size,) on images.device.

    The order is drawn on the CPU: the same for every device. The incomplete last one is dropped.
    """
    order = torch.randperm(len(images)).unfold(0, batch_size, batch_size)  # (steps, batch_size)
    return tqdm(order.to(images.device), f"epoch {epoch + 1}/{epochs}", disable=None, leave=False)


def to_float(images):
    """uint8 in [0, 255] -> float in [-1, 1], the range of G's Tanh."""
    return images / 127.5 - 1


# -------------------------------------------------------------------------- pictures and tables out
def save_grid(path, images, columns=None):
    """Save images, float (N, C, H, W) in [-1, 1], as one PNG: a square, or `columns` in a row."""
    columns = columns or int(len(images) ** 0.5)
    utils.save_image(images, path, nrow=columns, normalize=True, value_range=(-1, 1), pad_value=1)


def add_row(rows, **values):
    """Add a row to those that wait for the end of the epoch. Its columns cannot come and go.

    Tensors stay where they are, without their graphs, which would fill the memory.
    """
    if rows and values.keys() != rows[0].keys():
        raise ValueError(f"this row has {list(values)}, the first one has {list(rows[0])}")
    rows.append({k: v.detach() if torch.is_tensor(v) else v for k, v in values.items()})


def append_rows(path, rows):
    """Append rows of numbers, or of tensors of one element, to a CSV file. Returns means as text.

    A number that is not finite ends the run, which leaves the checkpoint of the epoch before; and
    so do other columns than the file's, as after a resume of a changed script.
    """
    columns = [[row[name] for row in rows] for name in rows[0]]
    table = numpy.array([torch.stack(column).flatten().tolist() if all(map(torch.is_tensor, column))
                         else list(map(float, column)) for column in columns]).T
    with open(path, "a+") as file:
        file.seek(0)
        if (old := file.readline().strip()) not in ("", names := ",".join(rows[0])):
            fail(f"{path} has the columns {old}, not {names}: a changed loss needs a new run")
        numpy.savetxt(file, table, "%.8g", ",", header="" if old else names, comments="")
    if len(bad := table[~numpy.isfinite(table).all(axis=1), 0]):  # their steps
        fail(f"step {bad[0]:.0f}: not finite in {path} (checkpoint.pt: older): a smaller rate?", 1)
    means = {name: mean for name, mean in zip(rows[0], table.mean(axis=0)) if "step" not in name}
    return ", ".join(f"{name} {mean:.4g}" for name, mean in means.items() if name != "epoch")


def keep_rows(path, count):
    """Cut a CSV file down to its header and first rows, or to nothing when count is 0. The rows are
    counted, not read: the last may be torn."""
    with open(path, "a+b") as file:
        file.seek(0)
        file.truncate(sum(len(row) for row, _ in zip(file, range(count + 1 if count else 0))))


def read_csv(path):
    """A run's CSV as a structured array: table["step"], table.dtype.names. Torn lines are left out.
    """
    return numpy.atleast_1d(numpy.genfromtxt(path, delimiter=",", names=True, invalid_raise=False))


def running_median(x, y, window=101):
    """y smoothed by the median over `window` of its values, a third of them at most, and the x at
    each window's middle."""
    windows = numpy.lib.stride_tricks.sliding_window_view(y, min(window, len(y) // 3 + 1))
    return x[windows.shape[1] // 2:][:len(windows)], numpy.median(windows, axis=1)


def draw_run(out):
    """losses.png and training.gif, from the run's files: a resumed run shows the whole.

    Columns whose names begin alike (loss_, d_) share a panel, pale, with their running medians.
    """
    from matplotlib.figure import Figure  # slow to import

    table, panels = read_csv(out / "losses.csv"), {}
    for name in table.dtype.names[2:]:  # all but step and epoch
        panels.setdefault(name.partition("_")[0], []).append(name)
    figure = Figure(figsize=(9, 3 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), sharex=True, squeeze=False).flat
    for axes, names in zip(all_axes, panels.values()):
        for color, name in enumerate(names):
            axes.plot(table["step"], table[name], f"C{color}", alpha=0.2, linewidth=0.5)
            axes.plot(*running_median(table["step"], table[name]), f"C{color}", label=name)
        axes.legend(loc="upper right")
    axes.set_xlabel("step")  # the lowest one
    figure.savefig(out / "losses.png", dpi=100)
    # by length first: step_1000000 is after step_999999. Of a long run 400 at most, and the last
    paths = sorted(out.glob("samples/step_*.png"), key=lambda path: (len(path.name), path))[::-1]
    frames = [Image.open(path).copy() for path in paths[::len(paths) // 400 + 1]][::-1]
    frames[0].save(out / "training.gif", save_all=True, append_images=frames[1:], loop=0,
                   duration=min(250, 10_000 / len(frames)))  # milliseconds: at most ten seconds


# ----------------------------------------------------------------------------- a run and its folder
def open_run(args, device, images, G, D):
    """The run's folder: --resume, --out, or the first of runs/SCRIPT, runs/SCRIPT-2, ... that is
    not there yet. Says what runs, and writes it into config.json."""
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in [("G", G), ("D", D)]}
    # a new run notes both in args, and so in its checkpoint; a resumed one has them from there
    for name, now in [("images", len(images)), ("parameters", count)]:
        if (then := vars(args).setdefault(name, now)) != now:
            fail(f"that run has {then} {name}, and there are {now} now: it cannot go on")
    names = (f"runs/{args.script}" + (f"-{i}" if i > 1 else "") for i in range(1, 1_000_000))
    out = args.resume or args.out or next(name for name in names if not Path(name).exists())
    Path(out, "samples").mkdir(parents=True, exist_ok=True)
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{len(images):,} images of {args.dataset}; G has {count['G']:,} parameters, D "
          f"{count['D']:,}; {chip}, {args.precision}; into {out}", flush=True)
    config = {"out": out, "device_name": chip, "python": sys.version, "torch": torch.__version__}
    Path(out, "config.json").write_text(json.dumps(vars(args) | config, indent=2))
    return Path(out)


def save_checkpoint(out, args, parts, **others):
    """Save a run: its flags, the states of nets and optimizers, and what else a resume needs. Not a
    net whose weights are not finite, which no resume could repair."""
    if not all(weight.isfinite().all() for net in "GD" for weight in parts[net].parameters()):
        fail(f"a weight is not finite ({out}/checkpoint.pt: older): a smaller rate?", 1)
    flags = {k: v for k, v in vars(args).items() if k not in ("out", "resume", "compare")}
    states = {name: part.state_dict() for name, part in parts.items()}
    save_whole(out / "checkpoint.pt", {"script": args.script, "args": flags, **states, **others})
    launch.hint = f"; --resume {out} goes on with epoch {others['epoch'] + 1}"


def save_whole(path, content):
    """torch.save into a new folder beside `path`, then move the file there: a crash leaves the old
    one intact, and a full disk no half of a new one."""
    # True: no error where the folder, empty by then, cannot be removed (a virus scanner reads it)
    with tempfile.TemporaryDirectory(".tmp", "unfinished-", Path(path).parent, True) as folder:
        torch.save(content, whole := Path(folder, "whole.pt"))
        os.replace(whole, path)


def load_checkpoint(path):
    """A training script's checkpoint, onto the CPU. weights_only=True: no file can run code."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        # a KeyError where one of these is missing
        return {k: saved[k] for k in saved.keys() | "script args generator G step epoch".split()}
    except Exception as error:  # missing, cut short, something else, hostile: many types
        fail(f"{path} is not a checkpoint of these scripts (--resume takes a run's folder, a tool "
             f"the checkpoint.pt in it): {repr(error).split(' This file')[0][:200]}")
