"""The middle of a walk: on a straight line z becomes short, and on an arc it does not.

Run from the project's root:
    python docs/notebook/arc.py pretrained/faces.pt pretrained/digits_mlp.pt

For 20 pairs of seeds (0 and 1, 2 and 3, ...) it prints the mean and the deviation over the pairs of:
the length of z, and the contrast of the image (the deviation of its pixels, which go from -1 to 1).
"""
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the scripts

from explore_latent import images_of, load_generator, slerp, z_of

PAIRS = 20


def length_and_contrast(G, z):
    """Of z (N, latent_dim) and their images: two numbers, means over the N."""
    length = z.norm(dim=1).mean()
    contrast = images_of(G, z).flatten(1).std(dim=1).mean()
    return torch.stack([length, contrast])


def main(paths):
    for path in paths:
        G, latent_dim = load_generator(path, torch.device("cpu"))
        rows = {"the two ends": [], "middle of the line": [], "middle of the arc": []}
        for pair in range(PAIRS):
            a, b = z_of(2 * pair, latent_dim), z_of(2 * pair + 1, latent_dim)
            line = (a + b) / 2
            arc = slerp(a, b, torch.tensor([[0.5]]))
            rows["the two ends"].append(length_and_contrast(G, torch.stack([a, b])))
            rows["middle of the line"].append(length_and_contrast(G, line.unsqueeze(0)))
            rows["middle of the arc"].append(length_and_contrast(G, arc))
        for name, values in rows.items():
            length, contrast = torch.stack(values).mean(dim=0)
            _, deviation = torch.stack(values).std(dim=0)
            print(f"{name}: length {length:.2f}, contrast {contrast:.3f} ± {deviation:.3f}")
        more = sum(arc[1] > line[1] for arc, line in zip(rows["middle of the arc"],
                                                         rows["middle of the line"]))
        print(f"more contrast on the arc: {more} of {PAIRS} pairs")


if __name__ == "__main__":
    main(sys.argv[1:])
