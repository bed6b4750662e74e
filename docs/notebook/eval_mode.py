"""The blog's eval mode: is it BatchNorm?

The post: switching to `.eval()` and back inside training made its GAN diverge. With the script's
DCGAN, D in eval mode while G learns ruins the game, G in eval mode while D learns does not. Here
BatchNorm is taken out of G, of D, or of both; nothing else is changed.

    normal    both nets always in training mode, as dcgan_mnist.py
    D eval    D in eval mode while G learns

Without BatchNorm and Dropout a net computes the same in both modes, so for such a D the two ways
are one. The last column checks that, bit for bit; what cannot differ is trained once.

With --compare, BatchNorm stays, and D is in eval mode while G learns, but its BatchNorm layers take
the minibatch's statistics in both modes. If this is the ordinary run, bit for bit, it is the running
statistics that ruin the game.

Run from the project's root, with MNIST in data/:
    OMP_NUM_THREADS=1 python docs/notebook/eval_mode.py --compare --limit 12800 --epochs 1
    OMP_NUM_THREADS=1 python docs/notebook/eval_mode.py --limit 35000 --epochs 2
Samples of each run: runs/eval-mode/NAME_EPOCH.png
"""
import argparse
import copy
import sys
from pathlib import Path

import torch
from torch import nn

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
import common
import score_samples
from dcgan_mnist import DCGANDiscriminator, DCGANGenerator, init_weights, step_D, step_G

LATENT_DIM = 128
BATCH_SIZE = 128
# name -> (BatchNorm in G, BatchNorm in D, the way to train)
RUNS = {
    "none, normal": (False, False, "normal"),
    "D only, D eval": (False, True, "D eval"),
    "D only, normal": (False, True, "normal"),
    "G only, normal": (True, False, "normal"),
    "both, D eval": (True, True, "D eval"),
    "both, normal": (True, True, "normal"),
    "both, D eval, no running statistics": (True, True, "D eval, no running statistics"),
}


def remove_batchnorm(net):
    """Put nothing in the place of each BatchNorm layer."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def forget_running_statistics(net):
    """Let each BatchNorm layer use the minibatch's statistics in eval mode too."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = None


def same_in_both_modes(net, x):
    """Whether a net gives the same bits in training mode and in eval mode."""
    net = copy.deepcopy(net)  # BatchNorm's running statistics change in training mode
    with torch.no_grad():
        return torch.equal(net.train()(x), net.eval()(x))


def train(images, norm_G, norm_D, way, seed, epochs, default_init):
    """Train as dcgan_mnist.py does. Yields each epoch's means, G and D."""
    torch.manual_seed(seed)
    torch.randn(256, LATENT_DIM)  # the script's fixed noise: draw it, to have the same weights
    G, D = DCGANGenerator(LATENT_DIM), DCGANDiscriminator()
    if not default_init:
        G.apply(init_weights)
        D.apply(init_weights)
    if not norm_G:
        remove_batchnorm(G)
    if not norm_D:
        remove_batchnorm(D)
    if "no running statistics" in way:
        forget_running_statistics(D)
    for net in (G, D):
        net.to(memory_format=torch.channels_last)
    settings = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 1e-5, "fused": True}
    opt_G = torch.optim.AdamW(G.parameters(), **settings)
    opt_D = torch.optim.AdamW(D.parameters(), **settings)
    for epoch in range(epochs):
        torch.manual_seed(1_000_000 * seed + epoch + 1)
        rows = []
        for batch in torch.randperm(len(images)).unfold(0, BATCH_SIZE, BATCH_SIZE):
            real = images[batch] / 127.5 - 1
            fake = G(torch.randn(BATCH_SIZE, LATENT_DIM))
            loss_D, d_real, d_fake = step_D(D, opt_D, real, fake.detach())
            if way.startswith("D eval"):
                D.eval()
            loss_G = step_G(G, D, opt_G, fake)
            D.train()
            rows.append(torch.stack([loss_D, loss_G, d_real, d_fake]))
        yield torch.stack(rows).mean(dim=0).tolist(), G, D


@torch.no_grad()
def quality(G, classifier):
    """The Inception score of 4,096 samples, in four parts as in score_samples.py; the deviation of
    a pixel over 256 of them (mean over the pixels); 64 of them."""
    G.eval()
    z = torch.randn(4096, LATENT_DIM, generator=torch.Generator().manual_seed(0))
    samples = torch.cat([G(part) for part in z.split(64)])
    G.train()
    p, _ = score_samples.judge(classifier, samples)
    scores = torch.tensor([score_samples.inception_score(part) for part in p.tensor_split(4)])
    return scores.mean().item(), samples[:256].std(dim=0).mean().item(), samples[:64]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="data")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--limit", type=int, default=70_000)
    parser.add_argument("--only", help="one of the runs' names")
    parser.add_argument("--compare", action="store_true",
                        help="does D's eval mode change one bit once running statistics are off?")
    parser.add_argument("--default-init", action="store_true",
                        help="PyTorch's own first weights: without BatchNorm N(0, 0.02^2) is small")
    parser.add_argument("--runs", default="runs")
    args = parser.parse_args()
    out = Path(args.runs, "eval-mode")
    out.mkdir(parents=True, exist_ok=True)
    images, labels = common.load_mnist(args.data, "mnist", test=True)
    classifier = score_samples.load_classifier(
        images, labels, Path(args.data, "classifier_mnist.pt"), torch.device("cpu"))
    images = images[:args.limit]

    if args.compare:
        weights = []
        for name in ("both, normal", "both, D eval, no running statistics", "both, D eval"):
            for means, G, D in train(images, *RUNS[name], args.seed, args.epochs, False):
                print(f"{name}: loss_d {means[0]:.5f}, loss_g {means[1]:.2f}", flush=True)
            weights.append(list(G.parameters()) + list(D.parameters()))
        for name, others in [("without running statistics", weights[1]), ("with", weights[2])]:
            same = all(torch.equal(a, b) for a, b in zip(weights[0], others))
            print(f"D in eval mode while G learns, {name}: same weights as the normal run: {same}")
        return

    names = [args.only] if args.only else list(RUNS)
    print("| BatchNorm in, way | epoch | loss_d | loss_g | D on reals, on fakes | Inception score "
          "| deviation of a pixel | same in both modes: G, D |")
    print("|---" * 8 + "|")
    for name in names:
        norm_G, norm_D, way = RUNS[name]
        epochs = train(images, norm_G, norm_D, way, args.seed, args.epochs, args.default_init)
        for epoch, (means, G, D) in enumerate(epochs, start=1):
            score, deviation, samples = quality(G, classifier)
            same_G = same_in_both_modes(G, torch.randn(64, LATENT_DIM))
            same_D = same_in_both_modes(D, samples)
            loss_d, loss_g, d_real, d_fake = means
            print(f"| {name} | {epoch} | {loss_d:.5f} | {loss_g:.2f} | {d_real:.3f}, {d_fake:.3f} "
                  f"| {score:.2f} | {deviation:.3f} | {same_G}, {same_D} |", flush=True)
            file = f"{name.replace(', ', '-').replace(' ', '-')}_{epoch}.png"
            common.save_grid(out / file, samples)


if __name__ == "__main__":
    main()
