"""How often D is right about digits: in minibatches of one kind, in mixed ones, and in eval mode.

D learns from minibatches that are all real or all fake, and BatchNorm uses the whole minibatch. So
D may know a fake by its company. Here it is asked about the same images in three ways.

Run from the project's root, with MNIST in data/:
    python docs/notebook/accuracy.py runs/digits/checkpoint.pt runs/digits-mlp/checkpoint.pt
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the scripts

import common
import dcgan_mnist
from explore_latent import load_generator

BATCH_SIZE = 128


def load_discriminator(path):
    saved = common.load_checkpoint(path)
    if saved["args"]["model"] == "dcgan":
        D = dcgan_mnist.DCGANDiscriminator(saved["args"]["ndf"])
    else:
        D = dcgan_mnist.MLPDiscriminator(saved["args"]["ndf"])
    D.load_state_dict(saved["D"])
    return D


def share_right(D, reals, fakes):
    """The share of right answers on reals and on fakes, each judged in its own minibatches."""
    logits_real = torch.cat([D(part) for part in reals.split(BATCH_SIZE)])
    logits_fake = torch.cat([D(part) for part in fakes.split(BATCH_SIZE)])
    return (logits_real > 0).float().mean(), (logits_fake < 0).float().mean()


def share_right_in_mixed_batches(D, reals, fakes):
    """The same, where each minibatch is half real and half fake."""
    half = BATCH_SIZE // 2
    right_on_reals, right_on_fakes = [], []
    for some_reals, some_fakes in zip(reals.split(half), fakes.split(half)):
        logits = D(torch.cat([some_reals, some_fakes]))
        right_on_reals.append(logits[:half] > 0)
        right_on_fakes.append(logits[half:] < 0)
    return torch.cat(right_on_reals).float().mean(), torch.cat(right_on_fakes).float().mean()


@torch.no_grad()
def main(paths):
    torch.manual_seed(0)
    images, _ = common.load_mnist("data", "mnist", test=True)
    reals = common.to_float(images[torch.randperm(len(images))[:2048]])
    for path in paths:
        D = load_discriminator(path)
        G, latent_dim = load_generator(path, torch.device("cpu"))
        G.train()  # as D has seen its samples
        fakes = torch.cat([G(z) for z in torch.randn(2048, latent_dim).split(BATCH_SIZE)])
        ways = {"as it learned": share_right(D.train(), reals, fakes),
                "mixed minibatches": share_right_in_mixed_batches(D.train(), reals, fakes),
                "eval mode": share_right(D.eval(), reals, fakes)}
        for way, (on_reals, on_fakes) in ways.items():
            print(f"{way}: right on {on_reals:.1%} of the reals, {on_fakes:.1%} of the fakes")


if __name__ == "__main__":
    main(sys.argv[1:])
