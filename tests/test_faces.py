"""Faces in: CelebA in every layout people have it in, anybody's pictures, and faces drawn by code."""
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT
from PIL import Image

import common
import dcgan_celeba


def write_pictures(folder, count, size=(178, 218), seed=0, suffix=".jpg"):
    """Write pictures 000001.jpg, ... of smooth random colours into folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=numpy.uint8)).resize(size).save(Path(folder, f"{i + 1:06d}{suffix}"))


def zip_folder(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(Path(folder).rglob("*")):
            archive.write(file, prefix + str(file.relative_to(folder)))


@pytest.fixture
def refuses(stops):
    return lambda root: stops(lambda argv: common.load_faces(argv[0]), [root])


# ----------------------------------------------------------------------------------------------------------------- layouts
def test_every_layout_gives_the_same_images():
    write_pictures("plain", 12)
    images = common.load_faces("plain")
    assert images.shape == (12, 3, 64, 64) and images.dtype == torch.uint8
    write_pictures("torchvision/celeba/img_align_celeba", 12)
    write_pictures("torchvision/other", 3, seed=1)  # not below celeba/
    write_pictures("kaggle/img_align_celeba/img_align_celeba", 12)
    Path("kaggle/list_attr_celeba.csv").write_text("image_id,Male\n")
    Path("zipped/celeba").mkdir(parents=True)
    zip_folder("plain", "zipped/celeba/img_align_celeba.zip", "img_align_celeba/")
    zip_folder("plain", "mine.zip")
    Path("deep/a/b").mkdir(parents=True)
    zip_folder("plain", "deep/a/b/img_align_celeba.zip")
    Path("linked/celeba").mkdir(parents=True)
    Path("linked/celeba/img_align_celeba").symlink_to(Path("plain").resolve(), target_is_directory=True)
    for root in ["linked", "torchvision", "torchvision/celeba/img_align_celeba", "kaggle", "zipped", "mine.zip", "deep"]:
        assert torch.equal(common.load_faces(root), images), root


def test_what_a_mac_leaves_behind_is_ignored_and_names_give_the_order():
    write_pictures("plain", 3)
    write_pictures("mac/__MACOSX", 3, seed=2)
    write_pictures("mac/x", 3)
    Path("mac/x/._000001.jpg").write_bytes(b"resource fork")
    Path("mac/x/readme.txt").write_text("no picture")
    assert torch.equal(common.load_faces("mac"), common.load_faces("plain"))
    zip_folder("mac", "mac.zip", "img/")
    Path("mac/x/000002.jpg").rename("mac/x/z.jpg")
    Path("mac/faces64.pt").unlink()  # a new name alone is no change of the pictures
    assert torch.equal(common.load_faces("mac"), common.load_faces("plain")[[0, 2, 1]])


@pytest.mark.parametrize("mode, suffix", [("L", ".jpg"), ("CMYK", ".jpg"), ("P", ".png"), ("RGBA", ".png"), ("LA", ".png"),
                                          ("1", ".png"), ("RGB", ".webp"), ("RGB", ".bmp"), ("RGB", ".JPEG")])
def test_every_kind_of_picture_becomes_rgb(mode, suffix):
    Path("pictures").mkdir()
    Image.new("RGB", (80, 100), (255, 255, 255)).convert(mode).save(f"pictures/a{suffix}")
    images = common.load_faces("pictures")
    assert images.shape == (1, 3, 64, 64) and images.min() >= 250


@pytest.mark.parametrize("size", [(178, 218), (218, 178), (89, 109), (30, 40), (1000, 64)])
def test_the_crop_is_the_centre_square(size):
    """A picture that is red outside its centre square and blue inside comes out blue."""
    side = min(size)
    picture = Image.new("RGB", size, (255, 0, 0))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    picture.paste((0, 0, 255), (left, top, left + side, top + side))
    Path("pictures").mkdir()
    picture.save("pictures/a.png")
    red, _, blue = common.load_faces("pictures")[0].float()
    assert blue[2:-2, 2:-2].min() > 250 and red[2:-2, 2:-2].max() < 5


def test_a_photo_taken_sideways_is_turned_upright():
    Path("pictures").mkdir()
    picture = Image.new("RGB", (64, 64), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 32, 64))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees, clockwise": what was left is the top
    picture.save("pictures/a.jpg", exif=exif, quality=95)
    red = common.load_faces("pictures")[0, 0].float()
    assert red[:28].mean() > 240 and red[36:].mean() < 15


def test_scaling_is_antialiased():
    """A fine black and white chess board becomes grey, not a coarse pattern."""
    board = numpy.indices((256, 256)).sum(axis=0) % 2 * 255
    Path("pictures").mkdir()
    Image.fromarray(board.astype(numpy.uint8)).save("pictures/a.png")
    assert common.load_faces("pictures").float().sub(127.5).abs().max() < 10


# ---------------------------------------------------------------------------------------------------------- what is kept
def test_decoded_images_are_kept_until_a_file_changes(monkeypatch):
    write_pictures("plain", 5)
    images = common.load_faces("plain")
    assert Path("plain/faces64.pt").exists()
    with monkeypatch.context() as patch:
        patch.setattr(common.Image, "open", lambda *args: pytest.fail("decoded again"))
        assert torch.equal(common.load_faces("plain"), images)
        assert torch.equal(common.load_faces("plain", limit=2), images[:2])
    write_pictures("plain", 5, seed=3)
    os.utime("plain/000005.jpg", (2e9, 2e9))
    assert not torch.equal(common.load_faces("plain"), images)
    write_pictures("plain", 6, seed=3)
    assert len(common.load_faces("plain")) == 6
    Path("plain/faces64.pt").write_bytes(b"not whole")
    assert len(common.load_faces("plain")) == 6


def test_a_limit_decodes_that_many_and_keeps_nothing():
    write_pictures("plain", 8)
    assert len(common.load_faces("plain", limit=3)) == 3
    assert not Path("plain/faces64.pt").exists()


def test_a_folder_that_cannot_be_written_is_said(monkeypatch, capsys):
    write_pictures("plain", 3)
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert len(common.load_faces("plain")) == 3
    assert "not kept" in capsys.readouterr().out and not Path("plain/faces64.pt").exists()


def test_a_full_disk_keeps_the_images_that_were_kept_before(stops, monkeypatch):
    write_pictures("plain", 3)
    common.load_faces("plain")
    kept = Path("plain/faces64.pt").read_bytes()
    write_pictures("plain", 4)

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert "faces64.pt: [Errno 28]" in stops(lambda argv: common.load_faces(argv[0]), ["plain"], status=1)
    assert Path("plain/faces64.pt").read_bytes() == kept and not list(Path("plain").glob("*.tmp"))


def test_memory_is_that_of_the_result():
    """Twice the pictures take at most the memory of the images that were added, and some noise."""
    write_pictures("small", 1500)
    write_pictures("large", 3000)
    code = "import resource, sys, common; common.load_faces(sys.argv[1]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    small, large = (int(subprocess.check_output([sys.executable, "-c", code, folder], env={**os.environ, "PYTHONPATH": str(ROOT)}))
                    for folder in ("small", "large"))
    assert (large - small) * 1024 < 1500 * 3 * 64 * 64 + 12e6


# ------------------------------------------------------------------------------------------------------------- bad input
def test_a_few_broken_pictures_are_skipped_and_named(capsys):
    write_pictures("plain", 250, size=(64, 64))
    whole = Path("plain/000007.jpg").read_bytes()
    Path("plain/000007.jpg").write_bytes(whole[:300])
    Path("plain/000009.jpg").write_text("<html>not found</html>")
    images = common.load_faces("plain")
    assert len(images) == 248
    assert "2 of 250 pictures" in (said := capsys.readouterr().out) and "000007.jpg, 000009.jpg" in said
    assert torch.equal(images[6], common.load_faces("plain")[6])


def test_a_damaged_zip_loses_the_damaged_picture_only(capsys):
    write_pictures("plain", 120, size=(64, 64))
    zip_folder("plain", "all.zip")
    data = bytearray(Path("all.zip").read_bytes())
    with zipfile.ZipFile("all.zip") as archive:
        start = archive.getinfo("000030.jpg").header_offset
    data[start:start + 4] = b"oops"
    Path("all.zip").write_bytes(data)
    assert len(common.load_faces("all.zip")) == 119
    assert "1 of 120 pictures" in (said := capsys.readouterr().out) and "000030.jpg" in said


def test_many_broken_pictures_are_an_error(refuses):
    write_pictures("plain", 20, size=(64, 64))
    Path("plain/000007.jpg").write_bytes(b"")
    assert "1 of 20 pictures in plain are broken: 000007.jpg" in refuses("plain")
    assert not Path("plain/faces64.pt").exists()


def test_nothing_found_names_three_sources_and_the_place(refuses):
    Path("data/celeba").mkdir(parents=True)
    for root in ("data", "nowhere"):
        line = refuses(root)
        assert all(word in line for word in ("img_align_celeba.zip", "kaggle", "huggingface", "1.4 GB", f"{root}/celeba", "--dataset toy"))


def test_a_web_page_saved_as_zip_is_called_that(refuses):
    Path("data/celeba").mkdir(parents=True)
    Path("data/celeba/img_align_celeba.zip").write_text("<!DOCTYPE html><title>Google Drive - Quota exceeded</title>")
    assert "Google Drive's quota page" in refuses("data")
    Path("data/celeba/img_align_celeba.zip").write_bytes(b"PK\x03\x04 cut short")
    assert "not a complete zip archive" in (line := refuses("data")) and "web page" not in line
    zip_folder("data", "empty.zip")
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no pictures")
    assert "no pictures" in refuses("empty.zip")


def test_path_tricks_in_a_zip_write_nothing():
    write_pictures("plain", 2)
    zip_folder("plain", "evil.zip", "../../outside/")
    before = sorted(Path("..").rglob("*"))
    assert len(common.load_faces("evil.zip")) == 2
    assert set(Path("..").rglob("*")) - set(before) == {Path("../" + Path.cwd().name + "/faces64.pt")}


# -------------------------------------------------------------------------------------------------------------- toy faces
def test_toy_faces_are_balanced_always_the_same_and_drawn_from_their_factors():
    images, labels, factors = common.toy_faces()
    assert images.shape == (10_000, 3, 64, 64) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == [1250] * 8
    first = common.toy_faces(400)
    assert torch.equal(images[:400], first[0]) and torch.equal(labels[:400], first[1])
    images, labels, factors = first
    assert {"skin", "length", "width", "jaw", "eyes", "turn"} <= factors.keys() and all(len(value) == 400 for value in factors.values())
    x = images.float()
    teeth = x[:, :, 43:45, 29:35].amax(dim=(1, 2, 3))  # the mouth: bright where it is open
    straight = (factors["turn"] - 0.5).abs() < 0.2
    assert teeth[straight & (labels % 2 == 1)].min() > teeth[straight & (labels % 2 == 0)].max()
    hair = x[:, :, 15:17, 28:36].mean(dim=(1, 2, 3))  # the fringe: black is darker than brown, brown than blond
    black, brown, blond = (hair[labels // 2 == kind].mean() for kind in range(3))
    assert black < brown < blond


# ---------------------------------------------------------------------------------------------------------- dcgan_celeba.py
SMALL = ["--batch-size", "8", "--ngf", "4", "--ndf", "8", "--epochs", "1"]


def test_celeba_trains_on_pictures_and_compares_runs(stops):
    write_pictures("data/celeba/img_align_celeba", 16)
    dcgan_celeba.main([*SMALL, "--generator", "vanilla"])
    dcgan_celeba.main([*SMALL, "--compare", "runs/dcgan_celeba", "--out", "other"])
    with Image.open("other/losses_comparison.png") as picture:
        assert picture.size == (1200, 400)
    kinds = [torch.load(f"{run}/checkpoint.pt", weights_only=True)["generator"] for run in ("runs/dcgan_celeba", "other")]
    assert kinds == [{"class": "VanillaGenerator", "latent_dim": 100, "ngf": 4, "size": 64}, {"class": "DCGANGenerator", "latent_dim": 100, "ngf": 4}]
    assert "--compare nowhere" in stops(dcgan_celeba.main, ["--dataset", "toy", "--compare", "nowhere"])
    Path("runs/dcgan_celeba").rename("elsewhere")
    dcgan_celeba.main(["--resume", "--out", "other", "--epochs", "2"])  # needs no run to compare with
    Path("other/losses_comparison.png").unlink()
    dcgan_celeba.main(["--resume", "--out", "other", "--compare", "elsewhere"])
    assert Path("other/losses_comparison.png").exists()


def test_mnist_gets_the_labs_adaptation(stops):
    from conftest import write_mnist

    write_mnist("data", count=130)
    dcgan_celeba.main(["--dataset", "mnist", "--epochs", "1", "--ngf", "4", "--ndf", "8"])
    saved = torch.load("runs/dcgan_celeba/checkpoint.pt", weights_only=True)
    assert saved["args"]["batch_size"] == 64 and saved["step"] == 2
    assert saved["generator"] == {"class": "VanillaGenerator", "latent_dim": 100, "ngf": 4, "size": 28}
    assert "only the vanilla" in stops(dcgan_celeba.main, ["--dataset", "mnist", "--generator", "dcgan"])
