"""The zeros: does G come back to a mode, and what does D answer to images that G does not draw?

Two sentences of the report. "The generator cycles between different modes": a return is a change of
the dominant mode, while the samples are alike, to one that was dominant before. "D always predict that images different from S are real", S being
what G draws now: at each measurement, D gets images of six kinds that differ from S.

Run from the project's root, with MNIST in data/:
    OMP_NUM_THREADS=1 python docs/notebook/cycling.py --seeds 0-9
It trains with gan_mnist_mlp.py as it is. Only the observer, which changes nothing, sees more.
Each seed leaves its run in runs/cycling-SEED; a seed whose run is there is only read.
"""
import argparse
import sys
from pathlib import Path

import torch

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
import common
import gan_mnist_mlp
from explore_latent import parse_seeds

NOBODY = -1.0  # in a table of numbers: there was no such image at this step


def share_real(D, images):
    """The share of the images (N, 1, 28, 28) that D calls real, or NOBODY where N is 0."""
    if len(images) == 0:
        return torch.tensor(NOBODY)
    return gan_mnist_mlp.share_called_real(D, images)


class WiderObserver(gan_mnist_mlp.Observer):
    """The script's observer, with six more columns in modes.csv: shares that D calls real.

    zeros_same, zeros_other   MNIST's 980 test zeros, in no training set: those nearest to the
                              dominant mode, and the others
    earlier                   G's samples of earlier rows, when another mode was dominant (alike,
                              and no noise)
    ago_500                   G's samples of 500 steps ago
    noise                     200 images of uniform noise in [-1, 1]
    inverted                  200 test zeros with black and white exchanged
    """

    data = None  # the folder of MNIST, set below

    def __init__(self, images, other_digits, latent_dim, device):
        super().__init__(images, other_digits, latent_dim, device)
        every, labels = common.load_mnist(self.data, "mnist", test=True)
        self.test_zeros = common.to_float(every[60_000:][labels[60_000:] == 0])
        self.test_mode = torch.cdist(self.test_zeros.flatten(1), self.centres).argmin(dim=1)
        own = torch.Generator().manual_seed(1)
        self.noise = torch.rand(200, 1, 28, 28, generator=own) * 2 - 1
        self.history = []  # of each row: samples, their mode, whether they were alike and zeros

    def measure_after_G_has_learned(self, step, G, D):
        self.D = D
        super().measure_after_G_has_learned(step, G, D)

    def describe(self, fake):
        row = super().describe(fake)
        D = self.D
        samples = fake[:50]
        mode = int(row["dominant_mode"])
        alike = row["spread"] < gan_mnist_mlp.NARROW and row["distance"] <= gan_mnist_mlp.NOISE
        earlier = [old for old, old_mode, old_alike in self.history
                   if old_alike and old_mode != mode]
        earlier = torch.cat(earlier) if earlier else samples[:0]
        ago_500 = self.history[-10][0] if len(self.history) >= 10 else samples[:0]
        row["zeros_same"] = share_real(D, self.test_zeros[self.test_mode == mode])
        row["zeros_other"] = share_real(D, self.test_zeros[self.test_mode != mode])
        row["earlier"] = share_real(D, earlier)
        row["ago_500"] = share_real(D, ago_500)
        row["noise"] = share_real(D, self.noise)
        row["inverted"] = share_real(D, -self.test_zeros[:200])
        self.history.append((samples, mode, bool(alike)))
        return row


def mean_of(table, column, rows):
    """The mean of a column over the chosen rows, in percent, without the rows that have none."""
    values = table[column][rows]
    values = values[values != NOBODY]
    return f"{100 * values.mean():.1f}" if len(values) else "-"


def visits_of(modes, shares):
    """The modes in turn, as (mode, largest share of the samples while it was dominant)."""
    visits = []
    for mode, share in zip(modes.astype(int), shares):
        if visits and visits[-1][0] == mode:
            visits[-1] = (mode, max(share, visits[-1][1]))
        else:
            visits.append((mode, share))
    return visits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data")
    parser.add_argument("--seeds", default="0-9")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--runs", default="runs")
    args = parser.parse_args()
    WiderObserver.data = args.data
    gan_mnist_mlp.Observer = WiderObserver

    tables = {}
    for seed in parse_seeds(args.seeds):
        out = Path(args.runs, f"cycling-{seed}")
        if not out.exists():
            gan_mnist_mlp.main(["--data", args.data, "--epochs", str(args.epochs),
                                "--seed", str(seed), "--out", str(out)])
        tables[seed] = common.read_csv(out / "modes.csv")

    print("\nModes in turn: in brackets those that never had 90% of the samples. Firm returns: to a "
          "mode\nthat had 90% before, and has them again.\n")
    print("| seed | alike, steps | modes in turn | changes of mode | returns | firm returns "
          "| right answers of D |")
    print("|---|---|---|---|---|---|---|")
    for seed, table in tables.items():
        alike = gan_mnist_mlp.phases(table) == "alike"
        steps = table["step"][alike]
        visits = visits_of(table["dominant_mode"][alike], table["dominant_share"][alike])
        returns = sum(mode in [old for old, _ in visits[:i]]
                      for i, (mode, _) in enumerate(visits))
        firm = [mode for mode, share in visits if share >= 0.9]
        firm_returns = sum(mode in firm[:i] for i, mode in enumerate(firm))
        story = " ".join(f"{mode}" if share >= 0.9 else f"({mode})" for mode, share in visits)
        right = (table["acc_real"][alike] + 1 - table["fooled_after"][alike]).mean() / 2
        print(f"| {seed} | {steps[0]:.0f} to {steps[-1]:.0f} | {story} | "
              f"{len(gan_mnist_mlp.mode_changes(table))} | {returns} | {firm_returns} | {right:.2%} |")

    columns = ["fooled_after", "acc_real", "zeros_same", "zeros_other", "d_other", "earlier",
               "ago_500", "noise", "inverted"]
    print("\nPercent that D calls real, mean over the rows while the samples are alike:\n")
    print("| seed |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for seed, table in tables.items():
        alike = gan_mnist_mlp.phases(table) == "alike"
        print(f"| {seed} |", " | ".join(mean_of(table, name, alike) for name in columns), "|")


if __name__ == "__main__":
    main()
