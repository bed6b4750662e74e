"""Two generators on CelebA faces against one discriminator: a vanilla one, and the DCGAN's, which starts with a projection.

Source    "TME #8: Generative Adversarial Networks", a lab report on the DCGAN of Radford et al. 2015 (arXiv:1511.06434)
Run       python dcgan_celeba.py                                  the DCGAN generator; put CelebA into data/celeba
          python dcgan_celeba.py --generator vanilla              the vanilla one, with half of the arithmetic
          python dcgan_celeba.py --compare runs/dcgan_celeba      the losses of this run over those of an earlier one
          python dcgan_celeba.py --dataset toy                    faces drawn by code, nothing to download
          python dcgan_celeba.py --dataset mnist                  the lab's adaptation to 28 x 28: one block less
          python dcgan_celeba.py --data ~/pictures --ngf 16 --ndf 16        your own pictures, on a slow laptop
Look at   samples/ and training.gif (the same noise in every epoch), losses.png in the run's folder
Notation  z: noise (B, latent_dim). G(z): images (B, 3, 64, 64) in [-1, 1]. D(x): the probability that x is real, as
          in the papers; in the code D returns its logits (B,), for the losses' sake. B: --batch-size.
"""
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, datasets=["celeba", "toy", "mnist"],
                                    epochs=5, batch_size=None, seed=0)
    parser.add_argument("--generator", choices=["dcgan", "vanilla"], help="the report compares both. None: dcgan, and "
                        "vanilla for mnist, which has no other")
    parser.add_argument("--ngf", type=int, default=64, help="width of G (the report: 64); 16 for a slow laptop")
    parser.add_argument("--ndf", type=int, default=64, help="width of D (the report: 64); 16 for a slow laptop")
    parser.add_argument("--lr", type=float, default=2e-4, help="Adam rate of both. The report prints 0.002 and names "
                        "Radford et al. for it, who used 0.0002")
    parser.add_argument("--compare", metavar="RUN", help="another run's folder: draw losses_comparison.png")
    args, saved = common.parse(parser, argv)
    args.generator = args.generator or ("vanilla" if args.dataset == "mnist" else "dcgan")
    args.batch_size = args.batch_size or (64 if args.dataset == "mnist" else 128)
    if args.dataset == "mnist" and args.generator == "dcgan":
        common.fail("--generator dcgan: the lab adapted only the vanilla one to mnist")
    if args.compare and not Path(args.compare, "losses.csv").is_file():
        common.fail(f"--compare {args.compare}: no losses.csv there")
    return args, saved


def load_images(args):
    """uint8 (N, 3, 64, 64), or (60000, 1, 28, 28) for mnist."""
    if args.dataset == "celeba":
        return common.load_faces(args.data, args.limit)
    if args.dataset == "toy":
        return common.toy_faces(args.limit or 10_000)[0]
    return common.load_mnist(args.data, "mnist")[0][:args.limit]


# -------------------------------------------------------------------------------------------- the two players
def up(channels_in, channels_out, kernel_size, stride, padding):
    """A block of G: size -> stride * (size - 1) + kernel_size - 2 * padding. BatchNorm's shift is its bias."""
    return nn.Sequential(nn.ConvTranspose2d(channels_in, channels_out, kernel_size, stride, padding, bias=False),
                         nn.BatchNorm2d(channels_out), nn.ReLU())


def down(channels_in, channels_out, kernel_size, stride, padding):
    """A block of D: size -> floor((size + 2 * padding - kernel_size) / stride) + 1."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding, bias=False),
                         nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


class VanillaGenerator(nn.Module):
    """z (B, latent_dim) -> images in [-1, 1]: (B, 3, 64, 64), or with size=28 (B, 1, 28, 28). Shapes are at ngf=64."""

    def __init__(self, latent_dim=100, ngf=64, size=64):
        super().__init__()
        if size == 64:
            blocks = [
                nn.Unflatten(1, (latent_dim, 1, 1)),  # (100,) -> (100, 1, 1)
                up(latent_dim, 8 * ngf, kernel_size=4, stride=1, padding=0),  # (100, 1, 1) -> (512, 4, 4)
                up(8 * ngf, 4 * ngf, kernel_size=4, stride=2, padding=1),  # (512, 4, 4) -> (256, 8, 8)
                up(4 * ngf, 2 * ngf, kernel_size=4, stride=2, padding=1),  # (256, 8, 8) -> (128, 16, 16)
                up(2 * ngf, ngf, kernel_size=4, stride=2, padding=1),  # (128, 16, 16) -> (64, 32, 32)
                nn.ConvTranspose2d(ngf, 3, kernel_size=4, stride=2, padding=1, bias=False),  # (64, 32, 32) -> (3, 64, 64)
            ]
        else:  # MNIST: one block less, and a padding of 2 that makes 14 of 8
            blocks = [
                nn.Unflatten(1, (latent_dim, 1, 1)),  # (100,) -> (100, 1, 1)
                up(latent_dim, 4 * ngf, kernel_size=4, stride=1, padding=0),  # (100, 1, 1) -> (256, 4, 4)
                up(4 * ngf, 2 * ngf, kernel_size=4, stride=2, padding=1),  # (256, 4, 4) -> (128, 8, 8)
                up(2 * ngf, ngf, kernel_size=4, stride=2, padding=2),  # (128, 8, 8) -> (64, 14, 14)
                nn.ConvTranspose2d(ngf, 1, kernel_size=4, stride=2, padding=1, bias=False),  # (64, 14, 14) -> (1, 28, 28)
            ]
        self.layers = nn.Sequential(*blocks, nn.Tanh())

    def forward(self, z):
        return self.layers(z)


class DCGANGenerator(nn.Module):
    """z (B, latent_dim) -> images (B, 3, 64, 64) in [-1, 1]: a projection to 1024 channels, then one convolution less."""

    def __init__(self, latent_dim=100, ngf=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 16 * ngf * 4 * 4, bias=False),  # (100,) -> (16384,)
            nn.Unflatten(1, (16 * ngf, 4, 4)),  # (16384,) -> (1024, 4, 4)
            nn.BatchNorm2d(16 * ngf), nn.ReLU(),
            up(16 * ngf, 8 * ngf, kernel_size=4, stride=2, padding=1),  # (1024, 4, 4) -> (512, 8, 8)
            up(8 * ngf, 4 * ngf, kernel_size=4, stride=2, padding=1),  # (512, 8, 8) -> (256, 16, 16)
            up(4 * ngf, 2 * ngf, kernel_size=4, stride=2, padding=1),  # (256, 16, 16) -> (128, 32, 32)
            nn.ConvTranspose2d(2 * ngf, 3, kernel_size=4, stride=2, padding=1, bias=False),  # (128, 32, 32) -> (3, 64, 64)
            nn.Tanh(),
        )

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images (B, 3, 64, 64), or with size=28 (B, 1, 28, 28), in [-1, 1] -> logits (B,). No BatchNorm at first and last."""

    def __init__(self, ndf=64, size=64):
        super().__init__()
        if size == 64:
            blocks = [
                nn.Conv2d(3, ndf, kernel_size=4, stride=2, padding=1, bias=False),  # (3, 64, 64) -> (64, 32, 32)
                nn.LeakyReLU(0.2),
                down(ndf, 2 * ndf, kernel_size=4, stride=2, padding=1),  # (64, 32, 32) -> (128, 16, 16)
                down(2 * ndf, 4 * ndf, kernel_size=4, stride=2, padding=1),  # (128, 16, 16) -> (256, 8, 8)
                down(4 * ndf, 8 * ndf, kernel_size=4, stride=2, padding=1),  # (256, 8, 8) -> (512, 4, 4)
                nn.Conv2d(8 * ndf, 1, kernel_size=4, stride=1, padding=0, bias=False),  # (512, 4, 4) -> (1, 1, 1)
            ]
        else:
            blocks = [
                nn.Conv2d(1, ndf, kernel_size=4, stride=2, padding=1, bias=False),  # (1, 28, 28) -> (64, 14, 14)
                nn.LeakyReLU(0.2),
                down(ndf, 2 * ndf, kernel_size=4, stride=2, padding=1),  # (64, 14, 14) -> (128, 7, 7)
                down(2 * ndf, 4 * ndf, kernel_size=4, stride=2, padding=2),  # (128, 7, 7) -> (256, 4, 4)
                nn.Conv2d(4 * ndf, 1, kernel_size=4, stride=1, padding=0, bias=False),  # (256, 4, 4) -> (1, 1, 1)
            ]
        self.layers = nn.Sequential(*blocks, nn.Flatten(0))  # (1, 1, 1) -> ()

    def forward(self, x):
        return self.layers(x)


def init_weights(net):
    """Weights of convolutions and linear layers N(0, 0.02), BatchNorm's scales N(1, 0.02), every bias 0."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            nn.init.normal_(layer.weight, mean=1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# --------------------------------------------------------------------------------------------------- the game
def step_D(G, D, opt_D, real, z):
    """Teach D to tell real from fake: minimise  -[log D(x) + log(1 - D(G(z)))].

    real: (B, C, H, W) in [-1, 1]; z: (B, latent_dim). Returns the loss and D's mean probability on the reals and on the
    fakes, as tensors.
    """
    with torch.no_grad():  # only D learns here, so G needs no graph
        fake = G(z)
    logits_real, logits_fake = D(real), D(fake)  # two batches: BatchNorm must not mix the statistics of reals and fakes
    loss_D = (F.binary_cross_entropy_with_logits(logits_real, torch.ones_like(logits_real)) +
              F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake)))
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    return loss_D.detach(), logits_real.detach().sigmoid().mean(), logits_fake.detach().sigmoid().mean()


def step_G(G, D, opt_G, z):
    """Teach G to fool the D that has just been improved: minimise  -log D(G(z)).

    z: (B, latent_dim). Returns the loss, as a tensor.
    """
    logits = D(G(z))
    # Not log(1 - D(G(z))), as in the minimax game: where D is sure of a fake, that is flat and G learns nothing, while
    # this is steep (Goodfellow et al. 2014, section 3). The report says it too: G maximises log D(G(z)).
    loss_G = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # the gradient flows through D, but only G receives it
    opt_G.step()
    return loss_G.detach()


def plot_comparison(path, runs):
    """Draw the losses of runs (folders) over one another: G on the left, D on the right, raw and lightly smoothed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 2), [("loss_g", "loss of G"), ("loss_d", "loss of D")]):
        for color, run in enumerate(runs):
            table = common.read_csv(Path(run, "losses.csv"))
            axes.plot(table["step"], table[name], f"C{color}", alpha=0.2, linewidth=0.5)
            axes.plot(*common.running_median(table["step"], table[name], 25), f"C{color}", label=Path(run).name)
        axes.set(title=title, xlabel="step")
        axes.legend()
    with common.replacing(path) as file:
        figure.savefig(file, dpi=100)


READING_KEY = """How to read the losses: loss_d is the sum of its halves on reals and on fakes.
  loss_d 1.386 = 2 log 2, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g growing                    D is always right, and G learns little
  loss_d 0.5 to 1, loss_g 2 to 4                   a healthy game: the report's own losses; look at the samples"""


def main(argv=None):
    args, saved = parse_args(argv)
    device = common.setup(args)
    images = load_images(args)
    latent_dim = 100
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf}
    if args.generator == "vanilla":
        keywords["size"] = images.shape[-1]
    G = DCGANGenerator(**keywords) if args.generator == "dcgan" else VanillaGenerator(**keywords)
    D = Discriminator(args.ndf, size=images.shape[-1])
    for net in (G, D):
        init_weights(net)
        common.place(net, device, args.precision)
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), args.lr, betas=(0.5, 0.999), fused=True) for net in (G, D))
    run = common.Run(args, saved, images, G, D, opt_G, opt_D, generator=keywords)
    print(READING_KEY, flush=True)

    for real in run.minibatches():
        # (1) D: tell the reals from as many fakes
        z = torch.randn(len(real), latent_dim, device=device)
        loss_D, d_real, d_fake = step_D(G, D, opt_D, real, z)
        # (2) G: fool D, with fresh noise
        z = torch.randn(len(real), latent_dim, device=device)
        loss_G = step_G(G, D, opt_G, z)
        run.log(loss_d=loss_D, loss_g=loss_G, d_real=d_real, d_fake=d_fake)

    run.finish()
    if args.compare:
        plot_comparison(run.out / "losses_comparison.png", [args.compare, run.out])


if __name__ == "__main__":
    main()
