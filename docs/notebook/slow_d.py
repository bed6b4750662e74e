"""The zeros with five rates of D: how slow must D be for a collapse that lasts, and for cycling?

The report: mode collapse "is often caused by a 'bad' discriminator", and "the generator cycles
between different modes". Its D has a rate of 0.05. Each run here goes on until it has left the
collapse (in its last 20 epochs no row is alike), or for --epochs.

Run from the project's root, with MNIST in data/:
    OMP_NUM_THREADS=1 python docs/notebook/slow_d.py --rates 0.05,0.015,0.005,0.0015,0.0005
    OMP_NUM_THREADS=1 python docs/notebook/slow_d.py --rates 0.0005 --seeds 0 --epochs 500
It trains with gan_mnist_mlp.py, into runs/slow-d-RATE-SEED; a run that is there goes on.
"""
import argparse
import sys
from pathlib import Path

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
import common
import gan_mnist_mlp
from explore_latent import parse_seeds

PART = 20  # epochs between two checks


def train(rate, seed, args):
    """Train in parts of 20 epochs. Returns modes.csv and the number of epochs."""
    out = Path(args.runs, f"slow-d-{rate}-{seed}")
    epochs = 0
    if out.exists():
        epochs = common.load_checkpoint(out / "checkpoint.pt")["epoch"]
    while epochs < args.epochs:
        where = ["--resume", str(out)]
        if epochs == 0:
            where = ["--lr-d", rate, "--seed", str(seed), "--out", str(out)]
        if epochs > 0 and has_left(out):
            break
        epochs += PART
        gan_mnist_mlp.main(["--data", args.data, "--epochs", str(epochs), *where])
    return common.read_csv(out / "modes.csv"), epochs


def has_left(out):
    """Whether the last 20 epochs have no row that is alike, and end with no noise."""
    table = common.read_csv(out / "modes.csv")
    phase = gan_mnist_mlp.phases(table)
    last = phase[table["step"] > table["step"][-1] - PART * 370]
    return "alike" not in last and phase[-1] != "noise"


def percent(values):
    return f"{100 * values.mean():.2f}%" if len(values) else "-"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data")
    parser.add_argument("--rates", default="0.05,0.015,0.005,0.0015,0.0005")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--epochs", type=int, default=60, help="a multiple of 20")
    parser.add_argument("--runs", default="runs")
    args = parser.parse_args()

    lines = []
    for seed in parse_seeds(args.seeds):
        for rate in args.rates.split(","):
            table, epochs = train(rate, seed, args)
            phase = gan_mnist_mlp.phases(table)
            alike = phase == "alike"
            steps, modes = table["step"][alike], table["dominant_mode"][alike].astype(int)
            visits = [mode for i, mode in enumerate(modes) if i == 0 or mode != modes[i - 1]]
            returns = sum(mode in visits[:i] for i, mode in enumerate(visits))
            changes = gan_mnist_mlp.mode_changes(table)
            interval = f"{steps[0]:.0f} to {steps[-1]:.0f}" if len(steps) else "-"
            fooled = table["fooled_after"][alike]
            wrong = (table["fooled_after"] + 1 - table["acc_real"])[alike] / 2
            counts = " / ".join(str((phase == name).sum()) for name in gan_mnist_mlp.COLOURS)
            lines.append(f"| {rate} | {seed} | {epochs} | {counts} | {interval} | {len(changes)} | "
                         f"{returns} | {percent(fooled)} | {percent(1 - wrong)} | "
                         f"{table['spread'][-20:].mean():.3f} | "
                         f"{table['distance'][-20:].mean():.2f} |")
            print(lines[-1], flush=True)

    print(f"\nRows of modes.csv: {' / '.join(gan_mnist_mlp.COLOURS)}. Returns: changes of the dominant mode, "
          "while alike, to one that was dominant before.\n")
    print("| rate of D | seed | epochs | rows | alike, steps | changes of mode | returns | fool D while alike "
          "| D right while alike | spread, end | distance, end |")
    print("|---" * 11 + "|")
    print("\n".join(sorted(lines, key=lambda line: -float(line.split()[1]))))


if __name__ == "__main__":
    main()
