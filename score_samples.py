"""How good, how varied: Inception score, Mode score and a Frechet distance of trained generators.

Source    "Assignment 4, Practical Part: Generative Models (GANs)", Laferrière and Litalien, IFT6135
          at Université de Montréal, 2018, section 4, which they left empty. Inception score:
          Salimans et al. 2016 (arXiv:1606.03498). Mode score: as in the assignment's code, after
          Che et al. 2016 (arXiv:1612.02136). Frechet distance: Heusel et al. 2017
          (arXiv:1706.08500)
Run       python score_samples.py pretrained/digits.pt pretrained/digits_mlp.pt
          python score_samples.py runs/dcgan_mnist/checkpoint.pt runs/dcgan_mnist-2/checkpoint.pt
Look at   scores.csv and scores.png in the folder that is printed at the end
Notation  p(y|x): a classifier's probabilities (N, K) for N images and K classes. p(y): their mean
          over the images, (K,). MNIST, Fashion-MNIST and the toy faces get a small classifier,
          trained here once and kept beside the data; CelebA gets torchvision's Inception-v3 and its
          1,000 classes. Scores of different classifiers cannot be compared.
"""
import argparse
import contextlib
import csv
import io
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

import common
from explore_latent import add_script_flag, images_of, load_generator, output_folder

SPLITS = 4  # parts of the samples: Inception and Mode score are a mean and a deviation over them
INCEPTION_WEIGHTS = "inception_v3_google-0cc3c7bd.pth"


def parse_args(argv):
    parser = common.new_parser(__file__, __doc__)
    add = parser.add_argument
    add("checkpoints", nargs="+", type=common.folder, metavar="CHECKPOINT",
        help="checkpoint.pt of runs on the same dataset, or exported generators")
    add("--data", type=common.folder, metavar="DIR",
        help="folder of the dataset (default: the one that the first run was trained on, else "
             "data)")
    add("--n", type=at_least(10 * SPLITS), default=4096, metavar="N",
        help="samples of each generator; half the number of real images at most (default: "
             "%(default)s)")
    add("--seed", type=common.not_negative(int), default=0, metavar="N",
        help="random seed of the samples and of the choice of real images (default: %(default)s)")
    add("--weights", type=common.folder, metavar="FILE",
        help=f"for CelebA: the file {INCEPTION_WEIGHTS} (default: from torch.hub's cache, or "
             "downloaded)")
    add_script_flag(parser)
    add("--out", type=common.folder, metavar="DIR",
        help="folder to write into (default: scores, beside a run's checkpoint.pt; for any other "
             "file runs/score_samples-NAME)")
    add("--device", help="cpu, cuda, ... (default: cuda where there is one, else cpu)")
    return parser.parse_args(argv)


def at_least(lowest):
    """For a flag's `type`: a whole number from `lowest` on."""
    def convert(text):
        value = common.positive(int)(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text}: at least {lowest}, for {SPLITS} parts")
        return value

    convert.__name__ = "int"
    return convert


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
    """A row of the table, from p (N, K) and features (N, F), which must be in random order: they
    are cut into SPLITS parts.

    classes: how many classes are covered, that is, have at least a fifth of their share among the
    reals. Classes with less than 0.1% of the reals are ignored.
    """
    parts = p.tensor_split(SPLITS)
    inception = torch.tensor([inception_score(part) for part in parts])
    mode = torch.tensor([mode_score(part, p_real) for part in parts])
    row = {"inception_score": inception.mean().item(), "inception_std": inception.std().item(),
           "mode_score": mode.mean().item(), "mode_std": mode.std().item()}
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
            if file:
                weights = torch.load(file, weights_only=True)
            else:
                weights = Inception_V3_Weights.DEFAULT.get_state_dict(check_hash=True,
                                                                      weights_only=True)
            self.net.load_state_dict(weights)
        except Exception as error:  # no file, no network, another file: many types
            common.fail(f"no Inception weights ({str(error).splitlines()[0]}): put "
                        f"{INCEPTION_WEIGHTS} into {Path(torch.hub.get_dir(), 'checkpoints')}, or "
                        "name it with --weights")
        self.last = self.net.fc
        self.net.fc = nn.Identity()  # so that the net returns the features

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
    common.save_if_possible(path, {"fingerprint": fingerprint, "net": net.state_dict()})
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


def find_dataset(args):
    """The dataset of the checkpoints and its folder. Ends the program if they differ."""
    runs = [common.load_checkpoint(path) for path in args.checkpoints]
    dataset, data = runs[0]["args"].get("dataset"), runs[0]["args"].get("data")
    for path, run in zip(args.checkpoints, runs):
        if run["args"].get("dataset") != dataset:
            common.fail(f"{path} is of a run on {run['args'].get('dataset')}, the first one is on "
                        f"{dataset}: their scores cannot be compared")
        if dataset == "celeba" and not args.data and run["args"].get("data") != data:
            common.fail(f"{path} is of a run on the pictures in {run['args'].get('data')}, the "
                        f"first one on those in {data}: choose with --data")
        if dataset == "toy" and run["script"] in ("gan_mnist_mlp", "dcgan_mnist"):
            common.fail(f"{path} is of a run on the toy zeros, which are one class: there is "
                        "nothing to score")
    if dataset == "celeba" and data and not args.data:
        common.check_data_of_run(data, args.checkpoints[0])
    return dataset, args.data or data or "data"


def draw_samples(args, device):
    """args.n samples of each generator: name -> images (N, C, H, W) in [-1, 1]."""
    samples = {}
    for path in args.checkpoints:
        G, latent_dim = load_generator(path, device, args.script)
        z = torch.randn(args.n, latent_dim, generator=torch.Generator().manual_seed(args.seed))
        name = name_of(path)
        while name in {"real", *samples}:
            name += f"-{len(samples) + 1}"
        samples[name] = images_of(G, z)
    return samples


def name_of(path):
    """runs/dcgan_mnist/checkpoint.pt -> 'dcgan_mnist'; pretrained/digits.pt -> 'digits'"""
    path = Path(path).resolve()
    return path.parent.name if path.name == "checkpoint.pt" else path.stem


def choose_reals(reals, n, seed, most=None):
    """Two parts of the real images, without an image in common: at most n to be scored like
    samples, and those that everything is compared with (at most `most`)."""
    shuffled = torch.randperm(len(reals), generator=torch.Generator().manual_seed(seed))
    count = min(n, len(reals) // 2)
    if count < 2 * SPLITS:
        common.fail(f"{len(reals)} real images are too few to score: is --data right?")
    reference = shuffled[count:]
    if most is not None:
        reference = reference[-most:]
    return reals[shuffled[:count]], reals[reference]


def score_everything(net, samples, real, reference):
    """The rows of the table: held-out reals (the best case), each generator, and one sample
    repeated (total mode collapse). As many images for each row, as scores depend on the number."""
    p, reference_features = judge(net, reference)
    p_real = p.mean(dim=0)
    one = next(iter(samples.values()))[:1]
    rows = []
    for name, images in {"real": real, **samples, "one sample repeated": one}.items():
        p, features = judge(net, images[:len(real)])
        if len(p) == 1:  # the one sample is judged once, and the result repeated
            p, features = p.expand(len(real), -1), features.expand(len(real), -1)
        rows.append({"name": name, **score(p, features, p_real, reference_features)})
    return rows, int((p_real > 1e-3).sum())


def save_table(path, rows):
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    with common.whole_file(path) as file:
        file.write(text.getvalue().encode())


def print_table(rows, classes):
    print(f"{'':24}{'Inception score':>18}{'Mode score':>18}{'Frechet distance*':>20}  classes")
    for row in rows:
        print(f"{row['name'][-24:]:24}{row['inception_score']:11.2f} +- {row['inception_std']:.2f}"
              f"{row['mode_score']:12.2f} +- {row['mode_std']:.2f}{row['frechet_distance']:20.2f}"
              f"{row['classes']:7} / {classes}")
    print("* on the features of this classifier: not the published FID")


def save_neighbours(path, samples, reals):
    """Eight samples, and below each the real image nearest to it in pixels: a copy would mean that
    G memorised it."""
    x = samples[:8].flatten(1)
    distances = [torch.cdist(x, common.to_float(part).flatten(1)) for part in reals.split(1000)]
    nearest = reals[torch.cat(distances, dim=1).argmin(dim=1)]
    common.save_grid(path, torch.cat([samples[:8], common.to_float(nearest)]), columns=8)


def plot_scores(path, rows):
    """Two panels, a line for each row of the table: the Inception and the Mode score with their
    standard deviations over the parts, and the Frechet distance. Each bar has its value beside it.
    """
    import matplotlib  # slow to import, as in common.new_figure

    with matplotlib.rc_context({"font.size": 16}):  # to be read on a wall
        figure = common.new_figure(figsize=(14, 2.2 + 0.9 * len(rows)))
        left, right = figure.subplots(1, 2, sharey=True)
        positions = torch.arange(len(rows))
        # horizontal bars: their names can be long
        for shift, name in [(-0.2, "inception"), (0.2, "mode")]:
            bars = left.barh(positions + shift, [row[f"{name}_score"] for row in rows], height=0.4,
                             xerr=[row[f"{name}_std"] for row in rows], capsize=3,
                             label=f"{name.capitalize()} score")
            left.bar_label(bars, fmt="%.2f", padding=4)
        left.set_xlabel("score (higher is better)")
        left.set_yticks(positions, [row["name"][-24:] for row in rows])
        left.invert_yaxis()  # the first row on top, as in the table
        bars = right.barh(positions, [row["frechet_distance"] for row in rows], height=0.4,
                          color="C2")
        right.bar_label(bars, fmt="%.2f", padding=4)
        # good ones have less than 1, one sample repeated more than 100. On a plain log scale there
        # would be no 0, which is the best
        right.set_xscale("symlog", linthresh=1)
        right.xaxis.set_major_formatter("{x:g}")  # 100, not 10^2
        right.set_xlabel("Frechet distance, log scale from 1 on (0 is best)")
        left.margins(x=0.2)  # room for the values
        right.margins(x=0.25)
        left.legend(loc="lower right")  # the bars of one sample repeated are short
        common.save_figure(path, figure)


def main(argv=None):
    args = parse_args(argv)
    device = common.pick_device(args.device, training=False)
    dataset, data = find_dataset(args)
    if dataset == "celeba":
        net = Inception(args.weights)  # first of all, as its weights may be missing
    samples = draw_samples(args, device)
    out = Path(args.out or output_folder(args.checkpoints[0], "score_samples", "scores"))
    reals, labels = load_reals(dataset, data)
    if dataset == "celeba":  # Inception is slow: compare with no more reals than are scored
        real, reference = choose_reals(reals, args.n, args.seed, most=args.n)
        net = net.to(device).eval()
    else:
        real, reference = choose_reals(reals, args.n, args.seed)
        net = load_classifier(reals, labels, Path(data, f"classifier_{dataset}.pt"), device)
    out.mkdir(parents=True, exist_ok=True)

    rows, classes = score_everything(net, samples, real, reference)
    save_table(out / "scores.csv", rows)
    print_table(rows, classes)
    with common.optional(out / "scores.png"):
        plot_scores(out / "scores.png", rows)
    for name, images in samples.items():
        save_neighbours(out / f"neighbours_{name}.png", images, reals)
    print(f"wrote {out}")


if __name__ == "__main__":
    common.launch(main)
