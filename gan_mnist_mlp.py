"""The MLP GAN on MNIST zeros: watch it collapse on one mode, cycle from mode to mode, then spread out over all of them.

Source    "GAN-PyTorch", vhakopian's report on Goodfellow et al. 2014 (arXiv:1406.2661): small perceptrons, plain SGD.
Run       python gan_mnist_mlp.py                          the report's recipe; downloads MNIST (11 MB)
          python gan_mnist_mlp.py --dataset toy            zeros drawn by code, nothing to download
          python gan_mnist_mlp.py --lr-g 0.05 --lr-d 0.01 --epochs 25        a generator too fast: it collapses for good
Look at   modes.png (which way to write a zero G draws, over time), samples/, training.gif, losses.png in the run
Notation  z: noise (B, latent_dim). G(z): images (B, 1, 28, 28) in [-1, 1]. D(x): the probability that x is real, as
          in the papers; in the code D returns its logits (B,), for the losses' sake. B: --batch-size, the real images
          in a step; D sees as many fakes beside them.
"""
import itertools

import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, datasets=["mnist", "fashion", "toy"],
                                    epochs=250, batch_size=16, seed=0)
    parser.add_argument("--digit", default="0", choices=[*"0123456789", "all"], help="class to learn (the report: 0)")
    parser.add_argument("--lr-g", type=float, default=0.001, help="SGD rate of G (the report's code)")
    parser.add_argument("--lr-d", type=float, default=0.05, help="SGD rate of D (the report's code): 50 times G's")
    return common.parse(parser, argv)


def load_images(args):
    """The images of one class: uint8 (N, 1, 28, 28). MNIST has 5,923 zeros."""
    if args.dataset == "toy":
        if args.digit != "0":
            common.fail(f"--digit {args.digit}: the toy dataset has only zeros")
        images = common.toy_zeros()
    else:
        images, labels = common.load_mnist(args.data, args.dataset)
        if args.digit != "all":
            images = images[labels == int(args.digit)]
    images = images[:args.limit]
    if len(images) < MODES:
        common.fail(f"{len(images)} images are too few for {MODES} modes")
    return images


# -------------------------------------------------------------------------------------------- the two players
class Generator(nn.Module):
    """z (B, latent_dim) -> images (B, 1, 28, 28) in [-1, 1]."""

    def __init__(self, latent_dim=64, hidden=(128, 512)):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden[0]), nn.LeakyReLU(0.01),
            nn.Linear(hidden[0], hidden[1]), nn.LeakyReLU(0.01),
            nn.Linear(hidden[1], 28 * 28), nn.Tanh(),
            nn.Unflatten(1, (1, 28, 28)),
        )

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). No sigmoid: on logits the loss cannot overflow."""

    def __init__(self, hidden=256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, hidden), nn.LeakyReLU(0.01),
            nn.Linear(hidden, 1), nn.Flatten(0),
        )

    def forward(self, x):
        return self.layers(x)


def step_D(G, D, opt_D, real, z):
    """Teach D to tell real from fake: minimise  -1/2 [log D(x) + log(1 - D(G(z)))].

    real: (B, 1, 28, 28) in [-1, 1]; z: (B, latent_dim). Returns the loss and D's mean probability on the reals and on
    the fakes, as tensors.
    """
    with torch.no_grad():  # only D learns here, so G needs no graph
        fake = G(z)
    logits = D(torch.cat([real, fake]))  # one batch, as in the report; with BatchNorm it would have to be two
    labels = torch.ones_like(logits)
    labels[len(real):] = 0
    loss_D = F.binary_cross_entropy_with_logits(logits, labels)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    probability = logits.detach().sigmoid()
    return loss_D.detach(), probability[:len(real)].mean(), probability[len(real):].mean()


def step_G(G, D, opt_G, z):
    """Teach G to fool the D that has just been improved: minimise  -log D(G(z)).

    z: (B, latent_dim). Returns the loss, as a tensor.
    """
    logits = D(G(z))
    # The report prints "minimize log(1 - D(G(z)))", its code does this, and so do we: where D is sure of a fake, the
    # printed loss is flat and G learns nothing, while this one is steep (Goodfellow et al. 2014, section 3).
    loss_G = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # the gradient flows through D, but only G receives it
    opt_G.step()
    return loss_G.detach()


# ----------------------------------------------------------------------------------------------- the observer
OBSERVE_EVERY = 50  # steps
MODES = 10  # ways to write the digit that we tell apart
NARROW = 0.25  # spread ratio below which the samples are all alike: 0.14 to 0.19 at the beginning, 0.08 in a collapse
WIDE = 0.7  # spread ratio from which on the samples are about as varied as the reals, which have 1
SETTLED = 1000  # steps without a hop after which a generator that cycled counts as collapsed again


def kmeans(x, k=MODES, iterations=30):
    """Lloyd's algorithm on x (N, F). Returns the k centres (k, F), that of the largest cluster first."""
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:k].to(x.device)]
    for _ in range(iterations):
        member = F.one_hot(torch.cdist(x, centres).argmin(dim=1), k).to(x.dtype)
        centres = (member.T @ x) / member.sum(dim=0).clamp(min=1).unsqueeze(1)
    return centres[member.sum(dim=0).argsort(descending=True)]


def mean_distance(images):
    """The mean distance between two different images of (N, ...), in Euclid's norm over their pixels."""
    x = images.flatten(1)  # the quick way to all distances, by a matrix product, is inexact just where images are alike
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum() / (len(x) * (len(x) - 1))


class Observer:
    """Measures how varied the samples are and which modes of the real images they hit. Training is the same without it:
    it looks at the same 200 z and 200 reals every time, chosen with a random generator of its own.

    The modes are ten k-means clusters of the real images; a sample belongs to the one with the nearest centre.
    """

    def __init__(self, images, latent_dim):
        x = common.to_float(images).flatten(1)
        own = torch.Generator().manual_seed(0)
        self.z = torch.randn(200, latent_dim, generator=own).to(x.device)
        self.real = common.to_float(images[torch.randperm(len(x), generator=own)[:200].to(x.device)])
        self.real_spread = mean_distance(self.real)
        self.centres = kmeans(x)
        self.real_shares = self.shares(x)

    def shares(self, x):
        """The share of the images x (B, 784) in each mode: (10,), sums to 1."""
        return torch.bincount(torch.cdist(x, self.centres).argmin(dim=1), minlength=MODES) / len(x)

    def measure(self, fake, logits_real, logits_fake):
        """A row of modes.csv, as a dict of tensors, from samples (B, 1, 28, 28) and D's logits for reals and for them.

        spread: mean distance between two samples over that between two reals: 1 is as varied as the reals, 0 one picture.
        std: the report's own number, the standard deviation of a pixel over the samples, averaged over the pixels.
        modes_covered: modes that have at least a fifth of the share that they have among the reals.
        acc_real, acc_fake: the share of the reals and of the fakes that D takes for what they are.
        """
        shares = self.shares(fake.flatten(1))
        return {"spread": mean_distance(fake) / self.real_spread, "std": fake.std(dim=0).mean(),
                "dominant_mode": shares.argmax(), "dominant_share": shares.max(),
                "modes_covered": (shares >= self.real_shares / 5).sum(),
                "acc_real": (logits_real > 0).float().mean(), "acc_fake": (logits_fake < 0).float().mean(),
                **{f"share_{i}": share for i, share in enumerate(shares)}}

    @torch.no_grad()
    def __call__(self, G, D):
        fake = G(self.z)
        return self.measure(fake, D(self.real), D(fake))


def find_phases(steps, spread, modes):
    """Cut a run into phases: a list of (name, first step, last step, the modes that dominated, in order).

    steps, spread, modes: columns of modes.csv, an item an observation; modes has the dominant ones.

    collapsed: the samples are alike, and stay in one mode. cycling: they are alike, but the mode moves; lasts from the
    first hop to the last one, or on to the end when less than SETTLED steps are left. spreading: in between.
    spread out: varied.
    """
    labels, label = [], None
    for value in spread:
        stays = (label == "alike" and value < NARROW + 0.1) or (label == "spread out" and value >= WIDE - 0.1)
        if not stays:  # a phase ends only when the spread has passed its threshold by 0.1: noise alone ends none
            label = "alike" if value < NARROW else "spread out" if value >= WIDE else "spreading"
        labels.append(label)
    phases = []
    for label, rows in itertools.groupby(range(len(labels)), labels.__getitem__):
        rows = list(rows)
        first, last = rows[0], rows[-1]
        hops = [i for i in range(first + 1, last + 1) if modes[i] != modes[i - 1]]
        if label != "alike":
            phases.append((label, first, last))
        elif not hops:
            phases.append(("collapsed", first, last))
        else:
            settled = steps[last] - steps[hops[-1]] >= SETTLED
            end = hops[-1] if settled else last + 1
            phases += [("collapsed", first, hops[0] - 1), ("cycling", hops[0], end - 1), ("collapsed", end, last)]
    return [(name, int(steps[first]), int(steps[last]),
             [int(mode) for mode, _ in itertools.groupby(modes[first:last + 1])])
            for name, first, last in phases if first <= last]


def print_phases(table):
    """Say in words what modes.csv shows."""
    print("\nPhases, from the spread of the samples (1: as varied as the reals) and the mode that most of them hit:")
    phases = find_phases(table["step"], table["spread"], table["dominant_mode"])
    for name, first, last, modes in phases:
        hops = ", ".join(map(str, modes[:12])) + (", ..." if len(modes) > 12 else "")
        words = {"collapsed": f"collapsed on mode {modes[0]}", "cycling": f"cycling from mode to mode: {hops}",
                 "spreading": "spreading out", "spread out": "spread out over the modes"}
        print(f"  steps {first:6,} to {last:6,}: {words[name]}")
    end = {name: column[-1] for name, column in table.items()}
    verdicts = {"spreading": "spreading out", "spread out": "spread out"}
    verdict = verdicts.get(phases[-1][0], "collapse, the samples are all alike")
    print(f"Verdict at the end: {verdict}. Spread ratio {end['spread']:.3f}, std {end['std']:.3f}, "
          f"{end['dominant_share']:.0%} of the samples in mode {end['dominant_mode']:.0f}, "
          f"{end['modes_covered']:.0f} of {MODES} modes covered.")


def plot_modes(path, table, centres):
    """Draw modes.csv: the share of each mode over time, the centres of the modes beside it, spread and accuracy below.

    Collapse is one dark line, cycling a line that jumps, health a grey block.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 24], height_ratios=[2, 1])
    pictures, shares, curves = (figure.add_subplot(grid[cell]) for cell in [(0, 0), (0, 1), (1, 1)])
    pictures.imshow(centres.view(-1, 28).cpu().numpy(), cmap="gray_r", aspect="auto")
    pictures.set_axis_off()
    steps = table["step"]
    box = (steps[0] - OBSERVE_EVERY / 2, steps[-1] + OBSERVE_EVERY / 2, MODES - 0.5, -0.5)
    shares.imshow([table[f"share_{i}"] for i in range(MODES)], cmap="gray_r", vmin=0, vmax=1, aspect="auto",
                  interpolation="nearest", extent=box)
    shares.set(title="share of the samples in each mode: white 0, black 1", ylabel="mode", yticks=range(MODES))
    curves.sharex(shares)
    for name, label in [("spread", "spread ratio"), ("acc_real", "D's accuracy on reals"), ("acc_fake", "on fakes")]:
        curves.plot(steps, table[name], label=label, linewidth=1)
    curves.set(xlabel="step", ylim=(-0.05, 1.05))
    curves.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    with common.replacing(path) as file:
        figure.savefig(file, dpi=100)


# --------------------------------------------------------------------------------------------------- the game
READING_KEY = """How to read the losses: loss_d is a mean over reals and fakes.
  0.693 = log 2    D cannot tell fakes from reals: it has learned nothing yet, or G has won
  near 0           D is always right; G's samples are easy to spot, as in a collapse
  slowly rising    after it was near 0: G gets better at fooling D, which is what we want"""


def main(argv=None):
    args, saved = parse_args(argv)
    device = common.setup(args)
    images = load_images(args)
    latent_dim = 64
    G, D = Generator(latent_dim), Discriminator()
    for net in (G, D):  # with PyTorch's own initialisation, as in the report's code
        common.place(net, device, args.precision)
    opt_G = torch.optim.SGD(G.parameters(), lr=args.lr_g)
    opt_D = torch.optim.SGD(D.parameters(), lr=args.lr_d)
    run = common.Run(args, saved, images, G, D, opt_G, opt_D, generator={"latent_dim": latent_dim},
                     tables=["modes.csv"])
    observer = Observer(run.images, latent_dim)
    print(READING_KEY, flush=True)

    for real in run.minibatches():
        # (1) D: tell the reals from as many fakes
        z = torch.randn(len(real), latent_dim, device=device)
        loss_D, d_real, d_fake = step_D(G, D, opt_D, real, z)
        # (2) G: fool D, with fresh noise
        z = torch.randn(len(real), latent_dim, device=device)
        loss_G = step_G(G, D, opt_G, z)
        run.log(loss_d=loss_D, loss_g=loss_G, d_real=d_real, d_fake=d_fake)
        if run.step % OBSERVE_EVERY == 0:
            run.rows["modes.csv"].append({"step": run.step, **observer(G, D)})

    run.finish()
    if run.step >= OBSERVE_EVERY:
        table = common.read_csv(run.out / "modes.csv")
        plot_modes(run.out / "modes.png", table, observer.centres)
        print_phases(table)


if __name__ == "__main__":
    main()
