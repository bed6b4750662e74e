"""Walks through latent space: is each picture on the way plausible?

The assignment: in latent space "any z' seems to yield a plausible celebrity face", in screen space
everything between the ends has "ghosting artifacts". Here 20 pairs of seeds, 0 and 1 to 38 and 39,
11 pictures a walk, the ends counted apart.

Digits are judged by the classifier of score_samples.py: a picture counts as plausible where its
most likely digit has a probability above 0.9. It was trained on digits only and can be sure of what
is none, so the same share is given for real digits, for independent samples, and for the walks in
screen space, whose ghosts are the yardstick. Faces have no such judge here: the script draws the
walks of eight pairs, six pictures each, for the eye.

Run from the project's root, with MNIST in data/:
    python dcgan_mnist.py --epochs 16
    python docs/notebook/walks.py runs/dcgan_mnist/checkpoint.pt --pairs 20
    python docs/notebook/walks.py runs/dcgan_celeba/checkpoint.pt --pairs 8 --faces
It writes walks_SPACE.png beside the checkpoint, or into --out.
"""
import argparse
import sys
from pathlib import Path

import torch

for folder in Path(__file__).resolve().parents[:3]:  # the project's root is one of them
    sys.path.insert(0, str(folder))
import common
import score_samples
from explore_latent import between, images_of, load_generator, z_of

SPACES = ["latent", "sphere", "screen"]
SURE = 0.9
SAMPLES = 2000  # independent ones, and reals


def all_walks(G, latent_dim, space, pairs, frames):
    """(pairs, frames, C, H, W)"""
    walks = []
    for i in range(pairs):
        walks.append(between(G, space, z_of(2 * i, latent_dim), z_of(2 * i + 1, latent_dim), frames))
    return torch.stack(walks)


def sure(classifier, images):
    """Where the most likely digit has a probability above 0.9: booleans (N,)."""
    p, _ = score_samples.judge(classifier, images)
    return p.max(dim=1).values > SURE


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("--data", default="data")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--faces", action="store_true", help="a generator of faces: only draw")
    parser.add_argument("--out")
    args = parser.parse_args()
    out = Path(args.out or Path(args.checkpoint).parent)
    out.mkdir(parents=True, exist_ok=True)

    G, latent_dim = load_generator(args.checkpoint, torch.device("cpu"))
    if args.faces:
        for space in SPACES:
            pictures = all_walks(G, latent_dim, space, args.pairs, frames=6)
            common.save_grid(out / f"walks_{space}.png", pictures.flatten(0, 1), columns=6)
        samples = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in range(100, 148)]))
        common.save_grid(out / "walks_independent.png", samples, columns=6)
        return

    reals, labels = common.load_mnist(args.data, "mnist", test=True)
    classifier = score_samples.load_classifier(
        reals, labels, Path(args.data, "classifier_mnist.pt"), torch.device("cpu"))
    unseen = reals[::7][:SAMPLES]  # the classifier was not trained on every seventh
    samples = images_of(G, torch.stack([z_of(seed, latent_dim) for seed in range(SAMPLES)]))
    print(f"real digits: {sure(classifier, unseen).float().mean():.1%} plausible")
    print(f"independent samples: {sure(classifier, samples).float().mean():.1%}")

    print("\n| space | at the ends | between them | by picture, from the 2nd to the 10th | "
          "walks with all 9 plausible |")
    print("|---|---|---|---|---|")
    for space in SPACES:
        pictures = all_walks(G, latent_dim, space, args.pairs, frames=11)
        good = sure(classifier, pictures.flatten(0, 1)).view(args.pairs, 11)
        middle = good[:, 1:-1]
        ends = good[:, [0, -1]].float().mean()
        by_picture = " ".join(str(int(count)) for count in middle.sum(dim=0))
        print(f"| {space} | {ends:.1%} | {middle.float().mean():.1%} "
              f"({int(middle.sum())} of {middle.numel()}) | {by_picture} | "
              f"{int(middle.all(dim=1).sum())} of {args.pairs} |")
        common.save_grid(out / f"walks_{space}.png", pictures.flatten(0, 1), columns=11)


if __name__ == "__main__":
    main()
