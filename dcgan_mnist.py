"""Two GANs on MNIST or Fashion-MNIST, in one loop: the vanilla (plain) MLP GAN, and the DCGAN.

Source    "Generative Adversarial Networks", Gregor Cerar's blog post (2023): the GAN of Goodfellow
          et al. 2014 (arXiv:1406.2661) and the DCGAN of Radford et al. 2015 (arXiv:1511.06434)
Run       python dcgan_mnist.py --epochs 16      the DCGAN; downloads MNIST (11 MB)
          python dcgan_mnist.py --model mlp      the MLP GAN; 100 epochs: 30 to 50 minutes
          python dcgan_mnist.py --dataset toy    zeros drawn by code, nothing to download
          python dcgan_mnist.py --cuda-graph     several times faster, on an NVIDIA GPU
Look at   training.gif (16 x 16 samples, always from the same z), samples/, losses.png
Notation  z: noise (B, latent_dim). G(z): images (B, 1, 28, 28) in [-1, 1]. D(x): the probability
          that x is real, as in the papers. In the code D returns logits (B,), the numbers whose
          sigmoid is D(x). B: --batch-size.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["mnist", "fashion", "toy"],
                                    epochs=100, batch_size=128, seed=42, sample_every=0)
    add = parser.add_argument
    add("--model", default="dcgan", choices=["dcgan", "mlp"],
        help="which of the post's two GANs to train (default: %(default)s)")
    add("--ngf", type=common.positive(int), metavar="N",
        help="width of G: the base number of its channels or, for mlp, of its hidden numbers "
             "(default: 32 for dcgan, 256 for mlp, as in the post)")
    add("--ndf", type=common.positive(int), metavar="N",
        help="width of D, likewise (default: 32 for dcgan, 128 for mlp, as in the post)")
    add("--lr", type=common.positive(float), default=2e-4, metavar="RATE",
        help="AdamW's learning rate for G and D (default: %(default)s, as in the post)")
    parser.epilog = "The post: Generative Adversarial Networks, by Gregor Cerar, 2023."
    args, saved = common.parse(parser, argv)
    if args.ngf is None:
        args.ngf = 32 if args.model == "dcgan" else 256
    if args.ndf is None:
        args.ndf = 32 if args.model == "dcgan" else 128
    return args, saved


def load_images(args):
    """Training and test images together, as in the post: uint8 (70000, 1, 28, 28)."""
    if args.dataset == "toy":
        import toy_images
        return toy_images.zeros()[:args.limit]
    return common.load_mnist(args.data, args.dataset, test=True)[0][:args.limit]


# ----------------------------------------------------------------------------- the MLP GAN's nets
class MLPGenerator(nn.Module):
    """z (B, latent_dim) -> images (B, 1, 28, 28) in [-1, 1].

    As in the post's printed summary. Its code has 512 in place of 1,024, and cannot run.
    """

    def __init__(self, latent_dim=100, ngf=256):  # comments: one image's shapes, ngf=256
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, ngf), nn.LeakyReLU(0.2),  # (100,) -> (256,)
            nn.Linear(ngf, 2 * ngf), nn.LeakyReLU(0.2),  # (256,) -> (512,)
            nn.Linear(2 * ngf, 4 * ngf), nn.LeakyReLU(0.2),  # (512,) -> (1024,)
            nn.Linear(4 * ngf, 28 * 28), nn.Tanh(),  # (1024,) -> (784,)
            nn.Unflatten(1, (1, 28, 28)),  # (784,) -> (1, 28, 28)
        )

    def forward(self, z):
        return self.layers(z)


class MLPDiscriminator(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). No sigmoid at the end: the loss
    applies it, and never takes log 0."""

    def __init__(self, ndf=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),  # (1, 28, 28) -> (784,)
            nn.Linear(28 * 28, 4 * ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (784,) -> (512,)
            nn.Linear(4 * ndf, 2 * ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (512,) -> (256,)
            nn.Linear(2 * ndf, ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (256,) -> (128,)
            nn.Linear(ndf, 1),  # (128,) -> (1,)
        )

    def forward(self, x):
        return self.layers(x).view(len(x))  # (B, 1) -> (B,): one logit for each image


# ------------------------------------------------------------------------------- the DCGAN's nets
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


class DCGANGenerator(nn.Module):
    """z (B, latent_dim) -> images (B, 1, 28, 28) in [-1, 1]."""

    def __init__(self, latent_dim=128, ngf=32):  # comments: one image's shapes, ngf=32
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(1, (latent_dim, 1, 1)),  # (128,) -> (128, 1, 1)
            up(latent_dim, 4 * ngf, 4, stride=1, padding=0),  # (128, 1, 1) -> (128, 4, 4)
            up(4 * ngf, 2 * ngf, 3, stride=2, padding=1),  # (128, 4, 4) -> (64, 7, 7)
            up(2 * ngf, ngf, 4, stride=2, padding=1),  # (64, 7, 7) -> (32, 14, 14)
            nn.ConvTranspose2d(ngf, 1, 4, stride=2, padding=1, bias=False),  # -> (1, 28, 28)
            nn.Tanh(),
        )

    def forward(self, z):
        return self.layers(z)


class DCGANDiscriminator(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). BatchNorm on the first layer too, as in the
    post; Radford et al. have none there."""

    def __init__(self, ndf=32):
        super().__init__()
        self.layers = nn.Sequential(
            down(1, ndf, 4, stride=2, padding=1),  # (1, 28, 28) -> (32, 14, 14)
            down(ndf, 2 * ndf, 4, stride=2, padding=1),  # (32, 14, 14) -> (64, 7, 7)
            down(2 * ndf, 4 * ndf, 3, stride=2, padding=1),  # (64, 7, 7) -> (128, 4, 4)
            nn.Conv2d(4 * ndf, 1, 4, stride=1, padding=0, bias=False),  # (128, 4, 4) -> (1, 1, 1)
        )

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
    """Teach D to tell real from fake: minimise  -1/2 [log D(x) + log(1 - D(G(z)))].

    real, fake: images (B, 1, 28, 28) in [-1, 1]; fake is detached: no gradient reaches G.
    Returns the loss, and D's mean probability on the reals and on the fakes, as tensors.
    """
    assert real.shape == fake.shape, f"reals {real.shape}, but G makes {fake.shape}"
    # two batches: in one, BatchNorm would mix the statistics of reals and fakes
    logits_real = D(real)
    logits_fake = D(fake)
    # this cross-entropy applies the sigmoid; label 1 gives -log D(x), label 0 -log(1 - D(x))
    loss_real = F.binary_cross_entropy_with_logits(logits_real, torch.ones_like(logits_real))
    loss_fake = F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake))
    loss_D = (loss_real + loss_fake) / 2
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    d_real = logits_real.detach().sigmoid().mean()
    d_fake = logits_fake.detach().sigmoid().mean()
    return loss_D.detach(), d_real, d_fake


def step_G(G, D, opt_G, fake):
    """Teach G to fool the updated D: minimise  -log D(G(z)).

    fake: images (B, 1, 28, 28) in [-1, 1], not detached: the gradient goes through D back to G.
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


READING_KEY = """How to read the losses: loss_d = (loss on reals + loss on fakes) / 2.
  loss_d 0.693 = log 2, d_real = d_fake = 1/2    D cannot tell: equilibrium, or nothing learned yet
  loss_d near 0, loss_g growing                  D is nearly always right
No value of a loss says that the digits are good: look at the samples."""


# ---------------------------------------------------------------------------------------- training
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    torch.manual_seed(args.seed)  # decides the fixed noise and the initial weights

    images = load_images(args)
    common.check_images(images, args)
    images = common.to_device_if_it_fits(images, device)

    latent_dim = 128 if args.model == "dcgan" else 100
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf}
    fixed_z = torch.randn(256, latent_dim).to(device)  # for the pictures, the same all the time
    if args.model == "dcgan":
        G = DCGANGenerator(**keywords)
        D = DCGANDiscriminator(args.ndf)
    else:
        G = MLPGenerator(**keywords)
        D = MLPDiscriminator(args.ndf)
    for net in (G, D):
        net.apply(init_weights)
        common.prepare(net, device, args.precision)  # moves it to the device

    # fused: the same update, computed faster
    opt_G = torch.optim.AdamW(G.parameters(), args.lr, betas=(0.5, 0.999), weight_decay=1e-5,
                              fused=True)
    opt_D = torch.optim.AdamW(D.parameters(), args.lr, betas=(0.5, 0.999), weight_decay=1e-5,
                              fused=True)

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
        common.save_grid(out / "real.png", common.to_float(images[:256]))
        common.save_samples(out / "samples/step_000000.png", G, fixed_z)
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch)
    log = common.Log(out, args, chance_level=math.log(2))
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


if __name__ == "__main__":
    common.launch(main)
