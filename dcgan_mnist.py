"""Two GANs on MNIST or Fashion-MNIST, in one loop: the vanilla (plain) MLP GAN, and the DCGAN.

Source    "Generative Adversarial Networks", Gregor Cerar's blog post (2023): the GAN of Goodfellow
          et al. 2014 (arXiv:1406.2661) and the DCGAN of Radford et al. 2015 (arXiv:1511.06434)
Run       python dcgan_mnist.py --epochs 16           the DCGAN; downloads MNIST (11 MB)
          python dcgan_mnist.py --model mlp           the MLP GAN, 100 epochs: half an hour
          python dcgan_mnist.py --dataset toy         zeros drawn by code, nothing to download
          python dcgan_mnist.py --cuda-graph          on an NVIDIA GPU, several times faster
Look at   training.gif (16 x 16 samples, the same noise in every epoch), samples/, losses.png
Notation  z: noise (B, latent_dim). G(z): images (B, 1, 28, 28) in [-1, 1]. D(x): the probability
          that x is real, as in the papers. In the code D returns logits (B,), the numbers whose
          sigmoid is D(x). B: --batch-size.
"""
import time

import torch
from torch import nn
from torch.nn import functional as F

import common


def parse_args(argv):
    parser = common.training_parser(__file__, __doc__, ["mnist", "fashion", "toy"],
                                    epochs=100, batch_size=128, seed=42)
    add = parser.add_argument
    add("--model", default="dcgan", choices=["dcgan", "mlp"], help="the two that the post compares")
    add("--ngf", type=int, help="width of G; None: 32 for dcgan, 256 for mlp (the post)")
    add("--ndf", type=int, help="width of D; None: 32 for dcgan, 128 for mlp (the post)")
    add("--lr", type=float, default=2e-4, help="AdamW rate of both (the post)")
    add("--cuda-graph", action="store_true", help="on CUDA: record a round, replay it: faster")
    args, saved = common.parse(parser, argv)
    args.ngf = args.ngf or (32 if args.model == "dcgan" else 256)
    args.ndf = args.ndf or (32 if args.model == "dcgan" else 128)
    return args, saved


def load_images(args):
    """Training and test images together, as in the post: uint8 (70000, 1, 28, 28)."""
    if args.dataset == "toy":
        import toy_images
        return toy_images.zeros()[:args.limit]
    return common.load_mnist(args.data, args.dataset, test=True)[0][:args.limit]


# ------------------------------------------------------------------------ the MLP GAN's two players
class MLPGenerator(nn.Module):
    """z (B, latent_dim) -> images (B, 1, 28, 28) in [-1, 1]."""

    def __init__(self, latent_dim=100, ngf=256):  # comments: one image's shapes, ngf=256
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_dim, ngf), nn.LeakyReLU(0.2),  # (100,) -> (256,)
            nn.Linear(ngf, 2 * ngf), nn.LeakyReLU(0.2),  # (256,) -> (512,)
            nn.Linear(2 * ngf, 4 * ngf), nn.LeakyReLU(0.2),  # (512,) -> (1024,) (post's typo: 512)
            nn.Linear(4 * ngf, 28 * 28), nn.Tanh(),  # (1024,) -> (784,)
            nn.Unflatten(1, (1, 28, 28)),  # (784,) -> (1, 28, 28)
        )

    def forward(self, z):
        return self.layers(z)


class MLPDiscriminator(nn.Module):
    """Images (B, 1, 28, 28) in [-1, 1] -> logits (B,). No sigmoid: the loss has it, and never
    takes log 0."""

    def __init__(self, ndf=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),  # (1, 28, 28) -> (784,)
            nn.Linear(28 * 28, 4 * ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (784,) -> (512,)
            nn.Linear(4 * ndf, 2 * ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (512,) -> (256,)
            nn.Linear(2 * ndf, ndf), nn.LeakyReLU(0.2), nn.Dropout(0.3),  # (256,) -> (128,)
            nn.Linear(ndf, 1), nn.Flatten(0),  # (128,) -> (): one logit
        )

    def forward(self, x):
        return self.layers(x)


# -------------------------------------------------------------------------- the DCGAN's two players
def up(channels_in, channels_out, kernel_size, stride, padding):
    """A block of G: size -> stride * (size - 1) + kernel_size - 2 * padding. No bias:
    BatchNorm's shift does its work."""
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
            nn.Flatten(0),  # (1, 1, 1) -> (): one logit
        )

    def forward(self, x):
        return self.layers(x)


def init_weights(layer):
    """For net.apply: weights N(0, 0.02^2), BatchNorm's scales N(1, 0.02^2), every bias 0."""
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
        mean = 1.0 if isinstance(layer, nn.BatchNorm2d) else 0.0
        nn.init.normal_(layer.weight, mean, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------ their updates
def step_D(D, opt_D, real, fake):
    """Teach D to tell real from fake: minimise  -1/2 [log D(x) + log(1 - D(G(z)))].

    real, fake: (B, 1, 28, 28) in [-1, 1]; fake without the graph that leads back to G. Returns the
    loss and D's mean probability on the reals and on the fakes, as tensors.
    """
    # binary cross-entropy, its sigmoid included: label 1 gives -log D, label 0 gives -log(1 - D)
    logits_real, logits_fake = D(real), D(fake)  # apart: BatchNorm must not mix their statistics
    loss_D = (F.binary_cross_entropy_with_logits(logits_real, torch.ones_like(logits_real)) +
              F.binary_cross_entropy_with_logits(logits_fake, torch.zeros_like(logits_fake))) / 2
    opt_D.zero_grad()
    loss_D.backward()
    opt_D.step()
    d_real, d_fake = (logits.detach().sigmoid().mean() for logits in (logits_real, logits_fake))
    return loss_D.detach(), d_real, d_fake


def step_G(G, D, opt_G, fake):
    """Teach G to fool the D that has just been improved: minimise  -log D(G(z)).

    fake: (B, 1, 28, 28) in [-1, 1], with the graph that leads back to G. Returns the loss.
    """
    logits = D(fake)
    # Not the minimax game's log(1 - D(G(z))): where D is sure of a fake, its gradient at D's logit
    # vanishes and G learns nothing; this one's does not (Goodfellow et al. 2014, section 3).
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
  loss_d 0.693 = log 2, d_real = d_fake = 1/2    D cannot tell: equilibrium, or nothing learned yet
  loss_d near 0, loss_g growing                  D is always right: G may stop learning
  both wandering in between                      a healthy game; look at the samples"""


# ----------------------------------------------------------------------------------------- the game
def main(argv=None):
    args, saved = parse_args(argv)
    device = common.pick_device(args.device)
    images = common.hold(load_images(args), args.batch_size, device)
    torch.manual_seed(args.seed)  # the fixed noise and the first weights depend on it
    latent_dim = 128 if args.model == "dcgan" else 100
    fixed_z = torch.randn(256, latent_dim).to(device)
    keywords = {"latent_dim": latent_dim, "ngf": args.ngf}
    if args.model == "dcgan":
        G, D = DCGANGenerator(**keywords), DCGANDiscriminator(args.ndf)
    else:
        G, D = MLPGenerator(**keywords), MLPDiscriminator(args.ndf)
    for net in (G, D):
        net.apply(init_weights)
        common.place(net, device, args.precision)
    # fused: the same update, computed faster
    opt_G, opt_D = (torch.optim.AdamW(net.parameters(), args.lr, betas=(0.5, 0.999),
                                      weight_decay=1e-5, fused=True) for net in (G, D))
    parts = {"G": G, "D": D, "opt_G": opt_G, "opt_D": opt_D}  # what a resume restores
    generator = {"class": type(G).__name__, **keywords}  # how to build G again
    step = first_epoch = 0

    out = common.open_run(args, device, images, G, D)
    if saved:  # --resume: all as it was at the end of the last finished epoch
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, first_epoch, fixed_z = saved["step"], saved["epoch"], saved["fixed_z"].to(device)
        common.keep_rows(out / "losses.csv", step)
    else:
        common.save_grid(out / "real.png", common.to_float(images[:256]))
        save_samples(out / "samples/step_000000.png", G, fixed_z)
    # after a resume too: the flags typed now hold from now on
    common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                           epoch=first_epoch)
    print(READING_KEY, flush=True)

    def play(real):  # one round of the game; a function, so that a CUDA graph can record it
        fake = G(torch.randn(len(real), latent_dim, device=device))
        # (1) D: tell the reals from as many fakes
        loss_D, d_real, d_fake = step_D(D, opt_D, real, fake.detach())
        # (2) G: fool the improved D with the same fakes
        loss_G = step_G(G, D, opt_G, fake)
        return loss_D, loss_G, d_real, d_fake

    if args.cuda_graph:
        import cuda_graph
        play = cuda_graph.recorded(play, device, [opt_G, opt_D])

    for epoch in range(first_epoch, args.epochs):
        torch.manual_seed(1_000_000 * args.seed + epoch + 1)  # a resume draws the same numbers
        start, rows = time.perf_counter(), []
        for batch in common.shuffled_batches(images, args.batch_size, epoch, args.epochs):
            step += 1
            real = common.to_float(images[batch].to(device))
            loss_D, loss_G, d_real, d_fake = play(real)
            common.add_row(rows, step=step, epoch=epoch + 1, loss_d=loss_D, loss_g=loss_G,
                           d_real=d_real, d_fake=d_fake)  # as tensors: .item() makes a GPU wait

        means = common.append_rows(out / "losses.csv", rows)
        save_samples(out / f"samples/step_{step:06d}.png", G, fixed_z)
        common.save_checkpoint(out, args, parts, generator=generator, fixed_z=fixed_z, step=step,
                               epoch=epoch + 1)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}/{args.epochs}, step {step}: {means}, "
              f"{len(rows) * args.batch_size / seconds:,.0f} images/s, "
              f"{(args.epochs - epoch - 1) * seconds / 60:.1f} min left", flush=True)

    common.draw_run(out)  # losses.png and training.gif


if __name__ == "__main__":
    common.launch(main)
