"""The MLP GAN on MNIST zeros: it collapses on one mode (a way to write 0), hops, and recovers.

Source    "GAN-PyTorch", vhakopian's report on Goodfellow et al. 2014 (arXiv:1406.2661): small
          perceptrons, plain SGD
Run       python gan_mnist_mlp.py                      the report's recipe; downloads MNIST (11 MB)
          python gan_mnist_mlp.py --dataset toy        zeros drawn by code, nothing to download
          python gan_mnist_mlp.py --lr-d 0.0005 --epochs 100    a slow D: it cycles to the end
          python gan_mnist_mlp.py --g-loss saturating --epochs 20          the minimax formula
Look at   modes.png (which way to write a zero G draws, over time), samples/, training.gif
Notation  z: noise (B, latent_dim). G(z): images (B, 1, 28, 28) in [-1, 1]. D(x): the probability
          that x is real, as in the papers. In the code D returns logits (B,), the numbers whose
          sigmoid is D(x). B: --batch-size, the real images in a step; D sees as many fakes too.
"""
import itertools
import time

import numpy
import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["mnist", "fashion", "toy"],
                                    epochs=250, batch_size=16, seed=0)
    add = parser.add_argument
    add("--digit", default="0", choices=[*"0123456789", "all"], help="the class (the report: 0)")
    add("--lr-g", type=float, default=0.001, help="SGD rate of G (the report)")
    add("--lr-d", type=float, default=0.05, help="SGD rate of D (the report): 50 times G's")
    add("--g-loss", default="nonsaturating", choices=["nonsaturating", "saturating"],
        help="-log D(G(z)), as the report trains, or log(1 - D(G(z))), its formula")
    return common.parse(parser, argv)


def load_images(args):
    """The images of one class: uint8 (N, 1, 28, 28). MNIST has 5,923 zeros."""
    if args.dataset == "toy":
        if args.digit != "0":
            common.fail(f"--digit {args.digit}: the toy dataset has only zeros")
        import toy_images
        images = toy_images.zeros()
    else:
        images, labels = common.load_mnist(args.data, args.dataset)
        images = images if args.digit == "all" else images[labels == int(args.digit)]
    if len(images[:args.limit]) <= MODES:  # each would be a mode of its own
        common.fail(f"--limit {args.limit}: too few images for {MODES} modes")
    return images[:args.limit]


# ---------------------------------------------------------------------------------- the two players
class Generator(nn.Module):
    """z (B, latent_dim) -> images (B, 1, 28, 28) in [-1, 1]."""

    def __init__(self, latent_dim=64, hidden=(128, 512)):  # comments: one image's shapes
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, hidden[0]), nn.LeakyReLU(0.01),  # (64,) -> (128,)
            nn.Linear(hidden[0], hidden[1]), nn.LeakyReLU(0.01),  # (128,) -> (512,)
            nn.Linear(hidden[1], 28 * 28), nn.Tanh(),  # (512,) -> (784,)
            nn.Unflatten(1, (1, 28, 28)),  # (784,) -> (1, 28, 28)
        )

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). No sigmoid: the loss has it, and never
    takes log 0."""

    def __init__(self, hidden=256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),  # (1, 28, 28) -> (784,)
            nn.Linear(28 * 28, hidden), nn.LeakyReLU(0.01),  # (784,) -> (256,)
            nn.Linear(hidden, 1), nn.Flatten(0),  # (256,) -> (): one logit
        )

    def forward(self, x):
        return self.layers(x)


# ------------------------------------------------------------------------------------ their updates
def step_D(D, opt_D, real, fake):
    """Teach D to tell real from fake: minimise  -1/2 [log D(x) + log(1 - D(G(z)))].

    real, fake: (B, 1, 28, 28) in [-1, 1]; fake without the graph that leads back to G. Returns the
    loss and D's mean probability on the reals and on the fakes, as tensors.
    """
    # binary cross-entropy, its sigmoid included: label 1 gives -log D, label 0 gives -log(1 - D)
    logits = D(torch.cat([real, fake]))  # one batch, as in the report; a D with BatchNorm needs two
    labels = torch.ones_like(logits)
    labels[len(real):] = 0
    loss_D = F.binary_cross_entropy_with_logits(logits, labels)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    d_real, d_fake = (part.detach().sigmoid().mean() for part in logits.split(len(real)))
    return loss_D.detach(), d_real, d_fake


def step_G(G, D, opt_G, fake, g_loss):
    """Teach G to fool the D that has just been improved: minimise  -log D(G(z)).

    fake: (B, 1, 28, 28) in [-1, 1], with the graph that leads back to G. Returns the loss.
    """
    logits = D(fake)
    if g_loss == "saturating":  # log(1 - D(G(z))), as the report prints it: where D is sure of a
        # fake, its gradient at D's logit vanishes (Goodfellow et al. 2014, section 3)
        loss_G = -F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    else:  # this one's gradient does not vanish there; what the report's code does
        loss_G = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # through D, but only G receives a gradient
    opt_G.step()
    return loss_G.detach()


def save_samples(path, G, fixed_z):
    """Pictures from the fixed noise. In eval mode, with BatchNorm's running statistics, no picture
    depends on the others of its batch; G goes back to training mode."""
    G.eval()
    with torch.no_grad():
        common.save_grid(path, G(fixed_z))
    G.train()


READING_KEY = """How to read the losses: loss_d = (loss on reals + loss on fakes) / 2.
  0.693 = log 2    D cannot tell fakes from reals: it has learned nothing yet, or G has won
  near 0           D is always right: G's samples are easy to spot, as in a collapse
  slowly rising    after it was near 0: G gets better at fooling D, which is what we want"""


# ----------------------------------------------------------------------------------------- the game
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    images = common.hold(load_images(args), args.batch_size, device)
    torch.manual_seed(args.seed)  # the fixed noise and the first weights depend on it
    latent_dim = 64
    fixed_z = torch.randn(64, latent_dim).to(device)
    G, D = Generator(latent_dim), Discriminator()
    for net in (G, D):  # with PyTorch's own initialisation, as in the report's code
        common.place(net, device, args.precision)
    opt_G = torch.optim.SGD(G.parameters(), args.lr_g)
    opt_D = torch.optim.SGD(D.parameters(), args.lr_d)
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}  # what a resume restores
    generator = {"class": type(G).__name__, "latent_dim": latent_dim}  # how to build G again
    step = first_epoch = 0

    out = common.open_run(args, device, images, G, D)
    if saved:  # --resume: all as it was at the end of the last finished epoch
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, first_epoch, fixed_z = saved["step"], saved["epoch"], saved["fixed_z"].to(device)
        common.keep_rows(out / "losses.csv", step)
        common.keep_rows(out / "modes.csv", step // LOOK_EVERY)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:64]))
        save_samples(out / "samples/step_000000.png", G, fixed_z)
    # after a resume too: the flags typed now hold from now on
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch)
    observer = Observer(images, load_others(args), latent_dim, device)
    print(READING_KEY, flush=True)

    for epoch in range(first_epoch, args.epochs):
        torch.manual_seed(1_000_000 * args.seed + epoch + 1)  # a resume draws the same numbers
        start, rows, looks = time.perf_counter(), [], []
        for batch in common.shuffled_batches(images, args.batch_size, epoch, args.epochs):
            step += 1
            real = common.to_float(images[batch].to(device))
            # (1) D: tell the reals from as many fakes
            with torch.no_grad():  # only D learns here, so G needs no graph
                fake = G(torch.randn(len(real), latent_dim, device=device))
            loss_D, d_real, d_fake = step_D(D, opt_D, real, fake)
            # (the observer, which changes nothing, looks between the updates and after them)
            before = observer.fooled(G, D) if step % LOOK_EVERY == 0 else None
            # (2) G: fool the improved D with fresh fakes
            fake = G(torch.randn(len(real), latent_dim, device=device))
            loss_G = step_G(G, D, opt_G, fake, args.g_loss)
            if step % LOOK_EVERY == 0:
                common.add_row(looks, step=step, fooled_before=before, **observer.look(G, D))
            common.add_row(rows, step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G,
                           d_real=d_real, d_fake=d_fake)  # as tensors: .item() makes a GPU wait

        means = common.append_rows(out / "losses.csv", rows)
        if looks:
            common.append_rows(out / "modes.csv", looks)
        save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)
        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{args.epochs}, step {step}: {means}, "
              f"{len(rows) * args.batch_size / seconds:,.0f} images/s, "
              f"{(args.epochs - epoch - 1) * seconds / 60:.1f} min left", flush=True)

    common.draw_run(out)  # losses.png and training.gif
    if step >= LOOK_EVERY:
        table = common.read_csv(out / "modes.csv")
        draw_modes(out / "modes.png", table, observer.centres)
        print_story(table)


# ------------------------------------------------------------------------------------- the observer
LOOK_EVERY = 50  # steps
MODES = 10  # ways to write the digit that we tell apart: clusters of the real images
NOISE = 1.3  # distance above which samples are no digits: of the real zeros 95% are nearer
NARROW = 0.25  # spread below which they are alike: 0.14 to 0.19 until they leave the collapse
WIDE = 0.7  # spread from which on they are varied: 1 is that of the reals; runs end at 0.8 to 0.9
COLOURS = {"noise": "0.8", "alike": "tab:red", "spreading": "gold", "spread out": "tab:green"}


def load_others(args):
    """200 images of other digits, uint8 (200, 1, 28, 28), or None where there are none."""
    if args.dataset == "toy" or args.digit == "all":
        return None
    images, labels = common.load_mnist(args.data, args.dataset)
    return images[labels != int(args.digit)][:200]


def kmeans(x, iterations=30):
    """Lloyd's algorithm on x (N, F). Returns the centres (MODES, F), the largest clusters first."""
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:MODES]]
    for _ in range(iterations):
        member = F.one_hot(torch.cdist(x, centres).argmin(dim=1), MODES).float()
        centres = (member.T @ x) / member.sum(dim=0).clamp(min=1).unsqueeze(1)  # one may be empty
    return centres[member.sum(dim=0).argsort(descending=True)]


def assign_modes(images, centres):
    """The share of the images (N, ...) that is nearest to each centre, (MODES,), and the mean
    distance to the nearest one, Euclid's over the pixels."""
    distance, mode = torch.cdist(images.flatten(1), centres).min(dim=1)
    shares = (mode.unsqueeze(1) == torch.arange(MODES, device=mode.device)).float().mean(dim=0)
    return shares, distance.mean()


def mean_distance(images):
    """The mean distance between two different images of (N, ...)."""
    x = images.flatten(1)
    return torch.pdist(x.cpu() if x.device.type == "mps" else x).mean()  # MPS has no pdist


class Observer:
    """Measures how varied the samples are, which modes of the reals they hit, whether they fool D:
    on the same 200 z and 200 reals at every look, drawn with a random generator of its own. (With
    Dropout or BatchNorm added, call it with the nets in eval mode, or the training changes.)"""

    def __init__(self, images, others, latent_dim, device):
        x, own = common.to_float(images.cpu()), torch.Generator().manual_seed(0)
        centres = kmeans(x.flatten(1))  # on the CPU: in TF32 the modes would get other numbers
        self.real_shares, self.real_distance = (
            value.to(device) for value in assign_modes(x, centres))
        self.z = torch.randn(200, latent_dim, generator=own).to(device)
        self.real = x[torch.randperm(len(x), generator=own)[:200]].to(device)
        self.real_spread, self.centres = mean_distance(self.real), centres.to(device)
        self.others = None if others is None else common.to_float(others).to(device)

    def measure(self, fake):
        """What modes.csv says of samples (N, 1, 28, 28), as tensors.

        spread: mean distance between two samples over that between two reals: 1 is as varied as
        the reals, 0 one picture. distance: to the nearest mode, over that of the reals: 1 is as
        near as they are. modes_covered: those with at least a fifth of their share of the reals.
        std: what the report's code prints, the mean over the pixels of their standard deviation.
        """
        shares, distance = assign_modes(fake, self.centres)
        return {"spread": mean_distance(fake) / self.real_spread,
                "distance": distance / self.real_distance, "std": fake.std(dim=0).mean(),
                "dominant_mode": shares.argmax(), "dominant_share": shares.max(),
                "modes_covered": (shares >= self.real_shares / 5).sum(),
                **{f"share_{i}": share for i, share in enumerate(shares)}}

    @torch.no_grad()
    def fooled(self, G, D):
        """The share of the samples that D takes for real."""
        return (D(G(self.z)) > 0).float().mean()

    @torch.no_grad()
    def look(self, G, D):
        """A row of modes.csv: the shares of "real" in D's answers to the samples, to the reals and
        to images of other digits; and `measure`."""
        row = {"fooled_after": self.fooled(G, D), "acc_real": (D(self.real) > 0).float().mean()}
        if self.others is not None:
            row["d_other"] = (D(self.others) > 0).float().mean()
        return {**row, **self.measure(G(self.z))}


def phases(table):
    """The phase of each look of modes.csv: noise, alike, spreading or spread out."""
    noise, alike = table["distance"] > NOISE, table["spread"] < NARROW
    return numpy.select([noise, alike, table["spread"] < WIDE], list(COLOURS)[:3], "spread out")


def hops(table):
    """The steps at which samples that are alike, as at the look before, have changed their mode."""
    alike, mode = phases(table) == "alike", table["dominant_mode"]
    return table["step"][1:][alike[1:] & alike[:-1] & (mode[1:] != mode[:-1])]


def print_story(table):
    """Say in words what modes.csv shows."""
    phase, end = phases(table), table[-1]
    for name in [name for name in COLOURS if name in phase]:
        steps = table["step"][phase == name]
        print(f"{name}: {len(steps)} looks, steps {steps[0]:,.0f} to {steps[-1]:,.0f}")
    visits = itertools.groupby(table["dominant_mode"][phase == "alike"])
    modes = ", ".join(f"{mode:.0f}" for mode, _ in visits)
    print(f"while alike: {len(hops(table))} hops; mode {modes or 'none'}")
    print(f"at the end: {phase[-1]}; spread {end['spread']:.3f}, std {end['std']:.3f}, "
          f"{end['modes_covered']:.0f} of {MODES} modes, {end['dominant_share']:.0%} in one")


def draw_modes(path, table, centres):
    """Draw modes.csv: the phases, the modes over time beside their centres, spread, who fools D."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    grid = figure.add_gridspec(4, 2, width_ratios=[1, 24], height_ratios=[1, 10, 5, 5])
    band = figure.add_subplot(grid[0, 1])
    shares, spread, fooled = (figure.add_subplot(grid[i, 1], sharex=band) for i in (1, 2, 3))
    steps = table["step"]
    for name, colour in COLOURS.items():
        band.fill_between(steps, 0, 1, phases(table) == name, color=colour, step="mid", label=name)
    band.set_axis_off()
    band.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    shares.pcolormesh(steps, range(MODES), [table[f"share_{i}"] for i in range(MODES)],
                      cmap="gray_r", vmin=0, vmax=1)
    shares.set(ylabel="mode (black: all samples)", yticks=range(MODES), ylim=(MODES - 0.5, -0.5))
    pictures = figure.add_subplot(grid[1, 0])
    pictures.imshow(centres.view(-1, 28).cpu().numpy(), cmap="gray_r", aspect="auto")
    pictures.set_axis_off()
    for ax, kinds in [(spread, "distance spread"), (fooled, "d_other fooled_after fooled_before")]:
        for name in sorted(set(kinds.split()) & set(table.dtype.names)):
            ax.plot(steps, table[name], label=name, linewidth=1)
        ax.legend(loc="center right")
    fooled.set(xlabel="step", ylabel="share that D calls real")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    common.launch(main)
