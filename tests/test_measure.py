"""docs/notebook/measure.py: the measures that the pages quote, where their answers are known."""
import sys

import pytest
import torch
from conftest import ROOT, SCRIPTS
from PIL import Image

import common
import wgan_celeba

sys.path.insert(0, str(ROOT / "docs/notebook"))
import measure


def noise(count, channels=1):
    return torch.rand(count, channels, 64, 64, generator=torch.Generator().manual_seed(0))


def test_copies_have_likeness_1_and_noise_has_none():
    pictures = noise(64)[:, 0]
    assert measure.likeness(pictures[:1].expand(64, -1, -1)) == pytest.approx(1, abs=1e-4)
    assert measure.likeness(pictures) == pytest.approx(0, abs=0.01)
    half = torch.cat([pictures[:1].expand(32, -1, -1), pictures[1:33]])
    assert measure.likeness(half) == pytest.approx(32 * 31 / (64 * 63), abs=0.02)


def test_likeness_sees_neither_backgrounds_nor_colours_without_details():
    copies = noise(1)[:, 0].repeat(64, 1, 1)
    copies[:, :12] = noise(64)[:, 0, :12]  # other backgrounds
    copies += torch.linspace(0, 9, 64).view(64, 1, 1)  # lighter and darker
    assert measure.likeness(copies) == pytest.approx(1, abs=1e-3)


def test_the_pictures_of_a_grid_are_those_that_were_saved():
    images = noise(64, channels=3) * 2 - 1
    images[:, 1:] = images[:, :1]  # grey
    common.save_grid("grid.png", images)
    pictures = measure.pictures_of_grid("grid.png")
    assert (pictures - (images[:, 0] + 1) * 127.5).abs().max() <= 1


def test_another_picture_is_refused(stops):
    Image.new("RGB", (530, 464)).save("other.png")
    line = stops(lambda argv: measure.pictures_of_grid(argv[0]), ["other.png"])
    assert "other.png is not a grid" in line


def test_a_period_of_two_pixels_has_energy_and_a_smooth_picture_has_none():
    x = torch.arange(64.0)
    stripes = (x % 2).expand(1, 3, 64, 64)  # they repeat across
    smooth = torch.sin(x * 2 * torch.pi / 16).expand(1, 3, 64, 64)
    coarse = (x // 2 % 2).expand(1, 3, 64, 64)  # a period of four pixels
    assert measure.energy(stripes) > 1e6 * measure.energy(smooth)
    assert measure.energy(stripes) > 1e6 * measure.energy(coarse)
    assert measure.energy(stripes.mT) == pytest.approx(measure.energy(stripes))
    assert measure.energy(stripes.repeat(5, 1, 1, 1)) == pytest.approx(measure.energy(stripes))


@pytest.fixture
def run():
    wgan_celeba.main([*SCRIPTS[wgan_celeba], "--loss", "minimax", "--epochs", "1", "--out", "run"])
    return "run/checkpoint.pt"


def test_D_answers_with_probabilities_to_images_of_four_kinds(run):
    means = measure.answers(run, count=16)
    assert list(means) == ["its faces", "mirrored", "samples", "new faces"]
    assert all(0 < mean < 1 for mean in means.values())
    assert means == measure.answers(run, count=16)  # nothing is left to chance


def test_new_faces_are_those_after_the_limit(run):
    args = common.load_checkpoint(run)["args"]
    learned, new = measure.faces_of(args, more=8)
    assert len(learned) == 64 and len(new) == 8
    args["images"] = 640  # as if a patch had repeated the 64 faces
    assert torch.equal(measure.faces_of(args, more=8)[0], learned)


def test_the_checkerboard_of_a_run_is_a_multiple_of_its_faces(run):
    assert measure.checkerboard(run, count=16) > 0
