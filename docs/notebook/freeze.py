"""The zeros: does D's loss rise because G learns?

The report: "The discriminator loss is steadly increasing, which is a good news, the generator is
learning how to fool the discriminator." If so, D's loss must fall once G stops learning, and rise
faster once D does. From the same checkpoint, three ways to go on: both learn, G is frozen (its rate
is 0), D is frozen. All three draw the same minibatches and the same noise.

Run from the project's root, with MNIST in data/:
    OMP_NUM_THREADS=1 python docs/notebook/freeze.py --seeds 0 --at 20,100,250
    OMP_NUM_THREADS=1 python docs/notebook/freeze.py --seeds 1 --at 20,100
It trains with gan_mnist_mlp.py, into runs/freeze-SEED, and keeps the checkpoint of each epoch asked.
"""
import argparse
import shutil
import sys
from pathlib import Path

import torch

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
import common
import gan_mnist_mlp
from explore_latent import parse_seeds
from gan_mnist_mlp import Discriminator, Generator, step_D, step_G

BATCH_SIZE = 16
LATENT_DIM = 64


def train_until(seed, epoch, args):
    """The checkpoint of that epoch, from a run of the script or from an earlier call."""
    out = Path(args.runs, f"freeze-{seed}")
    kept = out / f"checkpoint_{epoch}.pt"
    if not kept.exists():
        where = ["--resume", str(out)] if out.exists() else ["--seed", str(seed), "--out", str(out)]
        gan_mnist_mlp.main(["--data", args.data, "--epochs", str(epoch), *where])
        shutil.copy(out / "checkpoint.pt", kept)
    return torch.load(kept, weights_only=True)


def go_on(saved, images, seed, rate_G, rate_D, epochs, observer):
    """Train on from a checkpoint with these rates. Yields a row for each epoch."""
    G, D = Generator(LATENT_DIM), Discriminator()
    G.load_state_dict(saved["G"])
    D.load_state_dict(saved["D"])
    opt_G = torch.optim.SGD(G.parameters(), rate_G)
    opt_D = torch.optim.SGD(D.parameters(), rate_D)
    for epoch in range(saved["epoch"], saved["epoch"] + epochs):
        torch.manual_seed(1_000_000 * seed + epoch + 1)  # as the script
        losses = []
        for batch in torch.randperm(len(images)).unfold(0, BATCH_SIZE, BATCH_SIZE):
            real = images[batch] / 127.5 - 1
            with torch.no_grad():
                fake = G(torch.randn(BATCH_SIZE, LATENT_DIM))
            loss_D, d_real, d_fake = step_D(D, opt_D, real, fake)
            fake = G(torch.randn(BATCH_SIZE, LATENT_DIM))
            loss_G = step_G(G, D, opt_G, fake, "nonsaturating")
            losses.append(torch.stack([loss_D, loss_G, d_real, d_fake]))
        row = dict(zip(["loss_d", "loss_g", "d_real", "d_fake"],
                       torch.stack(losses).mean(dim=0).tolist()))
        with torch.no_grad():
            samples = G(observer.z)
            row["fooled"] = (D(samples) > 0).float().mean().item()
        measured = observer.describe(samples)
        row["spread"], row["distance"] = measured["spread"].item(), measured["distance"].item()
        yield row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--at", default="20,100,250", help="epochs at which to freeze")
    parser.add_argument("--epochs", type=int, default=10, help="to go on from each of them")
    parser.add_argument("--runs", default="runs")
    args = parser.parse_args()
    images, labels = common.load_mnist(args.data, "mnist")
    images = images[labels == 0]
    observer = gan_mnist_mlp.Observer(images, None, LATENT_DIM, torch.device("cpu"))

    lines = []
    for seed in parse_seeds(args.seeds):
        for epoch in parse_seeds(args.at):
            saved = train_until(seed, epoch, args)
            ways = [("both learn", 0.001, 0.05), ("G frozen", 0, 0.05), ("D frozen", 0.001, 0)]
            for name, rate_G, rate_D in ways:
                rows = list(go_on(saved, images, seed, rate_G, rate_D, args.epochs, observer))
                losses = ", ".join(f"{rows[i]['loss_d']:.3f}" for i in (0, len(rows) // 2 - 1, -1))
                end = rows[-1]
                lines.append(f"| {seed} | {epoch} | {name} | {losses} | {end['loss_g']:.2f} | "
                             f"{end['fooled']:.1%} | {end['spread']:.3f} | {end['distance']:.3f} |")
                print(lines[-1], flush=True)

    print(f"\nloss_d: means over epochs 1, {args.epochs // 2}, {args.epochs} after the checkpoint; "
          "the rest at the end of them. Spread, distance: those of the reals are 1.\n")
    print("| seed | from epoch | | loss_d | loss_g | fool D | spread | distance |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
