"""One architecture, three losses on CelebA: the WGAN and its schedule, minimax and least squares.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018: the WGAN of Arjovsky et al. 2017 (arXiv:1701.07875), the
          LSGAN of Mao et al. 2016 (arXiv:1611.04076)
Run       python wgan_celeba.py                           the WGAN; put CelebA into data/celeba
          python wgan_celeba.py --loss minimax            Goodfellow et al. 2014, on the same nets
          python wgan_celeba.py --loss lsgan --upsample nearest        resizing, no deconvolution
          python wgan_celeba.py --dataset toy             faces drawn by code, nothing to download
          python wgan_celeba.py --data ~/pictures --ngf 16 --ndf 16         yours, on a slow laptop
Look at   losses.png (with wgan, w_estimate is the curve that means something), samples/
Notation  z: noise (B, latent_dim). G(z): images (B, 3, 64, 64) in [-1, 1]. D(x): numbers (B,), high
          for real. With wgan D is called the critic; with minimax the numbers are logits, and
          sigmoid(D(x)) is what the paper writes as D(x). B: --batch-size.
"""
import time

import torch
from torch import nn
from torch.nn import functional as F

import common

# loss -> what the assignment trains it with (its optimizers are in main). The clip is the WGAN
# paper's; the assignment's own run used 0.05
DEFAULTS = {
    "wgan": {"lr": 5e-5, "n_critic": 5, "clip": 0.01},
    "minimax": {"lr": 2e-4, "n_critic": 1, "clip": 0.0},
    "lsgan": {"lr": 2e-4, "n_critic": 1, "clip": 0.0},
}


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["celeba", "toy"],
                                    epochs=50, batch_size=64, seed=0)
    add = parser.add_argument
    add("--loss", default="wgan", choices=list(DEFAULTS), help="the assignment's three games")
    add("--upsample", default="deconv", choices=["deconv", "nearest", "bilinear"],
        help="how G doubles the size (the assignment's three ways)")
    add("--ngf", type=int, default=64, help="width of G (the assignment: 64); 16 for a slow laptop")
    add("--ndf", type=int, default=64, help="width of D (the assignment: 64); 16 for a slow laptop")
    add("--lr", type=float, help="rate of both; None: 5e-5 for wgan, else 2e-4 (the assignment)")
    add("--n-critic", type=int, help="D updates for one of G; None: the assignment's (wgan: 5, 20)")
    add("--clip", type=float, help="bound of the critic's weights, 0: none; None: 0.01 for wgan "
        "(its paper; the assignment's own run: 0.05)")
    add("--cuda-graph", action="store_true", help="on CUDA: record a round, replay it: faster")
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
    import toy_images
    return toy_images.faces(args.limit)[0]


# ---------------------------------------------------------------------------------- the two players
def double(channels_in, channels_out, upsample):
    """Double the size, in one of three ways. All can keep a flat area flat: the deconvolution's
    4 x 4 kernel at stride 2 reaches every pixel equally often (3 x 3 would not: a checkerboard)."""
    if upsample == "deconv":
        return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=upsample),
                         nn.Conv2d(channels_in, channels_out, 3, stride=1, padding=1, bias=False))


def up(channels_in, channels_out, upsample):
    """A block of G. No bias: BatchNorm's shift does its work."""
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
            nn.Flatten(0),  # (1, 1, 1) -> (): one number
        )

    def forward(self, x):
        return self.layers(x)


def init_weights(layer):
    """For net.apply: weights N(0, 0.02^2), BatchNorm's scales N(1, 0.02^2), every bias 0."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, *norms)):
        mean = 1.0 if isinstance(layer, norms) else 0.0
        nn.init.normal_(layer.weight, mean, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------ their updates
def loss_of_D(game, out_real, out_fake):
    """What D minimises in a game (a --loss), from its outputs (B,) on reals and on fakes."""
    if game == "wgan":  # -(E[D(x)] - E[D(G(z))]): widen the gap, as far as the clip lets it
        return out_fake.mean() - out_real.mean()
    if game == "lsgan":  # E[(D(x) - 1)^2] + E[D(G(z))^2]
        return ((out_real - 1) ** 2).mean() + (out_fake ** 2).mean()
    # -E[log D(x)] - E[log(1 - D(G(z)))], where the paper's D is the sigmoid of ours
    return (F.binary_cross_entropy_with_logits(out_real, torch.ones_like(out_real)) +
            F.binary_cross_entropy_with_logits(out_fake, torch.zeros_like(out_fake)))


def loss_of_G(game, out_fake):
    """What G minimises in a game, from D's outputs (B,) on fakes."""
    if game == "wgan":  # -E[D(G(z))]
        return -out_fake.mean()
    if game == "lsgan":  # E[(D(G(z)) - 1)^2]
        return ((out_fake - 1) ** 2).mean()
    # -E[log D(G(z))]. Not the log(1 - D(G(z))) of the minimax game: where D is sure of a fake, its
    # gradient at the logit vanishes; this one's does not (Goodfellow et al. 2014, section 3).
    return F.binary_cross_entropy_with_logits(out_fake, torch.ones_like(out_fake))


def critic_updates(game, n_critic, g_step):
    """How many updates D gets before G's next one, when G has had g_step (assignment, section 2.1).

    The WGAN's G needs a good critic most at its beginning, and one that catches up now and then.
    """
    extra = game == "wgan" and (g_step < 50 or (g_step + 1) % 500 == 0)
    return max(20, n_critic) if extra else n_critic


def step_D(D, opt_D, real, fake, game, clip=0.0):
    """Teach D to tell real from fake: minimise `loss_of_D`, then clip D's weights to [-clip, clip].

    real, fake: (B, 3, 64, 64) in [-1, 1]; fake without the graph that leads back to G. Returns the
    loss and D's outputs (B,) on the reals and on the fakes, as tensors.
    """
    out_real, out_fake = D(real), D(fake)  # apart: BatchNorm must not mix their statistics
    loss_D = loss_of_D(game, out_real, out_fake)
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    if clip:
        # The gap estimates the Wasserstein distance where D's slope is bounded (Lipschitz): larger
        # weights alone would widen it without end. A crude bound; on BatchNorm's scales too, as in
        # the code of the paper's authors.
        with torch.no_grad():
            for weight in D.parameters():
                weight.clamp_(-clip, clip)
    return loss_D.detach(), out_real.detach(), out_fake.detach()


def step_G(G, D, opt_G, fake, game):
    """Teach G to fool the D that has just been improved: minimise `loss_of_G`.

    fake: (B, 3, 64, 64) in [-1, 1], with the graph that leads back to G. Returns the loss.
    """
    loss_G = loss_of_G(game, D(fake))
    opt_G.zero_grad()
    loss_G.backward(inputs=list(G.parameters()))  # through D, but only G receives a gradient
    opt_G.step()
    return loss_G.detach()


def mean_of(game, out):
    """D's mean output, for the log; with minimax, whose outputs are logits, a mean probability."""
    return (out.sigmoid() if game == "minimax" else out).mean()


def save_samples(path, G, fixed_z):
    """Pictures from the fixed noise. In eval mode, with BatchNorm's running statistics, no picture
    depends on the others of its batch; G goes back to training mode."""
    G.eval()
    with torch.no_grad():
        common.save_grid(path, G(fixed_z))
    G.train()


READING_KEY = {
    "wgan": """How to read the losses: w_estimate = mean D(x) - mean D(G(z)), on a scale of its own.
  loss_d = -w_estimate, loss_g = -mean D(G(z)): negative numbers are normal
  rising at first     the critic learns: G's first 50 updates take 1,000 minibatches
  falling steadily    the samples come closer to the reals: this curve should go down
  Only its course means something: another --clip or --ndf gives another scale.""",
    "minimax": """How to read the losses: loss_d = loss on reals + loss on fakes.
  loss_d 1.386 = 2 log 2, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g growing                    D is always right: G may stop learning""",
    "lsgan": """How to read the losses: D wants 1 for reals, 0 for fakes; loss_d sums both errors.
  loss_d 0.5, d_real = d_fake = 1/2    D cannot tell fakes from reals
  loss_d near 0, loss_g near 1         D is always right""",
}


# ----------------------------------------------------------------------------------------- the game
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    images = common.hold(load_images(args), args.batch_size, device)
    torch.manual_seed(args.seed)  # the fixed noise and the first weights depend on it
    latent_dim = 100
    fixed_z = torch.randn(64, latent_dim).to(device)
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf, "upsample": args.upsample}
    G, D = Generator(**keywords), Discriminator(args.ndf)
    for net in (G, D):
        net.apply(init_weights)
        common.place(net, device, args.precision)
    if args.loss == "wgan":  # no momentum: the critic's task keeps changing (WGAN paper, section 4)
        opt_G, opt_D = (torch.optim.RMSprop(net.parameters(), args.lr) for net in (G, D))
    else:
        # fused: the same update, computed faster
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), args.lr, betas=(0.5, 0.999), fused=True)
                        for net in (G, D))
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}  # what a resume restores
    generator = {"class": type(G).__name__, **keywords}  # how to build G again
    # step: minibatches; g_step: updates of G; d_steps: updates of D since G's last one
    step = first_epoch = g_step = d_steps = 0

    out = common.open_run(args, device, images, G, D)
    if saved:  # --resume: all as it was at the end of the last finished epoch
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, first_epoch, fixed_z = saved["step"], saved["epoch"], saved["fixed_z"].to(device)
        g_step, d_steps = saved["g_step"], saved["d_steps"]
        common.keep_rows(out / "losses.csv", step)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:64]))
        save_samples(out / "samples/step_000000.png", G, fixed_z)
    # after a resume too: the flags typed now hold from now on
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch, g_step=g_step, d_steps=d_steps)
    print(READING_KEY[args.loss], flush=True)

    def play_D(real):  # one update; functions, so that CUDA graphs can record them
        with torch.no_grad():  # only D learns here, so G needs no graph
            fake = G(torch.randn(len(real), latent_dim, device=device))
        return step_D(D, opt_D, real, fake, args.loss, args.clip)

    def play_G(real):
        fake = G(torch.randn(len(real), latent_dim, device=device))
        return step_G(G, D, opt_G, fake, args.loss)

    if args.cuda_graph:
        import cuda_graph
        play_D = cuda_graph.recorded(play_D, device, [opt_D])
        play_G = cuda_graph.recorded(play_G, device, [opt_G])

    for epoch in range(first_epoch, args.epochs):
        torch.manual_seed(1_000_000 * args.seed + epoch + 1)  # a resume draws the same numbers
        start, rows = time.perf_counter(), []
        for batch in common.shuffled_batches(images, args.batch_size, epoch, args.epochs):
            step += 1
            real = common.to_float(images[batch].to(device))
            # (1) D: tell the reals from as many fakes; every update has a fresh minibatch
            loss_D, out_real, out_fake = play_D(real)
            d_steps += 1
            # (2) G: fool the improved D with fresh fakes, once D has had all of its updates
            if d_steps == critic_updates(args.loss, args.n_critic, g_step):
                loss_G = play_G(real)
                g_step, d_steps = g_step + 1, 0
            else:
                loss_G = loss_of_G(args.loss, out_fake)  # G waits: its loss on D's fakes, to log
            d_real, d_fake = mean_of(args.loss, out_real), mean_of(args.loss, out_fake)
            common.add_row(rows, step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G,
                           d_real=d_real, d_fake=d_fake,  # as tensors: .item() makes a GPU wait
                           g_step=g_step, w_estimate=out_real.mean() - out_fake.mean())

        means = common.append_rows(out / "losses.csv", rows)
        save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)
        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1, g_step=g_step, d_steps=d_steps)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{args.epochs}, step {step}: {means}, "
              f"{len(rows) * args.batch_size / seconds:,.0f} images/s, "
              f"{(args.epochs - epoch - 1) * seconds / 60:.1f} min left", flush=True)

    common.draw_run(out)  # losses.png and training.gif


if __name__ == "__main__":
    common.launch(main)
