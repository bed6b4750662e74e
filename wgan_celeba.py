"""One architecture, three losses on CelebA faces: the WGAN with its critic's schedule, beside minimax and least squares.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135, Université de
          Montréal, 2018: the WGAN of Arjovsky et al. 2017 (arXiv:1701.07875), the LSGAN of Mao et al. 2016 (arXiv:1611.04076)
Run       python wgan_celeba.py                                   the WGAN, 50 epochs; put CelebA into data/celeba
          python wgan_celeba.py --loss minimax                    the GAN of Goodfellow et al. 2014, on the same nets
          python wgan_celeba.py --loss lsgan --upsample nearest   least squares, and resizing in place of deconvolution
          python wgan_celeba.py --dataset toy                     faces drawn by code, nothing to download
          python wgan_celeba.py --data ~/pictures --ngf 16 --ndf 16         your own pictures, on a slow laptop
Look at   losses.png (with wgan, w_estimate is the curve that means something), samples/ and training.gif in the run
Notation  z: noise (B, latent_dim). G(z): images (B, 3, 64, 64) in [-1, 1]. D(x): numbers (B,), high for real. With wgan D
          is called the critic; with minimax the numbers are logits, and sigmoid(D(x)) is what the paper writes as D(x).
          B: --batch-size.
"""
import torch
from torch import nn
from torch.nn import functional as F

import common

# loss -> what the assignment trains it with; the WGAN paper's clip is 0.01, the assignment's own run used 0.05
DEFAULTS = {
    "wgan": {"lr": 5e-5, "n_critic": 5, "clip": 0.01},  # RMSProp
    "minimax": {"lr": 2e-4, "n_critic": 1, "clip": None},  # Adam with betas (0.5, 0.999)
    "lsgan": {"lr": 2e-4, "n_critic": 1, "clip": None},  # Adam with betas (0.5, 0.999)
}


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, datasets=["celeba", "toy"], epochs=50, batch_size=64, seed=0)
    parser.add_argument("--loss", default="wgan", choices=list(DEFAULTS), help="the assignment's three games")
    parser.add_argument("--upsample", default="deconv", choices=["deconv", "nearest", "bilinear"],
                        help="how G doubles the size (the assignment's three ways)")
    parser.add_argument("--ngf", type=int, default=64, help="width of G (the assignment: 64); 16 for a slow laptop")
    parser.add_argument("--ndf", type=int, default=64, help="width of D (the assignment: 64); 16 for a slow laptop")
    parser.add_argument("--lr", type=float, help="rate of both; None: the assignment's 5e-5 for wgan (RMSProp), else 2e-4")
    parser.add_argument("--n-critic", type=int, help="D updates a G update; None: the paper's 5 for wgan (20 at times), else 1")
    parser.add_argument("--clip", type=float, help="wgan: bound of D's weights; None: the paper's 0.01; the assignment: 0.05")
    args, saved = common.parse(parser, argv)
    if args.clip and args.loss != "wgan":
        common.fail(f"--clip {args.clip}: only the critic of --loss wgan is clipped")
    for name, value in DEFAULTS[args.loss].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.batch_size < 2:
        common.fail("--batch-size 1: G's BatchNorm1d needs at least two")
    return args, saved


def load_images(args):
    """uint8 (N, 3, 64, 64)."""
    if args.dataset == "celeba":
        return common.load_faces(args.data, args.limit)
    return common.toy_faces(args.limit or 10_000)[0]


# -------------------------------------------------------------------------------------------- the two players
def double(channels_in, channels_out, upsample):
    """Double the size, in one of three ways. The two resizings leave an even area even (Odena et al. 2016)."""
    if upsample == "deconv":  # every output pixel gets 2 x 2 of the 4 x 4 taps: even, as 4 is a multiple of the stride
        return nn.ConvTranspose2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=upsample),
                         nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=1, padding=1, bias=False))


def up(channels_in, channels_out, upsample):
    """A block of G. No bias: BatchNorm's shift does its work."""
    return nn.Sequential(double(channels_in, channels_out, upsample), nn.BatchNorm2d(channels_out), nn.ReLU())


def down(channels_in, channels_out, kernel_size, stride, padding):
    """A block of D: size -> floor((size + 2 * padding - kernel_size) / stride) + 1. With a bias, as in the assignment."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, kernel_size, stride, padding),
                         nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2))


class Generator(nn.Module):
    """z (B, latent_dim) -> images (B, 3, 64, 64) in [-1, 1]. Shapes are at ngf=64."""

    def __init__(self, latent_dim=100, ngf=64, upsample="deconv"):
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
    """Images (B, 3, 64, 64) in [-1, 1] -> numbers (B,), high for real. No BatchNorm on the first layer."""

    def __init__(self, ndf=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, ndf, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2),  # (3, 64, 64) -> (64, 32, 32)
            down(ndf, 2 * ndf, kernel_size=4, stride=2, padding=1),  # (64, 32, 32) -> (128, 16, 16)
            down(2 * ndf, 4 * ndf, kernel_size=4, stride=2, padding=1),  # (128, 16, 16) -> (256, 8, 8)
            down(4 * ndf, 8 * ndf, kernel_size=4, stride=2, padding=1),  # (256, 8, 8) -> (512, 4, 4)
            nn.Conv2d(8 * ndf, 1, kernel_size=4, stride=1, padding=0),  # (512, 4, 4) -> (1, 1, 1)
            nn.Flatten(0),  # (1, 1, 1) -> ()
        )

    def forward(self, x):
        return self.layers(x)


def init_weights(net):
    """Weights of convolutions and linear layers N(0, 0.02), BatchNorm's scales N(1, 0.02), every bias 0."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, *norms)):
            nn.init.normal_(layer.weight, mean=1.0 if isinstance(layer, norms) else 0.0, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# -------------------------------------------------------------------------------------------- the three games
def loss_of_D(game, out_real, out_fake):
    """What D minimises in a game (wgan, minimax or lsgan), from its outputs (B,) on reals and on fakes."""
    if out_real.dim() != 1 or out_fake.dim() != 1:
        raise ValueError(f"D's outputs must be (B,), not {tuple(out_real.shape)} and {tuple(out_fake.shape)}")
    if game == "wgan":  # -(E[D(x)] - E[D(G(z))]): the critic widens the gap that its clipped weights allow
        return out_fake.mean() - out_real.mean()
    if game == "lsgan":  # E[(D(x) - 1)^2] + E[D(G(z))^2]
        return ((out_real - 1) ** 2).mean() + (out_fake ** 2).mean()
    # -E[log D(x)] - E[log(1 - D(G(z)))], where the paper's D is the sigmoid of ours, and 1 - sigmoid(a) = sigmoid(-a)
    return -F.logsigmoid(out_real).mean() - F.logsigmoid(-out_fake).mean()


def loss_of_G(game, out_fake):
    """What G minimises in a game, from D's outputs (B,) on fakes."""
    if game == "wgan":  # -E[D(G(z))]
        return -out_fake.mean()
    if game == "lsgan":  # E[(D(G(z)) - 1)^2]
        return ((out_fake - 1) ** 2).mean()
    # Not log(1 - D(G(z))), as the name minimax says: where D is sure of a fake, that is flat and G learns nothing, while
    # this is steep (Goodfellow et al. 2014, section 3).
    return -F.logsigmoid(out_fake).mean()  # -E[log D(G(z))]


def critic_updates(g_iter, n_critic):
    """How many updates the critic gets before G's next one, when G has had g_iter of them (assignment, section 2.1).

    G needs a good critic most at its beginning, and a chance for it to catch up now and then.
    """
    return 20 if g_iter < 50 or (g_iter + 1) % 500 == 0 else n_critic


def position(step, updates_before):
    """Where the schedule stands after `step` updates of D: (updates of G so far, updates of D since G's last one)."""
    g_step = 0
    while step >= updates_before(g_step):
        step, g_step = step - updates_before(g_step), g_step + 1
    return g_step, step


def step_D(G, D, opt_D, real, z, game, clip=None):
    """Teach D to tell real from fake.

    real: (B, 3, 64, 64) in [-1, 1]; z: (B, latent_dim). Returns the loss and D's outputs (B,) on the reals and on the
    fakes, as tensors.
    """
    with torch.no_grad():  # only D learns here, so G needs no graph
        fake = G(z)
    out_real, out_fake = D(real), D(fake)  # two batches: BatchNorm must not mix the statistics of reals and fakes
    loss_D = loss_of_D(game, out_real, out_fake)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    if clip:
        # A crude way to bound the critic's slope. It includes BatchNorm's scales, as in the code of the paper's authors:
        # people who left them out report losses orders of magnitude larger (WassersteinGAN, issues 18, 32, 75).
        with torch.no_grad():
            for weight in D.parameters():
                weight.clamp_(-clip, clip)
    return loss_D.detach(), out_real.detach(), out_fake.detach()


def step_G(G, D, opt_G, z, game):
    """Teach G to fool the D that has just been improved, for z (B, latent_dim). Returns the loss."""
    loss_G = loss_of_G(game, D(G(z)))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # the gradient flows through D, but only G receives it
    opt_G.step()
    return loss_G.detach()


READING_KEY = {
    "wgan": """How to read the losses: w_estimate = mean D(x) - mean D(G(z)) is the critic's estimate of a distance.
  loss_d = -w_estimate, loss_g = -mean D(G(z)): negative numbers are normal
  rising at first     the critic learns; the first 50 updates of G take 1,000 minibatches: this is slow, not stuck
  falling steadily    the samples come closer to the reals: unlike other GAN losses, this one should go down
  Only its course means something: it is known up to a constant, and another --clip or --ndf gives another.""",
    "minimax": """How to read the losses: loss_d is the sum of its halves on reals and on fakes.
  loss_d 1.386 = 2 log 2, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g growing                    D is always right, and G learns little""",
    "lsgan": """How to read the losses: D wants 1 for reals and 0 for fakes, and loss_d is the sum of both squared errors.
  loss_d 0.5, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g near 1         D is always right""",
}


def main(argv=None):
    args, saved = parse_args(argv)
    device = common.setup(args)
    images = load_images(args)
    latent_dim = 100
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf, "upsample": args.upsample}
    G = Generator(**keywords)
    D = Discriminator(args.ndf)
    for net in (G, D):
        init_weights(net)
        common.place(net, device, args.precision)
    if args.loss == "wgan":  # without momentum, as D's task keeps changing (the WGAN paper, section 4)
        opt_G, opt_D = (torch.optim.RMSprop(net.parameters(), args.lr) for net in (G, D))
    else:
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), args.lr, betas=(0.5, 0.999), fused=True) for net in (G, D))
    run = common.Run(args, saved, images, G, D, opt_G, opt_D, generator=keywords)
    print(READING_KEY[args.loss], flush=True)

    def updates_before(g_step):
        return critic_updates(g_step, args.n_critic) if args.loss == "wgan" else args.n_critic

    g_step, d_steps = position(run.step, updates_before)  # not zero in a resumed run, perhaps in the middle of a round

    for real in run.minibatches():
        # (1) D, or the critic: tell the reals from as many fakes. Every update draws a fresh minibatch
        z = torch.randn(len(real), latent_dim, device=device)
        loss_D, out_real, out_fake = step_D(G, D, opt_D, real, z, args.loss, args.clip)
        d_steps += 1
        # (2) G: fool D, with fresh noise, once D has had all of its updates
        if d_steps == updates_before(g_step):
            z = torch.randn(len(real), latent_dim, device=device)
            loss_G = step_G(G, D, opt_G, z, args.loss)
            g_step, d_steps = g_step + 1, 0
        else:
            loss_G = loss_of_G(args.loss, out_fake)  # G waits: what it would lose on these fakes, for the log
        w_estimate = out_real.mean() - out_fake.mean()
        if args.loss == "minimax":  # only there are D's outputs logits
            out_real, out_fake = out_real.sigmoid(), out_fake.sigmoid()
        run.log(loss_d=loss_D, loss_g=loss_G, d_real=out_real.mean(), d_fake=out_fake.mean(),
                g_step=g_step, w_estimate=w_estimate)

    run.finish(["w_estimate"])


if __name__ == "__main__":
    main()
