"""The measures that the pages quote: likeness of samples, what D says of its faces, checkerboards.

    python docs/notebook/measure.py likeness runs/wgan_celeba/samples/step_001248.png
    python docs/notebook/measure.py answers runs/wgan_celeba/checkpoint.pt
    python docs/notebook/measure.py checkerboard runs/wgan_celeba/checkpoint.pt

Several files may be named: each has a line. All three are for faces of 64 x 64 pixels. The last two
need the faces of the run: they are read from where the run found them, or from --data.
"""
import argparse
import importlib
import sys
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for the scripts

import common
import toy_images
from explore_latent import images_of, load_generator

CPU = torch.device("cpu")


# ---------------------------------------------------------------------------------------- likeness
def pictures_of_grid(path):
    """The 64 pictures of a grid that a script saved, in grey: (64, 64, 64), from 0 to 255."""
    with Image.open(path) as grid:
        grey = torch.from_numpy(numpy.array(grid.convert("L"))).float()
    # 8 x 8 pictures of 64 x 64 pixels, with 2 pixels before each, and after the last ones
    if grey.shape != (530, 530):
        common.fail(f"{path} is not a grid of 8 x 8 faces of 64 x 64 pixels")
    return grey[2:, 2:].unfold(0, 64, 66).unfold(1, 64, 66).reshape(64, 64, 64)


def likeness(pictures):
    """How alike pictures (N, 64, 64) are: the mean correlation of two, in fine details only.

    Fine details are what a blur of 9 x 9 pixels takes away. Only the middle of a picture counts,
    so that two backgrounds do not make two faces different. Copies have 1, independent noise 0.
    """
    middle = pictures[:, None, 12:52, 12:52]
    blurred = F.avg_pool2d(middle, 9, stride=1)
    details = middle[..., 4:-4, 4:-4] - blurred
    correlations = torch.corrcoef(details.flatten(1))
    count = len(pictures)
    pairs = count * (count - 1)
    return (correlations.sum().item() - count) / pairs  # without each picture with itself


# ---------------------------------------------------------------------------------- what D answers
def mean_answer(D, images, batch_size, loss_name):
    """D's mean output, a probability with minimax. In training mode and in minibatches, as it
    learned."""
    D.train()
    outputs = torch.cat([D(part) for part in images.split(batch_size)])
    if loss_name == "minimax":
        outputs = outputs.sigmoid()
    return outputs.mean().item()


@torch.no_grad()
def answers(path, data=None, count=2048):
    """What a run's D says, on average, of up to `count` images of four kinds: name -> mean.

    The kinds are: faces that it learned from, their mirror images, samples of its G, and faces that
    it never saw. The last one is left out where the run had all faces.
    """
    saved = common.load_checkpoint(path)
    args = saved["args"]
    batch_size = args["batch_size"]
    loss_name = args.get("loss", "minimax")
    D = importlib.import_module(saved["script"]).Discriminator(args["ndf"])
    D.load_state_dict(saved["D"])
    G, latent_dim = load_generator(path, CPU)

    learned, new = faces_of(args, data, more=count)
    torch.manual_seed(0)
    learned = common.to_float(learned[torch.randperm(len(learned))[:count]])
    G.train()  # as D has seen its samples
    samples = torch.cat([G(z) for z in torch.randn(count, latent_dim).split(batch_size)])
    images = {"its faces": learned, "mirrored": learned.flip(3), "samples": samples}
    if len(new) >= batch_size:  # BatchNorm wants a whole minibatch
        images["new faces"] = common.to_float(new)
    return {name: mean_answer(D, some, batch_size, loss_name) for name, some in images.items()}


def faces_of(args, data=None, more=0):
    """The faces that a run learned from, and up to `more` of those that its --limit left out: twice
    uint8 (N, 3, 64, 64)."""
    learned = args["images"]
    if args["limit"]:  # a patched run may have had the same faces again and again
        learned = min(learned, args["limit"])
    if args["dataset"] == "toy":
        faces = toy_images.faces(learned + more)[0]
    else:
        faces = common.load_faces(data or args["data"], learned + more)
    return faces[:learned], faces[learned:]


# ------------------------------------------------------------------------------------ checkerboard
def energy(images):
    """The mean energy of images (N, 3, 64, 64) in patterns that repeat every two pixels, across or
    down: the checkerboard of a deconvolution with stride 2."""
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    spectrum = torch.fft.fft2(centred).abs() ** 2
    half = images.shape[-1] // 2  # the highest frequency: a period of two pixels
    down = spectrum[..., half, :].sum()
    across = spectrum[..., :, half].sum()
    return (down + across).item() / len(images)


@torch.no_grad()
def checkerboard(path, data=None, count=1024):
    """The energy of `count` samples, divided by that of as many of the run's faces: 1 is as little
    as theirs."""
    learned, _ = faces_of(common.load_checkpoint(path)["args"], data)
    G, latent_dim = load_generator(path, CPU)
    z = torch.randn(count, latent_dim, generator=torch.Generator().manual_seed(0))
    return energy(images_of(G, z)) / energy(common.to_float(learned[:count]))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=["likeness", "answers", "checkerboard"])
    parser.add_argument("files", nargs="+", metavar="FILE", help="grids of samples, or checkpoints")
    parser.add_argument("--data", type=common.folder, metavar="DIR",
                        help="folder of the faces (default: where the run found them)")
    args = parser.parse_args()
    for file in args.files:
        if args.measure == "likeness":
            print(f"{file}: {likeness(pictures_of_grid(file)):.2f}")
        elif args.measure == "checkerboard":
            print(f"{file}: {checkerboard(file, args.data):.2f} times that of the faces")
        else:
            means = answers(file, args.data)
            words = ", ".join(f"{name} {mean:.3f}" for name, mean in means.items())
            print(f"{file}: D on {words}")


if __name__ == "__main__":
    common.launch(main)
