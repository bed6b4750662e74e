"""Our training loops against the loops of the documents they come from: images a second, in one process.

    python tests/benchmark.py                         every pair that runs here
    python tests/benchmark.py zeros --rounds 9        one of them, more rounds
    python tests/benchmark.py --json times.json       the table as JSON too

A source's loop is written here as its authors wrote it: the same nets, sizes and optimizers, a DataLoader where they had
one, a sigmoid and BCELoss, and `.item()` on every loss. Ours is the script itself: `main` runs, and the clock is read in
`Run.log`. The rounds alternate, so that a busy machine disturbs both alike; the table shows medians.
"""
import argparse
import contextlib
import io
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import common
import gan_mnist_mlp


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# -------------------------------------------------------------------------------------------------- the documents' loops
def zeros_source(device):
    """GAN-PyTorch: samples copied one by one into a zeros(32, 784) tensor, gradients into G during D's step. Yields a step at a time."""
    G = nn.Sequential(nn.Linear(64, 128), nn.LeakyReLU(), nn.Linear(128, 512), nn.LeakyReLU(), nn.Linear(512, 784), nn.Tanh()).to(device)
    D = nn.Sequential(nn.Linear(784, 256), nn.LeakyReLU(), nn.Linear(256, 1), nn.Sigmoid()).to(device)
    opt_G, opt_D = torch.optim.SGD(G.parameters(), lr=0.001), torch.optim.SGD(D.parameters(), lr=0.05)
    criterion = nn.BCELoss()
    data = (common.toy_zeros().flatten(1).float() / 127.5 - 1).to(device)
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


# name -> (the source's loop, our script, its flags, real images in a step, steps in a round)
PAIRS = {
    "zeros": (zeros_source, gan_mnist_mlp, ["--dataset", "toy"], 16, 300),
}


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(PAIRS), help=f"any of {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    print(f"{hardware}, torch {torch.__version__}\n{'':24}{'source ms':>12}{'ours ms':>12}{'images/s':>12}{'ratio':>8}")
    table = {"hardware": hardware, "torch": torch.__version__}
    for name in args.names:
        loop, script, flags, batch_size, steps = PAIRS[name]
        times = [(time_source(loop, device, steps, warmup=10), time_script(script, flags, steps, warmup=10)) for _ in range(args.rounds)]
        source, ours = (statistics.median(column) for column in zip(*times))
        ratio = statistics.median(a / b for a, b in times)
        table[name] = {"source_ms": 1e3 * source, "ours_ms": 1e3 * ours, "images_per_second": batch_size / ours, "ratio": ratio}
        print(f"{name:24}{1e3 * source:12.2f}{1e3 * ours:12.2f}{batch_size / ours:12,.0f}{ratio:8.2f}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
