"""How good, how varied: Inception score, Mode score and a Frechet distance of trained generators.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018, section 4, which they left empty. Inception score:
          Salimans et al. 2016 (arXiv:1606.03498). Mode score: as in the assignment's code, after
          Che et al. 2016 (arXiv:1612.02136). Frechet distance: Heusel et al. 2017
          (arXiv:1706.08500)
Run       python score_samples.py runs/dcgan_mnist/checkpoint.pt runs/gan_mnist_mlp/checkpoint.pt
Look at   scores.csv and scores.png in the folder `scores` beside the first checkpoint
Notation  p(y|x): a classifier's probabilities (N, K) for N images and K classes. p(y): their mean
          over the images, (K,). MNIST, Fashion-MNIST and the toy faces get a small classifier,
          trained here once and kept beside the data; CelebA gets torchvision's Inception-v3 and its
          1,000 classes. Scores of different classifiers cannot be compared.
"""
import contextlib
import csv
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
    add = parser.add_argument
    add("checkpoints", nargs="+", type=os.path.expanduser, metavar="CHECKPOINT",
        help="of runs on the same dataset")
    add("--data", type=os.path.expanduser, metavar="DIR", help="None: as in training")
    add("--n", type=int, default=4096, help="samples of each; half the number of reals at most")
    add("--seed", type=int, default=0, help="of the samples, the choice of reals, the splits")
    add("--weights", type=os.path.expanduser, metavar="FILE",
        help=f"CelebA: {INCEPTION_WEIGHTS}; None: torch.hub's cache, or a download")
    add("--out", type=os.path.expanduser, metavar="DIR",
        help="None: a folder `scores` beside the first checkpoint")
    add("--device", help="cpu, cuda, ...; None: cuda when there is one, else cpu")
    args = parser.parse_args(argv)
    if args.n < 10 * SPLITS:
        common.fail(f"--n {args.n}: at least {10 * SPLITS}, for {SPLITS} splits")
    if not 0 <= args.seed < 2**32:
        common.fail(f"--seed {args.seed} is out of range")
    return args


# --------------------------------------------------------------------------------------- the scores
def kl(p, q):
    """Kullback-Leibler divergence sum p log(p / q) over the last dimension, in nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(dim=-1)


def inception_score(p):
    """exp E_x KL(p(y|x) || p(y)), from p (N, K): 1 (all alike) to K (sure and balanced)."""
    return kl(p, p.mean(dim=0)).mean().exp().item()


def mode_score(p, p_real):
    """exp(E_x KL(p(y|x) || p(y)) - KL(p(y) || p_real)), from p (N, K) and the reals' class
    frequencies p_real (K,).

    The Inception score, times a penalty for class frequencies other than the reals'. The form that
    some surveys print, exp(E_x KL(p(y|x) || p_real) - KL(p(y) || p_real)), is the Inception
    score itself, by the chain rule: do not use it.
    """
    return (kl(p, p.mean(dim=0)).mean() - kl(p.mean(dim=0), p_real)).exp().item()


def frechet_distance(a, b):
    """Between Gaussians fitted to features a (N, F) and b (M, F), in float64:
    |m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The eigenvalues of C_a C_b are real and not negative, so the trace of its root is the sum of
    their roots. The published FID is this on the features of one particular Inception network, with
    50,000 samples.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    roots = torch.linalg.eigvals(cov_a @ cov_b).real.clamp(min=0).sqrt()
    means = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (means + cov_a.trace() + cov_b.trace() - 2 * roots.sum()).item()


def score(p, features, p_real, real_features):
    """A row of the table, from p (N, K) and features (N, F) in random order, for the splits' sake.

    classes: how many have at least a fifth of their share among the reals, of those that have a
    share of 0.001 there.
    """
    row = {}
    for name, function in [("inception", inception_score),
                           ("mode", lambda part: mode_score(part, p_real))]:
        values = torch.tensor([function(part) for part in p.tensor_split(SPLITS)])
        row[f"{name}_score"], row[f"{name}_std"] = values.mean().item(), values.std().item()
    share = torch.bincount(p.argmax(dim=1), minlength=len(p_real)) / len(p)
    row["frechet_distance"] = frechet_distance(features, real_features)
    row["classes"] = int(((share >= p_real / 5) & (p_real > 1e-3)).sum())
    if len(share) <= 10:  # not for Inception's 1,000 classes
        row.update({f"share_{i}": value.item() for i, value in enumerate(share)})
    return row


# --------------------------------------------------------------------------------- the classifiers
class Classifier(nn.Module):
    """A small convolutional net: images (B, C, S, S) in [-1, 1] -> logits (B, K). S is 28 or 64."""

    def __init__(self, channels, size, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (size // 4) ** 2, 128), nn.BatchNorm1d(128), nn.ReLU(),
        )
        self.last = nn.Linear(128, classes)

    def forward(self, x):
        return self.last(self.features(x))


class Inception(nn.Module):
    """torchvision's Inception-v3: images (B, 3, S, S) in [-1, 1] -> features (B, 2048), from which
    `last` makes logits (B, 1000).

    transform_input=False: it was trained on [-1, 1], where our images are already. Its weights are
    not those of the published Inception scores, which come out differently.
    """

    def __init__(self, file=None):
        super().__init__()
        from torchvision.models import Inception_V3_Weights, inception_v3

        self.net = inception_v3(weights=None, init_weights=False, transform_input=False)
        try:
            load = Inception_V3_Weights.DEFAULT.get_state_dict
            self.net.load_state_dict(torch.load(file, weights_only=True) if file else
                                     load(check_hash=True, weights_only=True))
        except Exception as error:  # no file, no network, another file: many types
            common.fail(f"no Inception weights ({str(error).splitlines()[0]}): put "
                        f"{INCEPTION_WEIGHTS} into {Path(torch.hub.get_dir(), 'checkpoints')}, or "
                        "name it with --weights")
        self.last, self.net.fc = self.net.fc, nn.Identity()

    def features(self, x):
        return self.net(F.interpolate(x, (299, 299), mode="bilinear", align_corners=False))


def load_classifier(images, labels, path, device):
    """The classifier of a dataset: the one kept in `path`, or a new one, trained on six images of
    seven and tested on the rest."""
    torch.manual_seed(0)  # the same classifier whatever is to be scored
    net = Classifier(images.shape[1], images.shape[2], int(labels.max()) + 1)
    common.prepare(net, device)
    fingerprint = [len(images), int(images.sum()), int(labels.sum())]
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
        loss = F.cross_entropy(net(common.to_float(images[batch]).to(device)),
                               labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    p, _ = judge(net.eval(), images[test])
    accuracy = (p.argmax(dim=1) == labels[test]).double().mean()
    print(f"a new classifier is right on {accuracy:.2%} of the {len(p):,} real images that it was "
          "not trained on")
    path.parent.mkdir(parents=True, exist_ok=True)  # the toy faces need no folder of data
    if os.access(path.parent, os.W_OK):
        common.save_whole(path, {"fingerprint": fingerprint, "net": net.state_dict()})
    return net


@torch.no_grad()
def judge(net, images):
    """p(y|x) (N, K) in float64 and features (N, F) of images, uint8 or float in [-1, 1]; both on
    the CPU."""
    device = next(net.parameters()).device
    p, features = [], []
    for part in tqdm(images.split(64), "judging", disable=None, leave=False):
        x = common.to_float(part) if part.dtype == torch.uint8 else part
        feature = net.features(x.to(device))
        p.append(net.last(feature).cpu().double().softmax(dim=1))
        features.append(feature.cpu())
    return torch.cat(p), torch.cat(features)


# --------------------------------------------------------------------------------------- the table
def load_reals(dataset, data):
    """A whole dataset, whatever a run's --digit or --limit: images uint8 (N, C, H, W), and labels
    (N,), or None for CelebA."""
    if dataset == "celeba":
        return common.load_faces(data), None
    if dataset == "toy":
        import toy_images
        return toy_images.faces()[:2]
    return common.load_mnist(data, dataset, test=True)


def save_neighbours(path, samples, reals):
    """Eight samples, and below each the real image nearest to it in pixels: a copy would mean that
    G memorised it."""
    x = samples[:8].flatten(1)
    distances = [torch.cdist(x, common.to_float(part).flatten(1)) for part in reals.split(1000)]
    nearest = reals[torch.cat(distances, dim=1).argmin(dim=1)]
    common.save_grid(path, torch.cat([samples[:8], common.to_float(nearest)]), columns=8)


def plot_scores(path, rows):
    """Both scores as bars, with their standard deviations over the splits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 + 1.2 * len(rows), 4), layout="constrained")
    axes = figure.subplots()
    for shift, name in [(-0.2, "inception"), (0.2, "mode")]:
        axes.bar([i + shift for i in range(len(rows))], [row[f"{name}_score"] for row in rows],
                 width=0.4, yerr=[row[f"{name}_std"] for row in rows], capsize=3,
                 label=f"{name} score")
    axes.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=20)
    axes.legend()
    figure.savefig(path, dpi=100)


def main(argv=None):
    args = parse_args(argv)
    device = common.pick_device(args.device, training=False)
    samples, saved = {}, [common.load_checkpoint(path) for path in args.checkpoints]
    dataset, folder = (saved[0]["args"].get(name) for name in ("dataset", "data"))
    for path, run in zip(args.checkpoints, saved):
        if run["args"].get("dataset") != dataset:
            common.fail(f"{path} is of a run on {run['args'].get('dataset')}, the first one is on "
                        f"{dataset}: their scores cannot be compared")
        if dataset == "celeba" and not args.data and run["args"].get("data") != folder:
            common.fail(f"{path} is of a run on the pictures in {run['args'].get('data')}, the "
                        f"first one on those in {folder}: choose with --data")
        if dataset == "toy" and run["script"] in ("gan_mnist_mlp", "dcgan_mnist"):
            common.fail(f"{path} is of a run on the toy zeros, which are one class: there is "
                        "nothing to score")
    net = Inception(args.weights) if dataset == "celeba" else None  # missing? Better now than later
    for path in args.checkpoints:
        G, latent_dim = load_generator(path, device)
        z = torch.randn(args.n, latent_dim, generator=torch.Generator().manual_seed(args.seed))
        name = Path(path).resolve().parent.name
        while name in {"real", *samples}:
            name += f"-{len(samples) + 1}"
        samples[name] = images_of(G, z)
    out = Path(args.out or Path(args.checkpoints[0]).parent / "scores")
    data = args.data or folder or "data"
    reals, labels = load_reals(dataset, data)
    shuffled = torch.randperm(len(reals), generator=torch.Generator().manual_seed(args.seed))
    if (count := min(args.n, len(reals) // 2)) < 2 * SPLITS:  # real images to score
        common.fail(f"{len(reals)} real images in {data} are too few to score: is --data right?")
    out.mkdir(parents=True, exist_ok=True)  # before the long work
    if labels is None:  # Inception is slow: measure against as many other reals only
        net, reference = net.to(device).eval(), reals[shuffled[-count:]]
    else:
        path = Path(data, f"classifier_{dataset}.pt")
        net, reference = load_classifier(reals, labels, path, device), reals
    p, real_features = judge(net, reference)
    p_real, rows = p.mean(dim=0), []
    one = next(iter(samples.values()))[:1]
    print(f"{'':24}{'Inception score':>18}{'Mode score':>18}{'Frechet distance*':>20}  classes")
    everything = {"real": reals[shuffled[:count]], **samples, "one sample repeated": one}
    for name, images in everything.items():  # as many of each: scores depend on the number
        judged = (part.expand(count, -1) for part in judge(net, images[:count]))
        row = {"name": name, **score(*judged, p_real, real_features)}
        print(f"{name[-24:]:24}{row['inception_score']:11.2f} ± {row['inception_std']:.2f}"
              f"{row['mode_score']:13.2f} ± {row['mode_std']:.2f}{row['frechet_distance']:20.2f}"
              f"{row['classes']:7} / {int((p_real > 1e-3).sum())}")
        rows.append(row)
    print("* on the features of this classifier: not the published FID")
    with open(out / "scores.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    plot_scores(out / "scores.png", rows)
    for name, images in samples.items():
        save_neighbours(out / f"neighbours_{name}.png", images, reals)
    print(f"wrote {out}")


if __name__ == "__main__":
    common.launch(main)
