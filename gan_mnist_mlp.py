"""An MLP GAN on the zeros of MNIST. For a time all its samples are alike, as in a mode collapse.

Source    "GAN-PyTorch", vhakopian's report on Goodfellow et al. 2014 (arXiv:1406.2661): small
          multilayer perceptrons (MLPs), plain SGD
Run       python gan_mnist_mlp.py                      the report's recipe; downloads MNIST (11 MB)
          python gan_mnist_mlp.py --dataset toy        zeros drawn by code, nothing to download
          python gan_mnist_mlp.py --lr-d 0.0005 --epochs 100     a slow D: no recovery
          python gan_mnist_mlp.py --g-loss saturating --epochs 20     the minimax formula for G
Look at   modes.png (which ways to write a zero G draws, over time), samples/, training.gif
Notation  z: noise (B, latent_dim). G(z): images (B, 1, 28, 28) in [-1, 1]. D(x): the probability
          that x is real, as in the papers. In the code D returns logits (B,), the numbers whose
          sigmoid is D(x). B: --batch-size, the real images in a step; D sees as many fakes too.
"""
import itertools
import math

import numpy
import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["mnist", "fashion", "toy"],
                                    epochs=250, batch_size=16, seed=0, sample_every=0)
    add = parser.add_argument
    add("--digit", default="0", choices=[*"0123456789", "all"],
        help="which class to train on (default: %(default)s, as in the report)")
    add("--lr-g", type=common.positive(float), default=0.001, metavar="RATE",
        help="SGD's learning rate for G (default: %(default)s, as in the report)")
    add("--lr-d", type=common.positive(float), default=0.05, metavar="RATE",
        help="SGD's learning rate for D (default: %(default)s, as in the report: 50 times G's)")
    add("--g-loss", default="nonsaturating", choices=["nonsaturating", "saturating"],
        help="what G minimises: nonsaturating is -log D(G(z)), as in the report's code (the "
             "default); saturating is log(1 - D(G(z))), its printed formula")
    parser.epilog = "The report: GAN-PyTorch, by vhakopian."
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
        if args.digit != "all":
            images = images[labels == int(args.digit)]
    images = images[:args.limit]
    if len(images) <= MODES:  # MODES is defined below, with the measuring
        common.fail(f"--limit {args.limit}: too few images for {MODES} modes")
    return images


# ---------------------------------------------------------------------------------------- the nets
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
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). No sigmoid at the end: the loss
    applies it, and never takes log 0."""

    def __init__(self, hidden=256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),  # (1, 28, 28) -> (784,)
            nn.Linear(28 * 28, hidden), nn.LeakyReLU(0.01),  # (784,) -> (256,)
            nn.Linear(hidden, 1),  # (256,) -> (1,)
        )

    def forward(self, x):
        return self.layers(x).view(len(x))  # (B, 1) -> (B,): one logit for each image


# ------------------------------------------------------------------------------------- the updates
def step_D(D, opt_D, real, fake):
    """Teach D to tell real from fake: minimise  -1/2 [log D(x) + log(1 - D(G(z)))].

    real, fake: images (B, 1, 28, 28) in [-1, 1]; fake is detached: no gradient reaches G.
    Returns the loss, and D's mean probability on the reals and on the fakes, as tensors.
    """
    # One batch, as in the report. A D with BatchNorm would need two, or it would mix the
    # statistics of reals and fakes.
    logits = D(torch.cat([real, fake]))
    labels = torch.ones_like(logits)
    labels[len(real):] = 0
    # this cross-entropy applies the sigmoid; label 1 gives -log D(x), label 0 -log(1 - D(x))
    loss_D = F.binary_cross_entropy_with_logits(logits, labels)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    d_real = logits[:len(real)].detach().sigmoid().mean()
    d_fake = logits[len(real):].detach().sigmoid().mean()
    return loss_D.detach(), d_real, d_fake


def step_G(G, D, opt_G, fake, g_loss):
    """Teach G to fool the updated D: minimise  -log D(G(z)), or log(1 - D(G(z))) if g_loss is
    "saturating".

    fake: images (B, 1, 28, 28) in [-1, 1], not detached: the gradient goes through D back to G.
    Returns the loss, a tensor.
    """
    logits = D(fake)
    if g_loss == "saturating":
        # log(1 - D(G(z))), as the report prints it. Its slope with respect to D's logit is
        # -D(G(z)): near 0 when D is sure of a fake, so G gets hardly any gradient (Goodfellow et
        # al. 2014, section 3)
        loss_G = -F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    else:
        # -log D(G(z)), as in the report's code. Its slope is D(G(z)) - 1: near -1 in that case
        loss_G = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # only G's weights get a gradient, not D's
    opt_G.step()
    return loss_G.detach()


READING_KEY = """How to read the losses: loss_d = (loss on reals + loss on fakes) / 2.
  0.693 = log 2    D cannot tell fakes from reals: it has learned nothing yet, or G has won
  near 0           D is always right: G's samples are easy to spot, as while they are alike
  slowly rising    after it was near 0: D is wrong more often. Do the samples get better, too?"""


# ---------------------------------------------------------------------------------------- training
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    torch.manual_seed(args.seed)  # decides the fixed noise and the initial weights

    images = load_images(args)
    common.check_images(images, args)
    images = common.to_device_if_it_fits(images, device)

    latent_dim = 64
    fixed_z = torch.randn(64, latent_dim).to(device)  # for the pictures, the same all the time
    G = Generator(latent_dim)
    D = Discriminator()
    for net in (G, D):  # PyTorch's default initialization, as in the report's code
        common.prepare(net, device, args.precision)  # moves it to the device

    opt_G = torch.optim.SGD(G.parameters(), args.lr_g)
    opt_D = torch.optim.SGD(D.parameters(), args.lr_d)

    # -- Bookkeeping: the run's folder, --resume, the first checkpoint. Skip it on a first reading.
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}
    # G's class and arguments, so that the tools can build it again
    generator = {"class": type(G).__name__, "latent_dim": latent_dim}
    step = first_epoch = 0
    out = common.open_run(args, device, G, D)
    if saved:  # --resume: restore the state after the last finished epoch
        common.restore(parts, saved)
        step, first_epoch = saved["step"], saved["epoch"]
        fixed_z = saved["fixed_z"].to(device)
        common.cut_run(out, step)
        common.keep_rows(out / "modes.csv", step // MEASURE_EVERY)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:64]))
        common.save_samples(out / "samples/step_000000.png", G, fixed_z)
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch)
    observer = Observer(images, load_other_digits(args), latent_dim, device)
    log = common.Log(out, args, chance_level=math.log(2),
                     draw_more=lambda: draw_modes(out, observer.centres))
    print(READING_KEY, flush=True)
    # -- End of the bookkeeping.

    def train_D(real):
        with torch.no_grad():  # only D learns here
            fake = G(torch.randn(len(real), latent_dim, device=device))
        return step_D(D, opt_D, real, fake)

    def train_G():
        fake = G(torch.randn(args.batch_size, latent_dim, device=device))
        return step_G(G, D, opt_G, fake, args.g_loss)

    if args.cuda_graph:
        import cuda_graph
        train_D = cuda_graph.recorded(train_D, device, [opt_D])
        train_G = cuda_graph.recorded(train_G, device, [opt_G])

    for epoch in range(first_epoch, args.epochs):
        # each epoch has a seed of its own, so a resumed run repeats its epochs exactly
        torch.manual_seed(1_000_000 * args.seed + epoch + 1)
        batches = common.shuffled_batches(images, args.batch_size)
        log.start_epoch(epoch, len(batches))
        for batch in batches:
            step += 1
            real = common.to_float(images[batch].to(device))
            # (1) update D, with the reals and as many fakes
            loss_D, d_real, d_fake = train_D(real)
            if step % MEASURE_EVERY == 0:
                observer.measure_before_G_learns(G, D)
            # (2) update G, with new fakes and the updated D
            loss_G = train_G()
            if step % MEASURE_EVERY == 0:
                observer.measure_after_G_has_learned(step, G, D)
            log.add(step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G, d_real=d_real,
                    d_fake=d_fake)
            if common.picture_is_due(step, len(batches), args.sample_every):
                log.write()  # losses.csv
                observer.write(out / "modes.csv")
                common.save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)

        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1)
        log.end_epoch()

    log.draw()  # losses.png, training.gif and modes.png
    if step >= MEASURE_EVERY:
        print_story(out)


# =================================================================================================
# You have read the whole GAN. The rest only measures it: how varied the samples are, which ways to
# write a zero they show, and whether they fool D. It changes nothing in the training.
# =================================================================================================
MEASURE_EVERY = 50  # steps
MODES = 10  # ways to write the digit that we tell apart: clusters of the real images

# The phases of a run. The thresholds fit the zeros of MNIST: see docs/gan_mnist_mlp.md
NOISE = 1.3  # a larger distance: no digits. 95% of the real zeros have a smaller one
NARROW = 0.25  # a smaller spread: all alike. It is 0.14 to 0.19 then
WIDE = 0.7  # a larger spread: varied. The reals have 1; runs end at 0.8 to 0.9
COLOURS = {"noise": "0.8", "alike": "tab:red", "spreading": "gold", "spread out": "tab:green"}


def load_other_digits(args):
    """200 images of other digits, uint8 (200, 1, 28, 28), or None where there are none."""
    if args.dataset == "toy" or args.digit == "all":
        return None
    images, labels = common.load_mnist(args.data, args.dataset)
    return images[labels != int(args.digit)][:200]


def kmeans(x, iterations=30):
    """Lloyd's algorithm on x (N, F). Returns the centres (MODES, F), the largest clusters first."""
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:MODES]
    centres = x[chosen]
    for _ in range(iterations):
        nearest = torch.cdist(x, centres).argmin(dim=1)
        member = F.one_hot(nearest, MODES).float()  # (N, MODES)
        sizes = member.sum(dim=0)
        centres = (member.T @ x) / sizes.clamp(min=1).unsqueeze(1)  # a cluster may be empty
    return centres[sizes.argsort(descending=True)]


def assign_modes(images, centres):
    """The share of the images (N, ...) that is nearest to each centre, (MODES,), and the mean
    Euclidean distance to the nearest centre."""
    distance, mode = torch.cdist(images.flatten(1), centres).min(dim=1)
    shares = F.one_hot(mode, MODES).float().mean(dim=0)
    return shares, distance.mean()


def mean_distance(images):
    """The mean distance between two different images of (N, ...)."""
    x = images.flatten(1)
    if x.device.type == "mps":  # which has no pdist
        x = x.cpu()
    return torch.pdist(x).mean()


def share_called_real(D, images):
    """The share of the images (N, 1, 28, 28) that D calls real: its logit is above 0."""
    return (D(images) > 0).float().mean()


class Observer:
    """Makes the rows of modes.csv, always from the same 200 z, 200 reals and 200 other digits.

    It draws them with a random generator of its own, so the training is the same without it. (If
    you add Dropout or BatchNorm, call it with the nets in eval mode.)
    """

    def __init__(self, images, other_digits, latent_dim, device):
        x = common.to_float(images.cpu())
        own = torch.Generator().manual_seed(0)
        self.z = torch.randn(200, latent_dim, generator=own).to(device)
        self.real = x[torch.randperm(len(x), generator=own)[:200]].to(device)
        self.real_spread = mean_distance(self.real)
        self.other_digits = None
        if other_digits is not None:
            self.other_digits = common.to_float(other_digits).to(device)
        # on the CPU: with TF32 the modes would get other numbers
        centres = kmeans(x.flatten(1))
        real_shares, real_distance = assign_modes(x, centres)
        self.centres = centres.to(device)
        self.real_shares = real_shares.to(device)
        self.real_distance = real_distance.to(device)
        self.rows = []  # not written yet

    @torch.no_grad()
    def measure_before_G_learns(self, G, D):
        self.fooled_before = share_called_real(D, G(self.z))

    @torch.no_grad()
    def measure_after_G_has_learned(self, step, G, D):
        """Add a row: what D calls real (of the samples, before and after G's update, of the reals,
        of other digits), and `describe`."""
        fake = G(self.z)
        # all four are shares of images with a logit above 0; losses.csv has mean probabilities
        row = {"step": step, "fooled_before": self.fooled_before,
               "fooled_after": share_called_real(D, fake),
               "acc_real": share_called_real(D, self.real)}
        if self.other_digits is not None:
            row["d_other"] = share_called_real(D, self.other_digits)
        common.add_row(self.rows, **row, **self.describe(fake))

    def describe(self, fake):
        """What modes.csv says of samples (N, 1, 28, 28), as tensors.

        spread: the mean distance between two samples, divided by that between two reals: 1 is as
        varied as the reals, 0 is one picture. distance: the mean distance to the nearest mode,
        divided by that of the reals: 1 is as near as they are. std: what the report's code prints,
        the standard deviation of a pixel, averaged over the pixels. modes_covered: how many modes
        have at least a fifth of the share that they have among the reals.
        """
        shares, distance = assign_modes(fake, self.centres)
        row = {"spread": mean_distance(fake) / self.real_spread,
               "distance": distance / self.real_distance,
               "std": fake.std(dim=0).mean(),
               "dominant_mode": shares.argmax(),
               "dominant_share": shares.max(),
               "modes_covered": (shares >= self.real_shares / 5).sum()}
        for i, share in enumerate(shares):
            row[f"share_{i}"] = share
        return row

    def write(self, path):
        """Append the rows so far to modes.csv. There may be none yet: an epoch can be short."""
        if self.rows:
            common.append_rows(path, self.rows)
            self.rows = []


def phases(table):
    """The phase at each row of modes.csv: noise, alike, spreading or spread out."""
    noise = table["distance"] > NOISE
    alike = table["spread"] < NARROW
    spreading = table["spread"] < WIDE
    return numpy.select([noise, alike, spreading], ["noise", "alike", "spreading"], "spread out")


def mode_changes(table):
    """The steps at which the dominant mode changes while the samples are alike, in this row and in
    the row before."""
    alike = phases(table) == "alike"
    mode = table["dominant_mode"]
    changed = alike[1:] & alike[:-1] & (mode[1:] != mode[:-1])
    return table["step"][1:][changed]


def print_story(out):
    """Say in words what modes.csv shows."""
    with common.optional(out / "modes.csv"):
        table = common.read_csv(out / "modes.csv")
        phase = phases(table)
        for name in COLOURS:
            steps = table["step"][phase == name]
            if len(steps) > 0:
                print(f"{name}: {len(steps)} measurements, the first at step {steps[0]:,.0f}, the "
                      f"last at step {steps[-1]:,.0f}")
        # 3 3 3 5 5 -> 3 5
        visits = itertools.groupby(table["dominant_mode"][phase == "alike"])
        modes = [f"{mode:.0f}" for mode, _ in visits]
        print(f"while alike: {len(mode_changes(table))} changes of the mode; it was "
              f"{', '.join(modes) or 'none'}")
        end = {name: column[-1] for name, column in table.items()}
        print(f"at the end: {phase[-1]}; spread {end['spread']:.3f}, std {end['std']:.3f}, "
              f"{end['modes_covered']:.0f} of {MODES} modes, {end['dominant_share']:.0%} in one")


def draw_modes(out, centres):
    """Draw modes.csv as modes.png: the phases, the modes over time beside their centres, the spread
    of the samples, and what D calls real."""
    path = out / "modes.csv"
    if not path.is_file() or path.stat().st_size == 0:  # fewer than MEASURE_EVERY steps so far
        return
    with common.optional(out / "modes.png"):
        table = common.read_csv(out / "modes.csv")
        phase, steps = phases(table), table["step"]
        figure = common.new_figure(figsize=(9, 7))
        grid = figure.add_gridspec(4, 2, width_ratios=[1, 24], height_ratios=[1, 10, 5, 5])
        band = figure.add_subplot(grid[0, 1])
        shares = figure.add_subplot(grid[1, 1], sharex=band)
        spread = figure.add_subplot(grid[2, 1], sharex=band)
        real = figure.add_subplot(grid[3, 1], sharex=band)

        for name, colour in COLOURS.items():
            band.fill_between(steps, 0, 1, phase == name, color=colour, step="mid", label=name)
        band.set_axis_off()
        band.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)

        cells = numpy.array([table[f"share_{i}"] for i in range(MODES)])
        cells[:, phase == "noise"] = numpy.nan  # noise is in no mode: left grey
        shares.set_facecolor("0.85")
        shares.pcolormesh(steps, range(MODES), cells, cmap="gray_r", vmin=0, vmax=1)
        shares.set(ylabel="mode (black: all samples)", yticks=range(MODES),
                   ylim=(MODES - 0.5, -0.5))
        pictures = figure.add_subplot(grid[1, 0])
        pictures.imshow(centres.view(-1, 28).cpu().numpy(), cmap="gray_r", aspect="auto")
        pictures.set_axis_off()

        spread.plot(steps, table["distance"], label="distance to the nearest mode (reals: 1)")
        spread.plot(steps, table["spread"], label="spread of the samples (reals: 1)")
        if "d_other" in table:
            real.plot(steps, table["d_other"], "C2", label="other digits", linewidth=1)
        real.plot(steps, table["fooled_before"], "C0", label="samples, before G's update")
        real.plot(steps, table["fooled_after"], "C1--", label="samples, after it", linewidth=1)
        real.set(xlabel="step", ylabel="D calls real", ylim=(-0.05, 1.05))
        spread.legend(loc="upper right")
        real.legend(loc="center right")
        common.save_figure(out / "modes.png", figure)


if __name__ == "__main__":
    common.launch(main)
