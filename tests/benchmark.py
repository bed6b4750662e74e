"""Our training loops against the loops of the documents they come from, in one process.

    python tests/benchmark.py                        every pair that runs here
    python tests/benchmark.py zeros --rounds 9       one of them, more rounds
    python tests/benchmark.py "blog dcgan" --bf16    with a row for --precision bf16
    python tests/benchmark.py --json times.json      the table as JSON too
    python tests/benchmark.py --scaling              time and memory at larger batches, on more data
    python tests/benchmark.py --overhead             what is not training: start, files, pictures

A source's loop is written here as its authors wrote it: the same nets, sizes and optimizers, a
DataLoader where they had one, a sigmoid and BCELoss, and `.item()` on every loss. Ours is the
script itself: `main` runs, decodes the pictures and then, on the clock, trains: the clock is read
where it asks for a minibatch. The rounds alternate, so that a busy machine disturbs both alike; the
table shows medians.
"""
import argparse
import atexit
import contextlib
import functools
import io
import itertools
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torch import nn
from torchvision import datasets, transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import toy_images

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
WARMUP = 20 if CUDA else 2  # steps: on CUDA more than the minibatches that a DataLoader has ready
FEWEST = 100 if CUDA else 1  # steps on the clock


# ----------------------------------------------------------------------------- the documents' loops
def zeros_source():
    """GAN-PyTorch: samples copied one by one into a zeros(32, 784) tensor, and gradients into G
    during D's step. Like every loop here it yields after each step."""
    G = gan_mnist_mlp.Generator().layers[:-1].to(DEVICE)
    D = gan_mnist_mlp.Discriminator().layers.append(nn.Sigmoid()).to(DEVICE)
    opt_G = torch.optim.SGD(G.parameters(), lr=0.001)
    opt_D = torch.optim.SGD(D.parameters(), lr=0.05)
    criterion = nn.BCELoss()
    data = common.to_float(toy_images.zeros().flatten(1)).to(DEVICE)
    while True:
        for first in range(0, 5920, 16):
            x = torch.zeros(32, 784, device=DEVICE)
            fake = G(torch.randn(16, 64, device=DEVICE))
            for i in range(16):
                x[i] = fake[i]
                x[16 + i] = data[first + i]
            ones, zeros = torch.ones(16, 1, device=DEVICE), torch.zeros(16, 1, device=DEVICE)
            opt_D.zero_grad()
            loss_D = criterion(D(x), torch.cat([zeros, ones]))
            loss_D.backward()
            opt_D.step()
            opt_G.zero_grad()
            loss_G = criterion(D(G(torch.randn(16, 64, device=DEVICE))), ones)
            loss_G.backward()
            opt_G.step()
            loss_D.item(), loss_G.item()
            yield


def loader_loop(dataset, G, D, optimizer, latent, step):
    """A training loop around a DataLoader with transforms for each image. On CUDA with 8 workers,
    as in the blog post."""
    workers = {"num_workers": 8, "pin_memory": True, "persistent_workers": True} if CUDA else {}
    loader = torch.utils.data.DataLoader(dataset, 128, shuffle=True, drop_last=True, **workers)
    G, D = G.to(DEVICE), nn.Sequential(D, nn.Sigmoid()).to(DEVICE)
    opt_G, opt_D = (optimizer(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (G, D))
    while True:
        for real, _ in loader:
            step(G, D, opt_G, opt_D, real.to(DEVICE), torch.randn(128, latent, device=DEVICE))
            yield


class Digits(torch.utils.data.Dataset):
    """As many images as the post has, served as torchvision's MNIST class serves them: a PIL image
    each, then ToTensor and Normalize."""

    def __init__(self):
        self.images = toy_images.zeros()[:, 0]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return 70_000

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i % len(self.images)].numpy())), 0


def blog_step(G, D, opt_G, opt_D, real, z):
    """Cerar's train_step."""
    criterion = nn.BCELoss()
    ones, zeros = torch.ones(128, device=DEVICE), torch.zeros(128, device=DEVICE)
    fake = G(z)
    loss_D = (criterion(D(real), ones) + criterion(D(fake.detach()), zeros)) / 2
    D.zero_grad()
    loss_D.backward()
    opt_D.step()
    loss_G = criterion(D(fake), ones)
    G.zero_grad()
    loss_G.backward()
    opt_G.step()
    loss_G.item(), loss_D.item()


def blog_source(G, D, latent):
    adamw = functools.partial(torch.optim.AdamW, weight_decay=1e-5)
    return loader_loop(Digits(), G, D, adamw, latent, blog_step)


def example_step(G, D, opt_G, opt_D, real, z):
    """The step of PyTorch's DCGAN example: D's halves are back-propagated one by one, and five
    numbers are read."""
    criterion = nn.BCELoss()
    ones, zeros = torch.ones(128, device=DEVICE), torch.zeros(128, device=DEVICE)
    D.zero_grad()
    out = D(real)
    loss_real = criterion(out, ones)
    loss_real.backward()
    fake = G(z)
    out_fake = D(fake.detach())
    loss_fake = criterion(out_fake, zeros)
    loss_fake.backward()
    opt_D.step()
    G.zero_grad()
    out_G = D(fake)
    loss_G = criterion(out_G, ones)
    loss_G.backward()
    opt_G.step()
    (loss_real + loss_fake).item(), loss_G.item()
    out.mean().item(), out_fake.mean().item(), out_G.mean().item()


def faces_source(G):
    torch.backends.cudnn.benchmark = True  # as in that example
    transform = transforms.Compose([
        transforms.Resize(64), transforms.CenterCrop(64), transforms.ToTensor(),
        transforms.Normalize([0.5] * 3, [0.5] * 3)])
    dataset = datasets.ImageFolder(jpeg_folder(), transform)
    dataset.samples *= 316  # as many as CelebA: the workers never wait for an epoch's end
    D = dcgan_celeba.Discriminator()
    return loader_loop(dataset, G, D, torch.optim.Adam, 100, example_step)


@functools.cache
def jpeg_folder():
    """640 JPEGs of CelebA's size, 178 x 218, as ImageFolder wants them: some/class/name.jpg."""
    root = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, root)
    Path(root, "faces").mkdir()
    for i, face in enumerate(toy_images.faces(640)[0]):
        image = Image.fromarray(face.permute(1, 2, 0).numpy()).resize((178, 218))
        image.save(f"{root}/faces/{i:06d}.jpg")
    return root


# name -> (the source's loop, our script, its flags, real images in a step, steps in a round)
PAIRS = {
    "zeros": (zeros_source, gan_mnist_mlp, ["--dataset", "toy"], 16, 300),
    "blog mlp": (
        lambda: blog_source(dcgan_mnist.MLPGenerator(), dcgan_mnist.MLPDiscriminator(), 100),
        dcgan_mnist, ["--dataset", "toy", "--model", "mlp"], 128, 30),
    "blog dcgan": (
        lambda: blog_source(dcgan_mnist.DCGANGenerator(), dcgan_mnist.DCGANDiscriminator(), 128),
        dcgan_mnist, ["--dataset", "toy"], 128, 10),
    "faces vanilla": (
        lambda: faces_source(dcgan_celeba.VanillaGenerator()),
        dcgan_celeba, ["--data", "JPEGS", "--generator", "vanilla"], 128, 2),
    "faces dcgan": (
        lambda: faces_source(dcgan_celeba.DCGANGenerator()),
        dcgan_celeba, ["--data", "JPEGS"], 128, 2),
}


def flags_of(name):
    """The flags of our script in a pair, with a folder of JPEGs where it wants one."""
    return [jpeg_folder() if flag == "JPEGS" else flag for flag in PAIRS[name][2]]


# ---------------------------------------------------------------------------------------- the clock
def now():
    """The time, when the device has done all that it was given."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def time_source(loop, steps):
    """Seconds a step of a source's loop."""
    torch.set_float32_matmul_precision("highest")  # PyTorch's defaults; on CUDA our main chooses
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(0)
    stepper = loop()
    for _ in range(WARMUP):
        next(stepper)
    start = now()
    for _ in range(steps):
        next(stepper)
    return (now() - start) / steps


class Enough(Exception):
    """Ends a training from within."""


def time_script(script, flags, steps):
    """Seconds a step of a script's own main, from one minibatch to another, within one epoch that
    never ends and has no pictures."""
    shuffled_batches, times = common.shuffled_batches, []

    class Clocked:
        def __init__(self, *args):
            self.batches = shuffled_batches(*args)

        def __len__(self):
            return 10**9

        def __iter__(self):
            for i, batch in enumerate(itertools.cycle(self.batches)):
                if i in (WARMUP, WARMUP + steps):
                    if CUDA and not times:  # without what cuDNN took while it searched
                        torch.cuda.reset_peak_memory_stats()
                    times.append(now())
                if len(times) == 2:
                    raise Enough
                yield batch

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), \
            mock.patch.object(common, "shuffled_batches", Clocked), contextlib.suppress(Enough):
        script.main([*flags, "--sample-every", "0", "--out", f"{folder}/run"])
    return (times[1] - times[0]) / steps


def scale(job):
    """Images a second and peak bytes of the vanilla generator at quarter width, on synthetic
    images; in a process of its own."""
    count, batch_size, steps = job
    images = torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
    dcgan_celeba.load_images = lambda args: images
    flags = "--generator vanilla --ngf 16 --ndf 16 --batch-size".split()
    speed = batch_size / time_script(dcgan_celeba, [*flags, str(batch_size)], max(steps, FEWEST))
    if CUDA:
        return speed, torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return speed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def print_scaling(rounds):
    """Time for each image should be flat, and memory the data plus a constant and what a batch's
    activations take."""
    print("    images   batch    images/s     data MB     peak MB  difference")
    jobs = [(10_000, 128), (10_000, 256), (10_000, 512), (50_000, 128), (200_000, 128)]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for count, batch_size in jobs:
            job = count, batch_size, 1024 // batch_size
            speeds, peaks = zip(*pool.map(scale, [job] * rounds, chunksize=1))
            data, peak = count * 3 * 64 * 64 / 1e6, statistics.median(peaks) / 1e6
            print(f"{count:10,}{batch_size:8}{statistics.median(speeds):12,.0f}{data:12,.0f}"
                  f"{peak:12,.0f}{peak - data:12,.0f}", flush=True)


def stopwatch(function, spent):
    """The function, with the seconds of its last call kept in `spent`."""
    def timed(*args, **keywords):
        start = now()
        result = function(*args, **keywords)
        spent[function.__name__] = now() - start
        return result
    return timed


def print_overhead(names):
    """What is not training: from the start of Python to the end of the first step, the files and
    pictures at an epoch's end, those at the end of a run."""
    print(f"{'':16}{'first step s':>14}{'end of epoch s':>16}{'end of run s':>14}")
    for name in names:
        _, script, _, batch_size, _ = PAIRS[name]
        flags = [*flags_of(name), "--epochs", "1", "--limit", str(2 * batch_size)]
        code = (f"import sys, common, {script.__name__} as script\n"
                f"common.Log.add = lambda *_, **numbers: sys.exit()\nscript.main({flags})")
        places = [str(Path(script.__file__).parent), *map(os.path.abspath, sys.path[1:])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
        watched = [(common, "save_samples"), (common, "append_rows"), (common, "save_checkpoint"),
                   (common.Log, "draw")]
        spent = {}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            start = now()
            subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL,
                           check=True, env=environment)
            first_step = now() - start
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for module, function in watched:
                timed = stopwatch(getattr(module, function), spent)
                stack.enter_context(mock.patch.object(module, function, timed))
            script.main([*flags, "--out", f"{folder}/run"])
        end_of_run = spent.pop("draw")
        print(f"{name:16}{first_step:14.1f}{sum(spent.values()):16.2f}{end_of_run:14.2f}",
              flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("names", nargs="*", default=list(PAIRS), help=f"any of {', '.join(PAIRS)}")
    add("--rounds", type=int, default=5)
    add("--bf16", action="store_true", help="time ours with --precision bf16 too")
    add("--scaling", action="store_true", help="time and memory at larger batches, on more data")
    add("--overhead", action="store_true", help="what is not training: start, files, pictures")
    add("--json", metavar="FILE")
    args = parser.parse_args()
    if unknown := set(args.names) - set(PAIRS):
        parser.error(f"no such pair: {', '.join(unknown)}")
    if args.scaling or args.overhead:
        return print_scaling(args.rounds) if args.scaling else print_overhead(args.names)
    cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    hardware = torch.cuda.get_device_name() if CUDA else cpu
    print(f"{hardware}, torch {torch.__version__}")
    print(f"{'':24}{'source ms':>12}{'ours ms':>12}{'images/s':>12}{'ratio':>8}")
    table = {"hardware": hardware, "torch": torch.__version__}
    precisions = ["fp32", "bf16"] if args.bf16 else ["fp32"]
    for name in args.names:
        loop, script, _, batch_size, steps = PAIRS[name]
        steps, times = max(steps, FEWEST), []
        variants = {precision: ["--precision", precision] for precision in precisions}
        if CUDA:
            variants |= {f"{variant} graph": [*flags, "--cuda-graph"]
                         for variant, flags in variants.items()}
        for _ in range(args.rounds):
            ours = [time_script(script, [*flags_of(name), *flags], steps)
                    for flags in variants.values()]
            times.append([time_source(loop, steps), *ours])
        for i, variant in enumerate(variants, start=1):
            source, ours = (statistics.median(row[column] for row in times) for column in (0, i))
            row = {"source_ms": 1e3 * source, "ours_ms": 1e3 * ours,
                   "images_per_second": batch_size / ours,
                   "ratio": statistics.median(row[0] / row[i] for row in times)}
            table[label := f"{name} {variant}"] = row
            columns = "{:24}{:12.2f}{:12.2f}{:12,.0f}{:8.2f}"
            print(columns.format(label, *row.values()), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
