"""How good, how varied: Inception score, Mode score and a Frechet distance of trained generators, between two anchors.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135, Université de Montréal, 2018,
          section 4, which they left empty. Inception score: Salimans et al. 2016 (arXiv:1606.03498). Mode score: Che et al. 2016
          (arXiv:1612.02136). Frechet distance: Heusel et al. 2017 (arXiv:1706.08500).
Run       python score_samples.py runs/dcgan_mnist/checkpoint.pt runs/gan_mnist_mlp/checkpoint.pt
Look at   scores.csv and scores.png in the folder `scores` beside the first checkpoint
Notation  p(y|x): a classifier's probabilities (N, K) for N images and K classes. p(y): their mean over the images, (K,).
          MNIST, Fashion-MNIST and the toy faces get a small classifier, trained here once and kept beside the data; CelebA
          gets torchvision's Inception-v3 and its 1,000 classes. Scores of different classifiers cannot be compared.
"""
import contextlib
import math
import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import common
from explore_latent import images_of, load_generator

SPLITS = 4  # each score is a mean and a standard deviation over this many parts of the samples
INCEPTION_WEIGHTS = "inception_v3_google-0cc3c7bd.pth"


def parse_args(argv):
    parser = common.new_parser(__file__, __doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="checkpoint.pt of runs on the same dataset")
    parser.add_argument("--data", default="data", metavar="DIR", help="folder of the datasets, as in training")
    parser.add_argument("--n", type=int, default=4096, help="samples of each (the assignment: 4,096)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples, of the choice of reals and of the splits")
    parser.add_argument("--weights", metavar="FILE", help=f"CelebA: {INCEPTION_WEIGHTS}; None: torch.hub's cache, or a download")
    parser.add_argument("--out", metavar="DIR", help="None: a folder `scores` beside the first checkpoint")
    parser.add_argument("--device", help="cpu, cuda, ...; None: cuda when there is one, else cpu")
    args = parser.parse_args(argv)
    if args.n < 10 * SPLITS:
        common.fail(f"--n {args.n}: at least {10 * SPLITS}, for {SPLITS} splits")
    return args


# ------------------------------------------------------------------------------------------------- the scores
def kl(p, q):
    """Kullback-Leibler divergence sum p log(p / q) over the last dimension, in nats; 0 log 0 = 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=-1)


def inception_score(p):
    """exp E_x KL(p(y|x) || p(y)), from p (N, K): 1 (all alike) to K (every sample sure, all classes equally frequent)."""
    return kl(p, p.mean(dim=0)).mean().exp().item()


def mode_score(p, p_real):
    """exp(E_x KL(p(y|x) || p(y)) - KL(p(y) || p_real)), from p (N, K) and the reals' class frequencies p_real (K,).

    The Inception score, times a penalty for class frequencies other than the reals'. The form that surveys print,
    exp(E_x KL(p(y|x) || p_real) - KL(p(y) || p_real)), is the Inception score itself, by the chain rule: do not use it.
    """
    return (kl(p, p.mean(dim=0)).mean() - kl(p.mean(dim=0), p_real)).exp().item()


def frechet_distance(a, b):
    """Between Gaussians fitted to features a (N, F) and b (M, F): |m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    In float64. The eigenvalues of C_a C_b are real and not negative, so the trace of its root is the sum of their roots.
    The published FID is this on the features of one particular Inception network, with 50,000 samples.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()
    return ((a.mean(dim=0) - b.mean(dim=0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * roots.sum()).item()


def score(p, features, p_real, real_features):
    """A row of the table, from p (N, K) and features (N, F). The splits are taken in turn, so the order must be random.

    classes: how many have at least a fifth of their share among the reals, of those that have a share of 0.001 there.
    """
    row = {}
    for name, function in [("inception", inception_score), ("mode", lambda part: mode_score(part, p_real))]:
        values = torch.tensor([function(part) for part in p.chunk(SPLITS)])
        row[f"{name}_score"], row[f"{name}_std"] = values.mean().item(), values.std().item()
    share = torch.bincount(p.argmax(dim=1), minlength=len(p_real)) / len(p)
    row["frechet_distance"] = frechet_distance(features, real_features)
    row["classes"] = int(((share >= p_real / 5) & (p_real > 1e-3)).sum())
    if len(share) <= 10:  # of Inception's 1,000 classes most are things that no face is
        row.update({f"share_{i}": value.item() for i, value in enumerate(share)})
    return row


# -------------------------------------------------------------------------------------------- the classifiers
class Classifier(nn.Module):
    """A small convolutional net: images (B, C, S, S) in [-1, 1] -> logits (B, K). S is 28 or 64."""

    def __init__(self, channels, size, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 128), nn.BatchNorm1d(128), nn.ReLU(),
        )
        self.last = nn.Linear(128, classes)

    def forward(self, x):
        return self.last(self.features(x))


class Inception(nn.Module):
    """torchvision's Inception-v3: images (B, 3, S, S) in [-1, 1] -> features (B, 2048) and logits (B, 1000).

    transform_input=False: it was trained on [-1, 1], and our images are there already. Its weights are not those of the
    published Inception scores, which come out differently.
    """

    def __init__(self, file=None):
        super().__init__()
        from torchvision.models import Inception_V3_Weights, inception_v3

        self.net = inception_v3(weights=None, init_weights=False, transform_input=False)
        try:
            if file:
                weights = torch.load(file, weights_only=True)
            else:
                weights = Inception_V3_Weights.DEFAULT.get_state_dict(check_hash=True, weights_only=True)
            self.net.load_state_dict(weights)
        except Exception as error:  # no file, no network, another file: many types
            common.fail(f"no Inception weights ({str(error).splitlines()[0]}): put {INCEPTION_WEIGHTS} into "
                        f"{Path(torch.hub.get_dir(), 'checkpoints')}, or name it with --weights")
        self.last, self.net.fc = self.net.fc, nn.Identity()

    def features(self, x):
        return self.net(F.interpolate(x, (299, 299), mode="bilinear", align_corners=False))


def load_classifier(images, labels, path, device):
    """The classifier of a dataset: the one kept in `path`, or a new one, trained on six images of seven and tested on the rest."""
    torch.manual_seed(0)  # the same classifier whatever is to be scored
    net = common.place(Classifier(images.shape[1], images.shape[2], int(labels.max()) + 1), device, "fp32")
    fingerprint = [len(images), int(images.sum()), int(labels.sum())]
    common.make_folder(path.parent)  # the toy faces need no folder of data
    with contextlib.suppress(Exception):  # not kept yet, or not whole: train
        kept = torch.load(path, map_location=device, weights_only=True)
        if kept["fingerprint"] == fingerprint:
            net.load_state_dict(kept["net"])
            return net.eval()
    test = torch.arange(len(images)) % 7 == 0
    train = (~test).nonzero().flatten()
    steps = max(2 * len(train) // 128, 100)  # two epochs of MNIST
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for _ in tqdm(range(steps), "training a classifier", disable=None, leave=False):
        batch = train[torch.randint(len(train), (128,))]
        loss = F.cross_entropy(net(common.to_float(images[batch]).to(device)), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    p, _ = judge(net.eval(), images[test])
    accuracy = (p.argmax(dim=1) == labels[test]).double().mean()
    print(f"a new classifier is right on {accuracy:.2%} of the {len(p):,} real images that it was not trained on")
    if os.access(path.parent, os.W_OK):
        with common.replacing(path) as file:
            torch.save({"fingerprint": fingerprint, "net": net.state_dict()}, file)
    return net


@torch.no_grad()
def judge(net, images):
    """p(y|x) (N, K) in float64 and features (N, F) of images, uint8 or float in [-1, 1]; both on the CPU."""
    device = next(net.parameters()).device
    p, features = [], []
    for part in tqdm(images.split(256), "judging", disable=None, leave=False):
        feature = net.features((common.to_float(part) if part.dtype == torch.uint8 else part).to(device))
        p.append(net.last(feature).cpu().double().softmax(dim=1))
        features.append(feature.cpu())
    return torch.cat(p), torch.cat(features)


# -------------------------------------------------------------------------------------------------- the table
def load_reals(saved, data):
    """The whole dataset of a run, whatever its --digit or --limit: images uint8 (N, C, H, W), labels (N,) or None."""
    dataset = saved["args"]["dataset"]
    if dataset == "celeba":
        return common.load_faces(data), None
    if dataset == "toy":
        return common.toy_faces()[:2]
    return common.load_mnist(data, dataset, test=True)


def save_neighbours(path, samples, reals):
    """Eight samples, and below each the real image nearest to it in pixels: a copy would mean that G memorised it."""
    x = samples[:8].flatten(1)
    nearest = torch.cat([torch.cdist(x, common.to_float(part).flatten(1)) for part in reals.split(1000)], dim=1).argmin(dim=1)
    common.save_grid(path, torch.cat([samples[:8], common.to_float(reals[nearest])]), columns=8)


def plot_scores(path, rows):
    """Both scores as bars, with their standard deviations over the splits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 1.2 * len(rows), 4), layout="constrained")
    axes = figure.subplots()
    for shift, name in [(-0.2, "inception"), (0.2, "mode")]:
        axes.bar([i + shift for i in range(len(rows))], [row[f"{name}_score"] for row in rows], width=0.4,
                 yerr=[row[f"{name}_std"] for row in rows], capsize=3, label=f"{name} score")
    axes.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=20)
    axes.legend()
    with common.replacing(path) as file:
        figure.savefig(file, dpi=100)


def main(argv=None):
    args = parse_args(argv)
    device = common.setup(args)
    samples, saved = {}, [common.load_checkpoint(path) for path in args.checkpoints]
    for path, run in zip(args.checkpoints, saved):
        dataset = run["args"].get("dataset")
        if dataset != saved[0]["args"].get("dataset"):
            common.fail(f"{path} is of a run on {dataset}, {args.checkpoints[0]} is not: their scores cannot be compared")
        if dataset == "toy" and run["script"] in ("gan_mnist_mlp", "dcgan_mnist"):
            common.fail(f"{path} is of a run on the toy zeros, which are one class: there is nothing to score")
        G, latent_dim = load_generator(path, device)
        name = Path(path).resolve().parent.name
        z = torch.randn(args.n, latent_dim, generator=torch.Generator().manual_seed(args.seed))
        samples[f"{name}-{len(samples) + 1}" if name in samples else name] = images_of(G, z)
    out = Path(args.out or Path(args.checkpoints[0]).parent / "scores")
    reals, labels = load_reals(saved[0], args.data)
    common.make_folder(out)  # before the long work
    shuffled = torch.randperm(len(reals), generator=torch.Generator().manual_seed(args.seed))
    count = min(args.n, len(reals) // 2)  # real images to score
    if labels is None:  # Inception is slow: measure against as many other reals only
        net, reference = Inception(args.weights).to(device).eval(), reals[shuffled[-count:]]
    else:
        net, reference = load_classifier(reals, labels, Path(args.data, f"classifier_{dataset}.pt"), device), reals
    p, real_features = judge(net, reference)
    p_real, rows = p.mean(dim=0), []
    one = next(iter(samples.values()))[:1].expand(args.n, -1, -1, -1)
    print(f"{'':24}{'Inception score':>18}{'Mode score':>18}{'Frechet distance¹':>20}{'classes':>12}")
    for name, images in {"real": reals[shuffled[:count]], **samples, "one sample repeated": one}.items():
        row = {"name": name, **score(*judge(net, images), p_real, real_features)}
        print(f"{name[-24:]:24}{row['inception_score']:11.2f} ± {row['inception_std']:.2f}{row['mode_score']:13.2f} ± "
              f"{row['mode_std']:.2f}{row['frechet_distance']:20.2f}{row['classes']:7} / {int((p_real > 1e-3).sum())}")
        rows.append(row)
    print("¹ on the features of this classifier: not the published FID")
    with common.replacing(out / "scores.csv") as file:
        lines = [rows[0].keys()] + [[value if isinstance(value, str) else f"{value:.6g}" for value in row.values()] for row in rows]
        file.write("".join(",".join(line) + "\n" for line in lines).encode())
    plot_scores(out / "scores.png", rows)
    for name, images in samples.items():
        save_neighbours(out / f"neighbours_{name}.png", images, reals)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
