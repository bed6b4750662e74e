"""Two generators on CelebA faces, a vanilla (plain) one and the DCGAN's, with one discriminator.

Source    "TME #8: Generative Adversarial Networks", a lab report on the DCGAN of Radford et al.,
          2015, arXiv:1511.06434
Run       python dcgan_celeba.py                        put CelebA into data/celeba; hours on a CPU
          python dcgan_celeba.py --generator vanilla    about half of the arithmetic
          python dcgan_celeba.py --dataset toy          faces drawn by code, nothing to download
          python dcgan_celeba.py --dataset mnist        the lab's smaller nets, for 28 x 28
          python dcgan_celeba.py --data ~/pictures --ngf 16 --ndf 16    your own, on a slow laptop
          python dcgan_celeba.py --generator vanilla --compare runs/dcgan_celeba    draw both losses
Look at   samples/ and training.gif (always from the same z), losses.png in the run's folder
Notation  z: noise (B, latent_dim). G(z): images (B, 3, 64, 64) in [-1, 1]. D(x): the probability
          that x is real, as in the papers. In the code D returns logits (B,), the numbers whose
          sigmoid is D(x). B: --batch-size.
"""
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["celeba", "toy", "mnist"],
                                    epochs=5, batch_size=None, seed=0, sample_every=500)
    add = parser.add_argument
    add("--generator", choices=["dcgan", "vanilla"],
        help="which of the lab's two generators to train (default: dcgan; with --dataset mnist: "
             "vanilla, the only one that the lab adapted)")
    add("--ngf", type=common.positive(int), default=64, metavar="N",
        help="width of G, its base number of channels (default: %(default)s, as in the lab); 16 "
             "for a slow laptop")
    add("--ndf", type=common.positive(int), default=64, metavar="N",
        help="width of D, its base number of channels (default: %(default)s, as in the lab); 16 "
             "for a slow laptop")
    add("--lr", type=common.positive(float), default=2e-4, metavar="RATE",
        help="Adam's learning rate for G and D (default: %(default)s, as in Radford et al. 2015; "
             "the lab prints 0.002 and cites them for it)")
    add("--compare", type=common.folder, metavar="RUN",
        help="folder of another run: draw its losses and the new ones in one figure, "
             "losses_comparison.png")
    parser.epilog = ('The lab: "TME #8: Generative Adversarial Networks". The default '
                     "--batch-size is 128, and with --dataset mnist 64.")
    args, saved = common.parse(parser, argv)
    if args.generator is None:
        args.generator = "vanilla" if args.dataset == "mnist" else "dcgan"
    if args.batch_size is None:
        args.batch_size = 64 if args.dataset == "mnist" else 128
    if args.dataset == "mnist" and args.generator == "dcgan":
        common.fail("--generator dcgan: the lab adapted only the vanilla one to mnist")
    if args.compare and not Path(args.compare, "losses.csv").is_file():
        common.fail(f"--compare {args.compare}: there is no losses.csv in that folder")
    return args, saved


def load_images(args):
    """uint8 (N, 3, 64, 64), or (60000, 1, 28, 28) for mnist."""
    if args.dataset == "celeba":
        return common.load_faces(args.data, args.limit)
    if args.dataset == "toy":
        import toy_images
        return toy_images.faces(args.limit)[0]
    return common.load_mnist(args.data, args.dataset)[0][:args.limit]


# ---------------------------------------------------------------------------------------- the nets
def up(channels_in, channels_out, kernel_size, stride, padding):
    """A block of G: size -> stride * (size - 1) + kernel_size - 2 * padding. No bias:
    BatchNorm follows, and has its own."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out), nn.ReLU())


def down(channels_in, channels_out, kernel_size, stride, padding):
    """A block of D: size -> floor((size + 2 * padding - kernel_size) / stride) + 1."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


class VanillaGenerator(nn.Module):
    """z (B, latent_dim) -> images in [-1, 1]: (B, 3, 64, 64), or with size=28 (B, 1, 28, 28).

    The lab calls it vanilla. It has convolutions and BatchNorm, like a DCGAN.
    """

    def __init__(self, latent_dim=100, ngf=64, size=64):  # comments: one image's shapes, ngf=64
        super().__init__()
        if size == 64:
            blocks = [
                up(latent_dim, 8 * ngf, 4, stride=1, padding=0),  # (100, 1, 1) -> (512, 4, 4)
                up(8 * ngf, 4 * ngf, 4, stride=2, padding=1),  # (512, 4, 4) -> (256, 8, 8)
                up(4 * ngf, 2 * ngf, 4, stride=2, padding=1),  # (256, 8, 8) -> (128, 16, 16)
                up(2 * ngf, ngf, 4, stride=2, padding=1),  # (128, 16, 16) -> (64, 32, 32)
                nn.ConvTranspose2d(ngf, 3, 4, stride=2, padding=1, bias=False),  # -> (3, 64, 64)
            ]
        elif size == 28:  # MNIST: one block less; padding=2 makes 8 -> 14, not 16
            blocks = [
                up(latent_dim, 4 * ngf, 4, stride=1, padding=0),  # (100, 1, 1) -> (256, 4, 4)
                up(4 * ngf, 2 * ngf, 4, stride=2, padding=1),  # (256, 4, 4) -> (128, 8, 8)
                up(2 * ngf, ngf, 4, stride=2, padding=2),  # (128, 8, 8) -> (64, 14, 14)
                nn.ConvTranspose2d(ngf, 1, 4, stride=2, padding=1, bias=False),  # -> (1, 28, 28)
            ]
        else:
            raise ValueError(f"no blocks are written for images of {size} x {size}")
        # (100,) -> (100, 1, 1) -> the blocks
        self.layers = nn.Sequential(nn.Unflatten(1, (latent_dim, 1, 1)), *blocks, nn.Tanh())

    def forward(self, z):
        return self.layers(z)


class DCGANGenerator(nn.Module):
    """z (B, latent_dim) -> images (B, 3, 64, 64) in [-1, 1].

    A linear projection, to 1024 channels, in place of the first block. On a 1 x 1 input that block
    is a linear map too, so this is the VanillaGenerator with twice the ngf.
    """

    def __init__(self, latent_dim=100, ngf=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 16 * ngf * 4 * 4, bias=False),  # (100,) -> (16384,)
            nn.Unflatten(1, (16 * ngf, 4, 4)),  # (16384,) -> (1024, 4, 4)
            nn.BatchNorm2d(16 * ngf), nn.ReLU(),
            up(16 * ngf, 8 * ngf, 4, stride=2, padding=1),  # (1024, 4, 4) -> (512, 8, 8)
            up(8 * ngf, 4 * ngf, 4, stride=2, padding=1),  # (512, 8, 8) -> (256, 16, 16)
            up(4 * ngf, 2 * ngf, 4, stride=2, padding=1),  # (256, 16, 16) -> (128, 32, 32)
            nn.ConvTranspose2d(2 * ngf, 3, 4, stride=2, padding=1, bias=False),  # -> (3, 64, 64)
            nn.Tanh(),
        )

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images (B, 3, 64, 64), or with size=28 (B, 1, 28, 28), in [-1, 1] -> logits (B,).

    No BatchNorm on the first and last layer. No sigmoid at the end: the loss applies it, and
    never takes log 0.
    """

    def __init__(self, ndf=64, size=64):
        super().__init__()
        if size == 64:
            blocks = [
                nn.Conv2d(3, ndf, 4, stride=2, padding=1, bias=False),  # -> (64, 32, 32)
                nn.LeakyReLU(0.2),
                down(ndf, 2 * ndf, 4, stride=2, padding=1),  # (64, 32, 32) -> (128, 16, 16)
                down(2 * ndf, 4 * ndf, 4, stride=2, padding=1),  # (128, 16, 16) -> (256, 8, 8)
                down(4 * ndf, 8 * ndf, 4, stride=2, padding=1),  # (256, 8, 8) -> (512, 4, 4)
                nn.Conv2d(8 * ndf, 1, 4, stride=1, padding=0, bias=False),  # -> (1, 1, 1)
            ]
        elif size == 28:
            blocks = [
                nn.Conv2d(1, ndf, 4, stride=2, padding=1, bias=False),  # -> (64, 14, 14)
                nn.LeakyReLU(0.2),
                down(ndf, 2 * ndf, 4, stride=2, padding=1),  # (64, 14, 14) -> (128, 7, 7)
                down(2 * ndf, 4 * ndf, 4, stride=2, padding=2),  # (128, 7, 7) -> (256, 4, 4)
                nn.Conv2d(4 * ndf, 1, 4, stride=1, padding=0, bias=False),  # -> (1, 1, 1)
            ]
        else:
            raise ValueError(f"no blocks are written for images of {size} x {size}")
        self.layers = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layers(x).view(len(x))  # (B, 1, 1, 1) -> (B,): one logit for each image


def init_weights(layer):
    """For net.apply: weights N(0, 0.02^2), BatchNorm's scales N(1, 0.02^2), every bias 0."""
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
        mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
        nn.init.normal_(layer.weight, mean, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------- the updates
def step_D(D, opt_D, real, fake):
    """Teach D to tell real from fake: minimise  -[log D(x) + log(1 - D(G(z)))].

    real, fake: images (B, C, H, W) in [-1, 1]; fake is detached: no gradient reaches G.
    Returns the loss, and D's mean probability on the reals and on the fakes, as tensors.
    """
    assert real.shape == fake.shape, f"reals {real.shape}, but G makes {fake.shape}"
    # two batches: in one, BatchNorm would mix the statistics of reals and fakes
    logits_real = D(real)
    logits_fake = D(fake)
    # this cross-entropy applies the sigmoid; label 1 gives -log D(x), label 0 -log(1 - D(x))
    loss_real = F.binary_cross_entropy_with_logits(logits_real, torch.ones_like(logits_real))
    loss_fake = F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake))
    loss_D = loss_real + loss_fake
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    d_real = logits_real.detach().sigmoid().mean()
    d_fake = logits_fake.detach().sigmoid().mean()
    return loss_D.detach(), d_real, d_fake


def step_G(G, D, opt_G, fake):
    """Teach G to fool the updated D: minimise  -log D(G(z)).

    fake: images (B, C, H, W) in [-1, 1], not detached: the gradient goes through D back to G.
    Returns the loss, a tensor.
    """
    logits = D(fake)
    # Why not minimise log(1 - D(G(z))), as the minimax game says? Its slope with respect to D's
    # logit is -D(G(z)). That is near 0 when D is sure of a fake, so G gets hardly any gradient. The
    # slope of -log D(G(z)) is D(G(z)) - 1: near -1 in that case (Goodfellow et al. 2014, sec. 3).
    loss_G = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # only G's weights get a gradient, not D's
    opt_G.step()
    return loss_G.detach()


READING_KEY = """How to read the losses: loss_d = loss on reals + loss on fakes.
  loss_d 1.386 = 2 log 2, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g growing                    D is nearly always right
  loss_d 0.35 to 1, loss_g 2 to 5.5                usual for these nets
No value of a loss says that the faces are good: look at the samples."""


# ---------------------------------------------------------------------------------------- training
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    torch.manual_seed(args.seed)  # decides the fixed noise and the initial weights

    images = load_images(args)
    common.check_images(images, args)
    images = common.to_device_if_it_fits(images, device)

    latent_dim = 100
    size = images.shape[-1]
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf}
    fixed_z = torch.randn(64, latent_dim).to(device)  # for the pictures, the same all the time
    if args.generator == "dcgan":
        G = DCGANGenerator(**keywords)
    else:
        keywords["size"] = size
        G = VanillaGenerator(**keywords)
    D = Discriminator(args.ndf, size)
    for net in (G, D):
        net.apply(init_weights)
        common.prepare(net, device, args.precision)  # moves it to the device

    # fused: the same update, computed faster
    opt_G = torch.optim.Adam(G.parameters(), args.lr, betas=(0.5, 0.999), fused=True)
    opt_D = torch.optim.Adam(D.parameters(), args.lr, betas=(0.5, 0.999), fused=True)

    # -- Bookkeeping: the run's folder, --resume, the first checkpoint. Skip it on a first reading.
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}
    # G's class and arguments, so that the tools can build it again
    generator = {"class": type(G).__name__, **keywords}
    step = first_epoch = 0
    out = common.open_run(args, device, G, D)
    if saved:  # --resume: restore the state after the last finished epoch
        common.restore(parts, saved)
        step, first_epoch = saved["step"], saved["epoch"]
        fixed_z = saved["fixed_z"].to(device)
        common.cut_run(out, step)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:64]))
        common.save_samples(out / "samples/step_000000.png", G, fixed_z)
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch)
    log = common.Log(out, args, chance_level=2 * math.log(2))
    print(READING_KEY, flush=True)
    # -- End of the bookkeeping.

    def train_step(real):
        fake = G(torch.randn(len(real), latent_dim, device=device))
        # (1) update D, with the reals and as many fakes
        loss_D, d_real, d_fake = step_D(D, opt_D, real, fake.detach())
        # (2) update G, with the same fakes and the updated D
        loss_G = step_G(G, D, opt_G, fake)
        return loss_D, loss_G, d_real, d_fake

    if args.cuda_graph:
        import cuda_graph
        train_step = cuda_graph.recorded(train_step, device, [opt_G, opt_D])

    for epoch in range(first_epoch, args.epochs):
        # each epoch has a seed of its own, so a resumed run repeats its epochs exactly
        torch.manual_seed(1_000_000 * args.seed + epoch + 1)
        batches = common.shuffled_batches(images, args.batch_size)
        log.start_epoch(epoch, len(batches))
        for batch in batches:
            step += 1
            real = common.to_float(images[batch].to(device))
            loss_D, loss_G, d_real, d_fake = train_step(real)
            log.add(step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G, d_real=d_real,
                    d_fake=d_fake)
            if common.picture_is_due(step, len(batches), args.sample_every):
                log.write()  # losses.csv
                common.save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)

        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1)
        log.end_epoch()

    log.draw()  # losses.png and training.gif
    if args.compare:
        with common.optional(out / "losses_comparison.png"):
            plot_comparison(out / "losses_comparison.png", [args.compare, out])


def plot_comparison(path, runs):
    """Draw the losses of two runs (folders) over one another: G's on the left, D's on the right."""
    figure = common.new_figure(figsize=(12, 4))
    for axes, name in zip(figure.subplots(1, 2), ["loss_g", "loss_d"]):
        for i, run in enumerate(runs):
            table = common.read_csv(Path(run, "losses.csv"))
            axes.plot(table["step"], table[name], f"C{i}", alpha=0.2, linewidth=0.5)
            smooth = common.running_median(table["step"], table[name], window=25)
            axes.plot(*smooth, f"C{i}", label=Path(run).name)
        axes.set(title=name, xlabel="step")
        axes.legend()
    common.save_figure(path, figure)


if __name__ == "__main__":
    common.launch(main)
