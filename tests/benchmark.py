"""Our training loops against the loops of the documents they come from: images a second, in one process.

    python tests/benchmark.py                         every pair that runs here
    python tests/benchmark.py zeros --rounds 9        one of them, more rounds
    python tests/benchmark.py "blog dcgan" --bf16     with a row for --precision bf16, where the hardware has bfloat16 units
    python tests/benchmark.py --json times.json       the table as JSON too
    python tests/benchmark.py --scaling               how time and memory grow with the batch and with the data
    python tests/benchmark.py --overhead              start to first step; what CSV files, checkpoints and pictures cost

A source's loop is written here as its authors wrote it: the same nets, sizes and optimizers, a DataLoader where they had
one, a sigmoid and BCELoss, and `.item()` on every loss. Ours is the script itself: `main` runs, and the clock is read in
`Run.log`. The rounds alternate, so that a busy machine disturbs both alike; the table shows medians.
"""
import argparse
import contextlib
import functools
import io
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# -------------------------------------------------------------------------------------------------- the documents' loops
def zeros_source(device):
    """GAN-PyTorch: samples copied one by one into a zeros(32, 784) tensor, gradients into G during D's step.

    Like every loop here it yields after each step.
    """
    G, D = gan_mnist_mlp.Generator().layers[:-1].to(device), gan_mnist_mlp.Discriminator().layers[:-1].append(nn.Sigmoid()).to(device)
    opt_G, opt_D = torch.optim.SGD(G.parameters(), lr=0.001), torch.optim.SGD(D.parameters(), lr=0.05)
    criterion = nn.BCELoss()
    data = common.to_float(common.toy_zeros().flatten(1)).to(device)
    while True:
        for first in range(0, 5920, 16):
            x = torch.zeros(32, 784, device=device)
            fake = G(torch.randn(16, 64, device=device))
            for i in range(16):
                x[i] = fake[i]
                x[16 + i] = data[first + i]
            labels = torch.cat([torch.zeros(16, 1, device=device), torch.ones(16, 1, device=device)])
            opt_D.zero_grad()
            loss_D = criterion(D(x), labels)
            loss_D.backward()
            opt_D.step()
            opt_G.zero_grad()
            loss_G = criterion(D(G(torch.randn(16, 64, device=device))), torch.ones(16, 1, device=device))
            loss_G.backward()
            opt_G.step()
            loss_D.item(), loss_G.item()
            yield


def loader_loop(dataset, batch_size, G, D, opt_G, opt_D, latent, device, step):
    """A training loop around a DataLoader with transforms for each image. On CUDA with 8 workers, as in the blog post."""
    workers = {"num_workers": 8, "pin_memory": True, "persistent_workers": True} if device.type == "cuda" else {}
    loader = torch.utils.data.DataLoader(dataset, batch_size, shuffle=True, drop_last=True, **workers)
    while True:
        for real, _ in loader:
            step(G, D, opt_G, opt_D, real.to(device), latent)
            yield


class Digits(torch.utils.data.Dataset):
    """Images served as torchvision's MNIST class serves them: a PIL image each, then ToTensor and Normalize."""

    def __init__(self):
        from torchvision import transforms

        self.images = common.toy_zeros()[:, 0]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i].numpy())), 0


def blog_step(G, D, opt_G, opt_D, real, latent):
    """Cerar's train_step."""
    criterion, ones, zeros = nn.BCELoss(), torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
    fake = G(torch.randn(len(real), latent, device=real.device))
    loss_D = (criterion(D(real), ones) + criterion(D(fake.detach()), zeros)) / 2
    D.zero_grad()
    loss_D.backward()
    opt_D.step()
    loss_G = criterion(D(fake), ones)
    G.zero_grad()
    loss_G.backward()
    opt_G.step()
    loss_G.item(), loss_D.item()


def blog_source(model):
    def loop(device):
        if model == "mlp":
            latent, G, D = 100, dcgan_mnist.MLPGenerator(), dcgan_mnist.MLPDiscriminator()
        else:
            latent, G, D = 128, dcgan_mnist.DCGANGenerator(), dcgan_mnist.DCGANDiscriminator()
        G, D = G.to(device), nn.Sequential(D, nn.Sigmoid()).to(device)
        opt_G, opt_D = (torch.optim.AdamW(net.parameters(), lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-5) for net in (G, D))
        return loader_loop(Digits(), 128, G, D, opt_G, opt_D, latent, device, blog_step)
    return loop


def example_step(G, D, opt_G, opt_D, real, latent):
    """The step of PyTorch's DCGAN example: D's halves are back-propagated one by one, and five numbers are read."""
    criterion, ones, zeros = nn.BCELoss(), torch.ones(len(real), device=real.device), torch.zeros(len(real), device=real.device)
    D.zero_grad()
    out = D(real)
    loss_real = criterion(out, ones)
    loss_real.backward()
    fake = G(torch.randn(len(real), latent, device=real.device))
    out_fake = D(fake.detach())
    loss_fake = criterion(out_fake, zeros)
    loss_fake.backward()
    opt_D.step()
    G.zero_grad()
    out_G = D(fake)
    loss_G = criterion(out_G, ones)
    loss_G.backward()
    opt_G.step()
    (loss_real + loss_fake).item(), loss_G.item(), out.mean().item(), out_fake.mean().item(), out_G.mean().item()


def faces_source(generator):
    def loop(device):
        from torchvision import datasets, transforms

        transform = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64), transforms.ToTensor(),
                                        transforms.Normalize([0.5] * 3, [0.5] * 3)])
        G = (dcgan_celeba.VanillaGenerator() if generator == "vanilla" else dcgan_celeba.DCGANGenerator()).to(device)
        D = nn.Sequential(dcgan_celeba.Discriminator(), nn.Sigmoid()).to(device)
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for net in (G, D))
        return loader_loop(datasets.ImageFolder(jpeg_folder(), transform), 128, G, D, opt_G, opt_D, 100, device, example_step)
    return loop


@functools.cache
def jpeg_folder():
    """640 JPEGs of CelebA's size, 178 x 218, in a temporary folder as ImageFolder wants it: some/class/name.jpg."""
    folder = Path(tempfile.mkdtemp(), "faces")
    folder.mkdir()
    for i, face in enumerate(common.toy_faces(640)[0]):
        Image.fromarray(face.permute(1, 2, 0).numpy()).resize((178, 218)).save(folder / f"{i:06d}.jpg")
    return str(folder.parent)


# name -> (the source's loop, our script, its flags, real images in a step, steps in a round)
PAIRS = {
    "zeros": (zeros_source, gan_mnist_mlp, ["--dataset", "toy"], 16, 300),
    "blog mlp": (blog_source("mlp"), dcgan_mnist, ["--dataset", "toy", "--model", "mlp"], 128, 30),
    "blog dcgan": (blog_source("dcgan"), dcgan_mnist, ["--dataset", "toy"], 128, 10),
    "faces vanilla": (faces_source("vanilla"), dcgan_celeba, ["--data", "JPEGS", "--generator", "vanilla"], 128, 2),
    "faces dcgan": (faces_source("dcgan"), dcgan_celeba, ["--data", "JPEGS"], 128, 2),
}


def flags_of(name):
    """The flags of our script in a pair, with a folder of JPEGs where it wants one."""
    return [jpeg_folder() if flag == "JPEGS" else flag for flag in PAIRS[name][2]]


# -------------------------------------------------------------------------------------------------------------- the clock
def time_source(loop, device, steps, warmup):
    """Seconds a step of a source's loop."""
    torch.manual_seed(0)
    stepper = loop(device)
    for _ in range(warmup):
        next(stepper)
    synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        next(stepper)
    synchronize()
    return (time.perf_counter() - start) / steps


class Enough(Exception):
    """Ends a training from within."""


def time_script(script, flags, steps, warmup):
    """Seconds a step of a script's own main, from minibatch to log."""
    seen, log = [], common.Run.log

    def timed_log(run, **losses):
        log(run, **losses)
        if run.step in (warmup, warmup + steps):
            synchronize()
            seen.append(time.perf_counter())
        if len(seen) == 2:
            raise Enough

    folder = tempfile.mkdtemp()
    common.Run.log = timed_log
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Enough):
            script.main([*flags, "--out", f"{folder}/run"])
    finally:
        common.Run.log = log
        shutil.rmtree(folder)
    return (seen[1] - seen[0]) / steps


def scale(job):
    """Images a second and peak bytes of the vanilla generator at quarter width, on synthetic images; in a process of its own."""
    count, batch_size, steps = job
    dcgan_celeba.load_images = lambda args: torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8)
    flags = ["--generator", "vanilla", "--ngf", "16", "--ndf", "16", "--batch-size", str(batch_size), "--epochs", "1000"]
    seconds = time_script(dcgan_celeba, flags, steps, warmup=2)
    if torch.cuda.is_available():
        return batch_size / seconds, torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    return batch_size / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def print_scaling(rounds):
    """Time for each image should be flat, and memory the data plus a constant and what a batch's activations take."""
    print(f"{'images':>10}{'batch':>8}{'images/s':>12}{'data MB':>12}{'peak MB':>12}{'difference':>12}")
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for count, batch_size in [(10_000, 128), (10_000, 256), (10_000, 512), (50_000, 128), (200_000, 128)]:
            speeds, peaks = zip(*pool.map(scale, [(count, batch_size, 1024 // batch_size)] * rounds, chunksize=1))
            data, peak = count * 3 * 64 * 64 / 1e6, statistics.median(peaks) / 1e6
            print(f"{count:10,}{batch_size:8}{statistics.median(speeds):12,.0f}{data:12,.0f}{peak:12,.0f}{peak - data:12,.0f}", flush=True)


def print_overhead(names):
    """What is not training: from the start of Python to the end of the first step, the end of an epoch, the end of a run."""
    print(f"{'':24}{'first step s':>14}{'end of epoch s':>16}{'end of run s':>14}")
    for name in names:
        _, script, _, batch_size, _ = PAIRS[name]
        flags = [*flags_of(name), "--epochs", "1", "--limit", str(2 * batch_size)]
        code = f"import sys, common, {script.__name__} as script; common.Run.log = lambda *_, **losses: sys.exit(); script.main({flags})"
        environment, folder = {**os.environ, "PYTHONPATH": str(Path(script.__file__).parent)}, tempfile.mkdtemp()
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=folder, stdout=subprocess.DEVNULL, check=True, env=environment)
        first_step, spent = time.perf_counter() - start, {}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as patches:
            for method in ("_save_samples", "save", "finish"):
                patches.enter_context(mock.patch.object(common.Run, method, stopwatch(getattr(common.Run, method), spent)))
            script.main([*flags, "--out", f"{folder}/run"])
        shutil.rmtree(folder)
        print(f"{name:24}{first_step:14.1f}{spent['_save_samples'] + spent['save']:16.2f}{spent['finish']:14.2f}", flush=True)


def stopwatch(method, spent):
    """The method, with the seconds of its last call kept in `spent`."""
    def timed(*args):
        start = time.perf_counter()
        result = method(*args)
        spent[method.__name__] = time.perf_counter() - start
        return result
    return timed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PAIRS), help=f"any of {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bf16", action="store_true", help="time ours with --precision bf16 too")
    parser.add_argument("--scaling", action="store_true", help="time and memory at larger batches and on more images")
    parser.add_argument("--overhead", action="store_true", help="what is not training: the start, the files, the pictures")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.scaling or args.overhead:
        return print_scaling(args.rounds) if args.scaling else print_overhead(args.names)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else cpu
    print(f"{hardware}, torch {torch.__version__}\n{'':24}{'source ms':>12}{'ours ms':>12}{'images/s':>12}{'ratio':>8}")
    table = {"hardware": hardware, "torch": torch.__version__}
    for name in args.names:
        loop, script, _, batch_size, steps = PAIRS[name]
        flags = flags_of(name)
        precisions = ["fp32", "bf16"] if args.bf16 else ["fp32"]
        times = []
        for _ in range(args.rounds):
            ours = [time_script(script, [*flags, "--precision", precision], steps, warmup=2) for precision in precisions]
            times.append([time_source(loop, device, steps, warmup=2), *ours])
        for column, precision in enumerate(precisions, start=1):
            source, ours = (statistics.median(row[i] for row in times) for i in (0, column))
            ratio = statistics.median(row[0] / row[column] for row in times)
            row = {"source_ms": 1e3 * source, "ours_ms": 1e3 * ours, "images_per_second": batch_size / ours, "ratio": ratio}
            table[f"{name} {precision}"] = row
            print(f"{name + ' ' + precision:24}{1e3 * source:12.2f}{1e3 * ours:12.2f}{batch_size / ours:12,.0f}{ratio:8.2f}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
