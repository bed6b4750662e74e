"""One architecture, three losses on CelebA: Wasserstein (WGAN), minimax, least squares (LSGAN).

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018: the WGAN of Arjovsky et al. 2017 (arXiv:1701.07875), the
          LSGAN of Mao et al. 2016 (arXiv:1611.04076)
Run       python wgan_celeba.py                   the WGAN; put CelebA into data/celeba
          python wgan_celeba.py --loss minimax    the GAN of Goodfellow et al. 2014, same nets
          python wgan_celeba.py --loss lsgan --upsample nearest    G without deconvolutions
          python wgan_celeba.py --dataset toy     faces drawn by code, nothing to download
          python wgan_celeba.py --data ~/pictures --ngf 16 --ndf 16    your own, on a slow laptop
Look at   losses.png (with wgan, look at w_estimate first), samples/
Notation  z: noise (B, latent_dim). G(z): images (B, 3, 64, 64) in [-1, 1]. D(x): numbers (B,), high
          for real. With wgan D is called the critic; with minimax the numbers are logits, and
          sigmoid(D(x)) is what the paper writes as D(x). B: --batch-size.
"""
import math

import torch
from torch import nn
from torch.nn import functional as F

import common

# loss -> the assignment's settings, but for the clip, which is the WGAN paper's (the assignment's
# own run: 0.05). The optimizers are in main
DEFAULTS = {
    "wgan": {"lr": 5e-5, "n_critic": 5, "clip": 0.01},
    "minimax": {"lr": 2e-4, "n_critic": 1, "clip": 0.0},
    "lsgan": {"lr": 2e-4, "n_critic": 1, "clip": 0.0},
}


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["celeba", "toy"],
                                    epochs=50, batch_size=64, seed=0, sample_every=500)
    add = parser.add_argument
    add("--loss", default="wgan", choices=list(DEFAULTS),
        help="which of the assignment's three losses to train with (default: %(default)s)")
    add("--upsample", default="deconv", choices=["deconv", "nearest", "bilinear"],
        help="how G doubles the size of its images (default: %(default)s)")
    add("--ngf", type=common.positive(int), default=64, metavar="N",
        help="width of G, its base number of channels (default: %(default)s, as in the "
             "assignment); 16 for a slow laptop")
    add("--ndf", type=common.positive(int), default=64, metavar="N",
        help="width of D, its base number of channels (default: %(default)s, as in the "
             "assignment); 16 for a slow laptop")
    add("--lr", type=common.positive(float), metavar="RATE",
        help="learning rate of G and D (default: 5e-5 for wgan, else 2e-4, as in the assignment)")
    add("--n-critic", type=common.positive(int), metavar="N",
        help="updates of D for each one of G (default: 5 for wgan, else 1). With wgan there are at "
             "least 20 before each of the first 50 updates of G, and before every 500th")
    add("--clip", type=common.not_negative(float), metavar="C",
        help="wgan: keep the critic's weights in [-C, C]; 0 does not clip (default: 0.01, as in "
             "the WGAN paper; the assignment's own run: 0.05)")
    parser.epilog = "The assignment: number 4 of IFT6135, by Laferriere and Litalien, 2018."
    args, saved = common.parse(parser, argv)
    if args.clip and args.loss != "wgan":
        common.fail(f"--clip {args.clip}: only the critic of --loss wgan is clipped")
    for name, value in DEFAULTS[args.loss].items():
        if getattr(args, name) is None:
            setattr(args, name, value)  # a flag that was not typed has the default of its --loss
    if args.batch_size < 2:
        common.fail("--batch-size 1: G's BatchNorm1d needs at least two images")
    return args, saved


def load_images(args):
    """uint8 (N, 3, 64, 64)."""
    if args.dataset == "celeba":
        return common.load_faces(args.data, args.limit)
    import toy_images
    return toy_images.faces(args.limit)[0]


# ---------------------------------------------------------------------------------------- the nets
def double(channels_in, channels_out, upsample):
    """Double the size, in one of three ways. The deconvolution's kernel size, 4, is a multiple of
    its stride, 2, so it reaches every pixel equally often; a 3 x 3 kernel would not. That does not
    prevent checkerboards: trained weights can still paint them (see exercises/README.md)."""
    if upsample == "deconv":
        return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=upsample),
                         nn.Conv2d(channels_in, channels_out, 3, stride=1, padding=1, bias=False))


def up(channels_in, channels_out, upsample):
    """A block of G. No bias: BatchNorm follows, and has its own."""
    return nn.Sequential(double(channels_in, channels_out, upsample),
                         nn.BatchNorm2d(channels_out), nn.ReLU())


def down(channels_in, channels_out, kernel_size, stride, padding):
    """A block of D: size -> floor((size + 2 * padding - kernel_size) / stride) + 1. With a bias, as
    in the assignment."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding),
        nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


class Generator(nn.Module):
    """z (B, latent_dim) -> images (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, latent_dim=100, ngf=64, upsample="deconv"):  # one image's shapes
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, 8 * ngf * 4 * 4, bias=False),  # (100,) -> (8192,)
            nn.BatchNorm1d(8 * ngf * 4 * 4), nn.ReLU(),
            nn.Unflatten(1, (8 * ngf, 4, 4)),  # (8192,) -> (512, 4, 4)
            up(8 * ngf, 4 * ngf, upsample),  # (512, 4, 4) -> (256, 8, 8)
            up(4 * ngf, 2 * ngf, upsample),  # (256, 8, 8) -> (128, 16, 16)
            up(2 * ngf, ngf, upsample),  # (128, 16, 16) -> (64, 32, 32)
            double(ngf, 3, upsample),  # (64, 32, 32) -> (3, 64, 64)
            nn.Tanh(),
        )

    def forward(self, z):
        return self.layers(z)


class Discriminator(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] -> numbers (B,), high for real. No BatchNorm on the first
    layer."""

    def __init__(self, ndf=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2),  # -> (64, 32, 32)
            down(ndf, 2 * ndf, 4, stride=2, padding=1),  # (64, 32, 32) -> (128, 16, 16)
            down(2 * ndf, 4 * ndf, 4, stride=2, padding=1),  # (128, 16, 16) -> (256, 8, 8)
            down(4 * ndf, 8 * ndf, 4, stride=2, padding=1),  # (256, 8, 8) -> (512, 4, 4)
            nn.Conv2d(8 * ndf, 1, 4, stride=1, padding=0),  # (512, 4, 4) -> (1, 1, 1)
        )

    def forward(self, x):
        return self.layers(x).view(len(x))  # (B, 1, 1, 1) -> (B,): one number for each image


def init_weights(layer):
    """For net.apply: weights N(0, 0.02^2), BatchNorm's scales N(1, 0.02^2), every bias 0."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, *norms)):
        mean = 1.0 if isinstance(layer, norms) else 0.0
        nn.init.normal_(layer.weight, mean, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------- the updates
def loss_of_D(loss_name, out_real, out_fake):
    """What D minimises: loss_name is that of --loss. out_real, out_fake: D's outputs (B,)."""
    if loss_name == "wgan":  # -(E[D(x)] - E[D(G(z))]): widen the gap, as far as the clip lets it
        return out_fake.mean() - out_real.mean()
    if loss_name == "lsgan":  # E[(D(x) - 1)^2] + E[D(G(z))^2]
        return ((out_real - 1) ** 2).mean() + (out_fake ** 2).mean()
    # minimax: -E[log D(x)] - E[log(1 - D(G(z)))], where the paper's D is the sigmoid of ours.
    # This cross-entropy applies the sigmoid; label 1 gives -log D(x), label 0 -log(1 - D(x))
    loss_real = F.binary_cross_entropy_with_logits(out_real, torch.ones_like(out_real))
    loss_fake = F.binary_cross_entropy_with_logits(out_fake, torch.zeros_like(out_fake))
    return loss_real + loss_fake


def loss_of_G(loss_name, out_fake):
    """What G minimises: loss_name is that of --loss. out_fake: D's outputs (B,) on fakes."""
    if loss_name == "wgan":  # -E[D(G(z))]
        return -out_fake.mean()
    if loss_name == "lsgan":  # E[(D(G(z)) - 1)^2]
        return ((out_fake - 1) ** 2).mean()
    # minimax: -E[log D(G(z))]. Why not E[log(1 - D(G(z)))], as the minimax game says? Its slope
    # with respect to D's logit is -D(G(z)). That is near 0 when D is sure of a fake, so G gets
    # hardly any gradient. The slope of -log D(G(z)) is D(G(z)) - 1: near -1 in that case
    # (Goodfellow et al. 2014, section 3).
    return F.binary_cross_entropy_with_logits(out_fake, torch.ones_like(out_fake))


def critic_updates(loss_name, n_critic, g_step):
    """The number of D's updates before the next one of G. g_step: how many G has had.

    With wgan it is at least 20 for each of G's first 50 updates, and for every 500th (assignment,
    section 2.1): G needs a good critic most at the beginning.
    """
    if loss_name == "wgan" and (g_step < 50 or (g_step + 1) % 500 == 0):
        return max(20, n_critic)
    return n_critic


def step_D(D, opt_D, real, fake, loss_name, clip=0.0):
    """Teach D to tell real from fake: minimise `loss_of_D`, then clip D's weights to [-clip, clip].

    real, fake: images (B, 3, 64, 64) in [-1, 1]; fake is detached: no gradient reaches G.
    Returns the loss, and D's outputs (B,) on the reals and on the fakes, as tensors.
    """
    assert real.shape == fake.shape, f"reals {real.shape}, but G makes {fake.shape}"
    # two batches: in one, BatchNorm would mix the statistics of reals and fakes
    out_real = D(real)
    out_fake = D(fake)
    loss_D = loss_of_D(loss_name, out_real, out_fake)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    if clip > 0:
        # The WGAN paper clips (algorithm 1) to bound D's slope: without a bound, D could widen the
        # gap without end, just by larger weights. Here BatchNorm rescales what comes before it, so
        # the clip hardly bounds the slope. It does bound the gap: each of the last layer's
        # F = 16 * 8 * ndf inputs can add 2 clip^2 on average, 1.64 in all by default. Near that
        # bound the critic is saturated, and its gap measures no distance. BatchNorm's scales are
        # clipped too, as in the code of the paper's authors.
        with torch.no_grad():
            for weight in D.parameters():
                weight.clamp_(-clip, clip)
    return loss_D.detach(), out_real.detach(), out_fake.detach()


def step_G(G, D, opt_G, fake, loss_name):
    """Teach G to fool the updated D: minimise `loss_of_G`.

    fake: images (B, 3, 64, 64) in [-1, 1], not detached: the gradient goes through D back to G.
    Returns the loss, a tensor.
    """
    loss_G = loss_of_G(loss_name, D(fake))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # only G's weights get a gradient, not D's
    opt_G.step()
    return loss_G.detach()


def mean_for_log(loss_name, out):
    """D's mean output (of outputs (B,)). With minimax, whose outputs are logits, a probability."""
    if loss_name == "minimax":
        out = out.sigmoid()
    return out.mean()


CHANCE_LEVEL = {"wgan": None, "minimax": 2 * math.log(2), "lsgan": 0.5}  # loss_d if D cannot tell
READING_KEY = {
    "wgan": """How to read the losses: w_estimate = mean D(x) - mean D(G(z)), on a scale of its own.
  loss_d = -w_estimate, loss_g = -mean D(G(z)): negative numbers are normal
  w_estimate rises at first      the critic learns: G's first 50 updates take 1,000 minibatches
  w_estimate falls steadily      as a rule the samples get better
  it is near 256 ndf clip^2      (1.64 by default) the critic is saturated: it says nothing
  Compare it only between runs with the same --clip and --ndf.""",
    "minimax": """How to read the losses: loss_d = loss on reals + loss on fakes.
  loss_d 1.386 = 2 log 2, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g growing                    D is nearly always right
No value of a loss says that the faces are good: look at the samples.""",
    "lsgan": """How to read the losses: D wants 1 for reals, 0 for fakes; loss_d sums both errors.
  loss_d 0.5, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g near 1         D is always right
No value of a loss says that the faces are good: look at the samples.""",
}


# ---------------------------------------------------------------------------------------- training
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    torch.manual_seed(args.seed)  # decides the fixed noise and the initial weights

    images = load_images(args)
    common.check_images(images, args)
    images = common.to_device_if_it_fits(images, device)

    latent_dim = 100
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf, "upsample": args.upsample}
    fixed_z = torch.randn(64, latent_dim).to(device)  # for the pictures, the same all the time
    G = Generator(**keywords)
    D = Discriminator(args.ndf)
    for net in (G, D):
        net.apply(init_weights)
        common.prepare(net, device, args.precision)  # moves it to the device

    if args.loss == "wgan":  # no momentum: the critic's task keeps changing (WGAN paper, section 4)
        opt_G = torch.optim.RMSprop(G.parameters(), args.lr)
        opt_D = torch.optim.RMSprop(D.parameters(), args.lr)
    else:
        # fused: the same update, computed faster
        opt_G = torch.optim.Adam(G.parameters(), args.lr, betas=(0.5, 0.999), fused=True)
        opt_D = torch.optim.Adam(D.parameters(), args.lr, betas=(0.5, 0.999), fused=True)

    # -- Bookkeeping: the run's folder, --resume, the first checkpoint. Skip it on a first reading.
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}
    # G's class and arguments, so that the tools can build it again
    generator = {"class": type(G).__name__, **keywords}
    # step: minibatches; g_step: updates of G; d_steps: updates of D since the last one of G
    step = first_epoch = g_step = d_steps = 0
    out = common.open_run(args, device, G, D)
    if saved:  # --resume: restore the state after the last finished epoch
        common.restore(parts, saved)
        step, first_epoch = saved["step"], saved["epoch"]
        g_step, d_steps = saved["g_step"], saved["d_steps"]
        fixed_z = saved["fixed_z"].to(device)
        common.cut_run(out, step)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:64]))
        common.save_samples(out / "samples/step_000000.png", G, fixed_z)
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch, g_step=g_step, d_steps=d_steps)
    log = common.Log(out, args, chance_level=CHANCE_LEVEL[args.loss])
    print(READING_KEY[args.loss], flush=True)
    # -- End of the bookkeeping.

    def train_D(real):
        with torch.no_grad():  # only D learns here
            fake = G(torch.randn(len(real), latent_dim, device=device))
        return step_D(D, opt_D, real, fake, args.loss, args.clip)

    def train_G():
        fake = G(torch.randn(args.batch_size, latent_dim, device=device))
        return step_G(G, D, opt_G, fake, args.loss)

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
            # (1) update D, with new reals and as many fakes
            loss_D, out_real, out_fake = train_D(real)
            d_steps += 1
            # (2) update G, with new fakes, once D has had all of its updates
            if d_steps == critic_updates(args.loss, args.n_critic, g_step):
                loss_G = train_G()
                g_step += 1
                d_steps = 0
            else:
                loss_G = loss_of_G(args.loss, out_fake)  # for the log: G waits
            log.add(step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G,
                    d_real=mean_for_log(args.loss, out_real),
                    d_fake=mean_for_log(args.loss, out_fake),
                    g_step=g_step, w_estimate=out_real.mean() - out_fake.mean())
            if common.picture_is_due(step, len(batches), args.sample_every):
                log.write()  # losses.csv
                common.save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)

        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1, g_step=g_step, d_steps=d_steps)
        log.end_epoch()

    log.draw()  # losses.png and training.gif


if __name__ == "__main__":
    common.launch(main)
