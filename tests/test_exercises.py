"""The exercises' patches: each fits the scripts, trains, and does what its exercise says."""
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SCRIPTS, apply_patch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import datasets

import common
import toy_images

PATCHES = sorted((ROOT / "exercises").glob("*.patch"))
FLAGS = {script.__name__: flags for script, flags in SCRIPTS.items()}


def patched(patch):
    """Apply a patch to copies of the scripts in this test's folder; return the script that it
    changes, as a module."""
    changed = apply_patch(patch)
    spec = importlib.util.spec_from_file_location(Path(changed).stem, Path(changed).resolve())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(name):
    return patched(ROOT / f"exercises/{name}.patch")


def pixels(path):
    """(H, W, 3), uint8."""
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_patch_fits_and_trains(patch):
    script = patched(patch)
    # two epochs of 40 images: the WGAN's G waits for 20 updates of the critic
    script.main([*FLAGS[script.__name__], *"--limit 40 --epochs 2 --out run".split()])
    rows = common.read_csv(Path("run/losses.csv"))
    assert rows["epoch"][-1] == 2
    for name, values in rows.items():
        assert np.isfinite(values).all(), name
    last = Path(f"run/samples/step_{int(rows['step'][-1]):06d}.png")
    assert pixels(last).std() > 0


# ------------------------------------------------------------------------------------- conditional
def test_conditional_both_nets_get_the_label_of_the_image(monkeypatch):
    """The 'digit' i is a picture that is as bright as its label says."""
    script = named("conditional")
    labels = torch.arange(40) % 10
    images = (20 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    monkeypatch.setattr(common, "load_mnist", lambda *_, **__: (images, labels))
    seen_by_D, seen_by_G = [], []

    def step_D(D, opt_D, real, fake):
        assert D(real).shape == (len(real),)
        seen_by_D.append((real, fake))
        return step(D, opt_D, real, fake)

    def note_z(G, inputs):
        seen_by_G.append(inputs[0])

    step = script.step_D
    monkeypatch.setattr(script, "step_D", step_D)
    monkeypatch.setattr(script.DCGANGenerator, "__init__",
                        hooked(script.DCGANGenerator.__init__, note_z))
    script.main("--epochs 1 --batch-size 10 --ngf 4 --ndf 4 --out run".split())

    seen_by_G = [z for z in seen_by_G if len(z) == 10]  # in training, not for the pictures
    assert len(seen_by_D) == len(seen_by_G) == 4
    for (real, fake), z in zip(seen_by_D, seen_by_G):
        asked = ((real[:, 0, 0, 0] + 1) * 127.5 / 20).round().long()
        label = F.one_hot(asked, 10)
        assert torch.equal(z[:, -10:], label)
        channels = label.view(-1, 10, 1, 1).expand(-1, 10, 28, 28)
        assert torch.equal(real[:, 1:], channels) and torch.equal(fake[:, 1:], channels)


def hooked(init, hook):
    """An __init__ after which each forward is noted."""
    def __init__(net, *args, **keywords):
        init(net, *args, **keywords)
        net.register_forward_pre_hook(hook)
    return __init__


@pytest.mark.parametrize("model", ["dcgan", "mlp"])
def test_conditional_a_row_is_a_digit_and_a_column_is_a_z(model):
    script = named("conditional")
    script.main([*FLAGS["dcgan_mnist"], "--model", model, "--epochs", "1", "--out", "run"])
    saved = common.load_checkpoint("run/checkpoint.pt")
    z, digits = saved["fixed_z"][:, :-10], saved["fixed_z"][:, -10:]
    rows = z.view(10, 10, -1)
    assert torch.equal(rows, rows[:1].expand_as(rows)) and not torch.equal(rows[0, 0], rows[0, 1])
    assert torch.equal(digits.argmax(dim=1).view(10, 10)[:, 0], torch.arange(10))
    assert torch.equal(digits.sum(dim=1), torch.ones(100)) and digits.max() == 1
    assert digits.view(10, 10, 10).unique(dim=1).shape == (10, 1, 10)

    keywords = dict(saved["generator"])
    G = getattr(script, keywords.pop("class"))(**keywords)
    G.load_state_dict(saved["G"])
    with torch.no_grad():
        images = G.eval()(saved["fixed_z"])
    assert len(images.unique(dim=0)) == 100  # also where only the label differs
    assert pixels("run/samples/step_000004.png").shape == (302, 302, 3)  # 10 x 10 digits


# -------------------------------------------------------------------------------- gradient_penalty
class Linear(nn.Module):
    """D(x) = <w, x>: its slope is |w| everywhere."""

    def __init__(self, slope):
        super().__init__()
        self.w = nn.Parameter(torch.full((3, 64, 64), slope / 3**0.5 / 64))

    def forward(self, x):
        return (self.w * x).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("slope, penalty", [(1.0, 0.0), (0.0, 1.0), (3.0, 4.0)])
def test_gradient_penalty_of_a_linear_D(slope, penalty):
    script = named("gradient_penalty")
    real, fake = torch.randn(2, 4, 3, 64, 64)
    assert script.gradient_penalty(Linear(slope), real, fake).item() == pytest.approx(penalty,
                                                                                      abs=1e-4)


def test_gradient_penalty_is_taken_between_each_fake_and_its_real():
    script = named("gradient_penalty")
    fake = torch.zeros(200, 3, 64, 64)
    real = F.one_hot(torch.arange(200), 3 * 64 * 64).view_as(fake).float()
    seen = []

    def D(x):
        seen.append(x.detach())
        return x.square().sum(dim=(1, 2, 3)) / 2  # its slope is |x|

    penalty = script.gradient_penalty(D, real, fake).item()
    (x,) = seen
    t = (x * real).sum(dim=(1, 2, 3))  # how far each point is on its way
    assert torch.equal(x, t.view(-1, 1, 1, 1) * real)
    assert 0 <= t.min() < 0.1 and 0.9 < t.max() <= 1 and 0.4 < t.mean() < 0.6
    assert penalty == pytest.approx(((1 - t) ** 2).mean().item(), rel=1e-4)


@pytest.mark.parametrize("slope", [0.5, 2.0])
def test_gradient_penalty_moves_the_slope_towards_1_and_stays_out_of_the_log(slope):
    script = named("gradient_penalty")
    D = Linear(slope)
    images = torch.randn(4, 3, 64, 64)
    # reals and fakes are the same, so that the gap asks for nothing
    loss, *_ = script.step_D(D, torch.optim.SGD(D.parameters(), 0.01), images, images, "wgan")
    # the gradient of 10 (|w| - 1)^2 is 20 (|w| - 1) along w: it counts ten times
    assert D.w.norm().item() == pytest.approx(slope - 0.01 * 20 * (slope - 1), rel=1e-3)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_gradient_penalty_comes_in_place_of_the_clip_and_of_batchnorm():
    script = named("gradient_penalty")
    args, _ = script.parse_args([])
    assert args.clip == 0
    D = script.Discriminator(4)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in D.modules())
    x = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(D(x)[:1], D(x[:1]))  # no answer depends on the other images


# ----------------------------------------------------------------------------------------- cifar10
def test_cifar10_trains_on_the_files_that_torchvision_reads(monkeypatch):
    faces = F.avg_pool2d(toy_images.faces(64)[0].float(), 2).to(torch.uint8)
    folder = Path("data", datasets.CIFAR10.base_folder)
    folder.mkdir(parents=True)
    # a row is the red pixels of an image, then the green ones, then the blue ones
    batch = {"data": faces.flatten(1).numpy(), "labels": [0] * len(faces)}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["face"]}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [("data_batch_1", None)])  # no checksum
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})

    script = named("cifar10")
    flags = "--dataset cifar10 --epochs 1 --batch-size 16 --ngf 4 --ndf 4 --out run".split()
    script.main(flags)
    assert torch.equal(script.load_images(script.parse_args([*flags[:-1], "run-2"])[0]), faces)
    assert np.array_equal(pixels("run/real.png")[2:34, 2:34], faces[0].permute(1, 2, 0))
    saved = common.load_checkpoint("run/checkpoint.pt")
    assert saved["generator"]["size"] == 32
    assert pixels("run/samples/step_000004.png").shape == (8 * 34 + 2, 8 * 34 + 2, 3)


def test_cifar10_has_no_dcgan_generator(stops):
    script = named("cifar10")
    assert "64" in stops(script.main, ["--dataset", "cifar10", "--generator", "dcgan"])
