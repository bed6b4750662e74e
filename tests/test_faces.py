"""Faces in: CelebA in every layout people have it in, anybody's pictures, and faces drawn by code."""
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT, SCRIPTS, checkpoint, csv_rows, launched
from PIL import Image

import common
import dcgan_celeba
import toy_images


def write_pictures(folder, count, size=(178, 218), seed=0, suffix=".jpg"):
    """Write pictures 000001.jpg, ... of smooth random colours into folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(seed)
    for i in range(count):
        picture = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=numpy.uint8)).resize(size)
        picture.save(Path(folder, f"{i + 1:06d}{suffix}"))


def zip_folder(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(Path(folder).rglob("*")):
            archive.write(file, prefix + str(file.relative_to(folder)))


@pytest.fixture
def refuses(stops):
    return lambda root: stops(lambda argv: common.load_faces(argv[0]), [root])


# -------------------------------------------------------------------------------------------------------------- layouts
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
    zip_folder("plain", "deep/a/b/archive.zip")  # as Kaggle names it
    Path("linked/celeba").mkdir(parents=True)
    Path("linked/celeba/img_align_celeba").symlink_to(Path("plain").resolve(), target_is_directory=True)
    for root in ["linked", "torchvision", "torchvision/celeba/img_align_celeba", "kaggle", "zipped", "mine.zip",
                 "deep"]:
        assert torch.equal(common.load_faces(root), images), root
    extracted = [path for path in Path().rglob("*.jpg") if path.parts[0] in ("zipped", "deep")]
    assert not extracted, "a zip is read in place: half of an archive must never pass for a small dataset"


def test_what_a_mac_leaves_behind_is_ignored_and_names_give_the_order():
    write_pictures("plain", 3)
    write_pictures("mac/__MACOSX", 3, seed=2)
    write_pictures("mac/x", 3)
    Path("mac/x/._000001.jpg").write_bytes(b"resource fork")
    Path("mac/x/readme.txt").write_text("no picture")
    plain = common.load_faces("plain")
    assert torch.equal(common.load_faces("mac"), plain)
    zip_folder("mac", "mac.zip", "img/")
    assert torch.equal(common.load_faces("mac.zip"), plain)
    Path("mac/x/000002.jpg").rename("mac/x/z.jpg")
    Path("mac/faces64.pt").unlink()  # a new name alone is no change of the pictures
    assert torch.equal(common.load_faces("mac"), plain[[0, 2, 1]])


@pytest.mark.parametrize("mode, suffix", [
    ("L", ".jpg"), ("CMYK", ".jpg"), ("P", ".png"), ("RGBA", ".png"), ("LA", ".png"), ("1", ".png"),
    ("RGB", ".webp"), ("RGB", ".bmp"), ("RGB", ".JPEG")])
def test_every_kind_of_picture_becomes_rgb(mode, suffix):
    Path("pictures").mkdir()
    Image.new("RGB", (80, 100), (255, 255, 255)).convert(mode).save(f"pictures/a{suffix}")
    images = common.load_faces("pictures")
    assert images.shape == (1, 3, 64, 64) and images.min() >= 250


def test_colours_and_directions_stay_what_they_are():
    picture = Image.new("RGB", (64, 64), (10, 20, 30))
    picture.paste((200, 100, 50), (32, 0, 64, 32))  # above, on the right
    Path("pictures").mkdir()
    picture.save("pictures/a.png")
    image = common.load_faces("pictures")[0]
    assert image[:, 10, 50].tolist() == [200, 100, 50] and image[:, 50, 10].tolist() == [10, 20, 30]
    assert image[:, 10, 10].tolist() == image[:, 50, 50].tolist() == [10, 20, 30]


@pytest.mark.parametrize("size, suffix", [
    ((178, 218), ".jpg"), ((178, 218), ".png"), ((218, 178), ".png"), ((89, 109), ".png"), ((30, 40), ".png"),
    ((1000, 64), ".png"), ((1400, 1000), ".jpg")])
def test_the_crop_is_the_centre_square(size, suffix):
    """A picture that is red outside its centre square and blue inside comes out blue."""
    side = min(size)
    picture = Image.new("RGB", size, (255, 0, 0))
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    picture.paste((0, 0, 255), (left, top, left + side, top + side))
    Path("pictures").mkdir()
    picture.save(f"pictures/a{suffix}", quality=95)
    red, _, blue = common.load_faces("pictures")[0].float()
    assert blue[3:-3, 3:-3].min() > 240 and red[3:-3, 3:-3].max() < 15


def test_a_photo_taken_sideways_is_turned_upright():
    Path("pictures").mkdir()
    picture = Image.new("RGB", (64, 64), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 32, 64))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees, clockwise": what was left is the top
    picture.save("pictures/a.jpg", exif=exif, quality=95)
    red = common.load_faces("pictures")[0, 0].float()
    assert red[:28].mean() > 240 and red[36:].mean() < 15


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_scaling_is_antialiased(suffix):
    """A fine black and white chess board becomes grey, not a coarse pattern."""
    board = numpy.indices((256, 256)).sum(axis=0) % 2 * 255
    Path("pictures").mkdir()
    Image.fromarray(board.astype(numpy.uint8)).save(f"pictures/a{suffix}", quality=95)
    assert common.load_faces("pictures").float().sub(127.5).abs().max() < 10


# --------------------------------------------------------------------------------------------------------- what is kept
def test_decoded_images_are_kept_until_a_file_changes(monkeypatch):
    write_pictures("plain", 5)
    images = common.load_faces("plain")
    assert Path("plain/faces64.pt").exists() and not list(Path("plain").glob("*.tmp"))
    with monkeypatch.context() as patch:
        patch.setattr(common.Image, "open", lambda *args: pytest.fail("decoded again"))
        assert torch.equal(common.load_faces("plain"), images)
        assert torch.equal(common.load_faces("plain", limit=2), images[:2])
    write_pictures("plain", 5, seed=3)
    os.utime("plain/000005.jpg", (2e9, 2e9))
    changed = common.load_faces("plain")
    assert not torch.equal(changed, images) and torch.equal(common.load_faces("plain"), changed)
    with monkeypatch.context() as patch:  # a picture of another time is another one, also with as many bytes
        seen, decode = [], common.decode
        patch.setattr(common, "decode", lambda *inputs: seen.append(0) or decode(*inputs))
        os.utime("plain/000002.jpg", (1e9, 1e9))
        assert torch.equal(common.load_faces("plain"), changed) and len(seen) == 5
        with open("plain/000002.jpg", "ab") as file:  # and so is one of another size, also with the same time
            file.write(b"!")
        os.utime("plain/000002.jpg", (1e9, 1e9))
        assert torch.equal(common.load_faces("plain"), changed) and len(seen) == 10
    Path("plain/000001.jpg").unlink()
    assert torch.equal(common.load_faces("plain"), changed[1:])
    write_pictures("plain", 6, seed=3)
    assert len(common.load_faces("plain")) == 6
    Path("plain/faces64.pt").write_bytes(b"not whole")
    assert len(common.load_faces("plain")) == 6
    assert common.load_faces("plain", size=32).shape == (6, 3, 32, 32), "another size is kept in a file of its own"
    assert common.load_faces("plain").shape == (6, 3, 64, 64)


def test_a_limit_decodes_that_many_and_keeps_nothing(monkeypatch):
    write_pictures("plain", 8)
    decode, names = common.decode, []
    monkeypatch.setattr(common, "decode", lambda zipped, name, out: names.append(name) or decode(zipped, name, out))
    images = common.load_faces("plain", limit=3)
    assert len(images) == len(names) == 3 and not Path("plain/faces64.pt").exists()
    assert torch.equal(common.load_faces("plain")[:3], images)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(monkeypatch):
    write_pictures("plain", 3)
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert len(common.load_faces("plain")) == 3 and not Path("plain/faces64.pt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_line_and_keeps_the_images_that_were_kept_before(stops, full_disk):
    write_pictures("data", 3)
    common.load_faces("data")
    kept = Path("data/faces64.pt").read_bytes()
    write_pictures("data", 4)
    full_disk.full = True
    assert "disk is full" in stops(launched(dcgan_celeba), ["--out", "run"], status=1)
    assert Path("data/faces64.pt").read_bytes() == kept and not Path("run").exists()
    assert not list(Path("data").glob("unfinished*")), "half of a copy would fill the disk for good"


@pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource")
def test_memory_is_that_of_the_result():
    """600 more pictures take the memory of their pixels at 64 x 64, 7 MB, and some noise; whole they would be 70."""
    write_pictures("small", 1)
    for folder, count in [("small", 100), ("large", 700)]:
        Path(folder).mkdir(exist_ok=True)
        for i in range(count):
            os.link("small/000001.jpg", f"{folder}/x{i:06d}.jpg")
    code = "import resource, common\n" \
           "for folder in ('small', 'large'):\n" \
           "    common.load_faces(folder); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    small, large = map(int, subprocess.check_output([sys.executable, "-c", code], env=environment).split())
    unit = 1 if sys.platform == "darwin" else 1024
    assert (large - small) * unit < 600 * 3 * 64 * 64 + 15e6


# ------------------------------------------------------------------------------------------------------------ bad input
def test_a_few_broken_pictures_are_skipped_and_named(capsys):
    write_pictures("plain", 200, size=(64, 64))
    whole = Path("plain/000007.jpg").read_bytes()
    Path("plain/000007.jpg").write_bytes(whole[:300])
    Path("plain/000190.jpg").write_text("<html>not found</html>")
    first = common.load_faces("plain", limit=120)
    capsys.readouterr()
    images = common.load_faces("plain")
    assert len(images) == 198, "one in a hundred"
    assert torch.equal(common.load_faces("plain", limit=120), first), "or a run with --limit could not be resumed"
    said = capsys.readouterr().out
    assert "2 of 200 pictures in plain are broken" in said and "000007.jpg" in said and "000190.jpg" in said
    again = common.load_faces("plain")
    assert torch.equal(images, again)
    with Image.open("plain/000008.jpg") as picture:  # the first behind a gap
        assert torch.equal(images[6], torch.from_numpy(numpy.array(picture)).permute(2, 0, 1))


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


def test_a_link_to_nowhere_is_a_broken_picture(capsys, refuses):
    """As in a folder of links whose disk has moved."""
    write_pictures("plain", 100, size=(64, 64))
    Path("plain/000001.jpg").unlink()
    Path("plain/000001.jpg").symlink_to("nowhere.jpg")
    assert len(common.load_faces("plain")) == len(common.load_faces("plain")) == 99
    assert capsys.readouterr().out.count("1 of 100 pictures in plain are broken (1% may be): ['plain/000001.jpg']") == 1
    Path("links").mkdir()
    Path("links/a.jpg").symlink_to("nowhere.jpg")
    assert "1 of 1 pictures in links are broken" in refuses("links")


def test_many_broken_pictures_are_an_error(refuses):
    write_pictures("plain", 20, size=(64, 64))
    broken = [f"{i:06d}.jpg" for i in range(3, 10)]
    for name in broken:
        Path("plain", name).write_bytes(b"")
    assert "7 of 20 pictures in plain are broken" in (line := refuses("plain")) and all(name in line for name in broken)
    assert not Path("plain/faces64.pt").exists()


def test_nothing_found_names_kinds_sources_and_the_place(refuses):
    Path("data/celeba").mkdir(parents=True)
    words = ("(jpg, png, ...)", "img_align_celeba.zip", "mmlab", "kaggle", "1.4 GB", "--dataset toy")
    for root in ("data", "nowhere"):
        line = refuses(root)
        assert all(word in line for word in (*words, f"{root}/celeba"))


def test_a_zip_that_is_none_is_named(refuses):
    Path("data/celeba").mkdir(parents=True)
    write_pictures("plain", 2)
    zip_folder("plain", "whole.zip")
    spoiled = Path("whole.zip").read_bytes().replace(b"PK\x01\x02", b"PK\x01\x00")
    for content in (b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>", b"PK\x03\x04 cut short", b"", spoiled):
        Path("data/celeba/img_align_celeba.zip").write_bytes(content)
        assert "img_align_celeba.zip is no complete zip archive" in (line := refuses("data")) and "web page" in line
    assert "000001.jpg is no complete zip archive (a picture or" in refuses("plain/000001.jpg")
    Path("data/celeba/a.zip").mkdir()
    assert "a.zip is no complete zip archive" in refuses("data")
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no pictures")
    assert "no pictures (jpg, png, ...) in it: empty.zip" in refuses("empty.zip")


def test_path_tricks_in_a_zip_write_nothing():
    write_pictures("plain", 2)
    zip_folder("plain", "evil.zip", "../../outside/")
    before = sorted(Path("..").rglob("*"))
    assert len(common.load_faces("evil.zip")) == 2
    assert set(Path("..").rglob("*")) - set(before) == {Path("../" + Path.cwd().name + "/faces64.pt")}


# ------------------------------------------------------------------------------------------------------------ toy faces
def test_toy_faces_are_balanced_always_the_same_and_drawn_from_their_factors():
    images, labels, factors = toy_images.faces()
    assert images.shape == (10_000, 3, 64, 64) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == [1250] * 8
    torch.manual_seed(7)
    first = toy_images.faces.__wrapped__(400)
    assert torch.equal(images[:400], first[0]) and torch.equal(labels[:400], first[1])
    assert all(torch.equal(factors[name][:400], values) for name, values in first[2].items())
    images, labels, factors = first
    assert {"skin", "length", "width", "jaw", "eyes", "turn"} <= factors.keys()
    assert all(len(value) == 400 for value in factors.values())
    x = images.float()
    teeth = x[:, :, 43:45, 29:35].amax(dim=(1, 2, 3))  # the mouth: bright where it is open
    straight = (factors["turn"] - 0.5).abs() < 0.2
    assert teeth[straight & (labels % 2 == 1)].min() > teeth[straight & (labels % 2 == 0)].max()
    hair = x[:, :, 15:17, 28:36].mean(dim=(1, 2, 3))  # the fringe: black is darker than brown, brown than blond
    black, brown, blond = (hair[labels // 2 == kind].mean() for kind in range(3))
    assert black < brown < blond
    fringe = x[labels // 2 == 3][:, :, 15:17, 28:36].mean(dim=(0, 2, 3))
    assert fringe[0] > 2 * fringe[1] > 2 * fringe[2], "and the fourth kind is red"
    nose = x[:, :, 36, 32].mean(dim=1)  # skin, from dark to light
    assert torch.corrcoef(torch.stack([nose, factors["skin"]]))[0, 1] > 0.9
    middle = toy_images.draw(torch.full((10, 2, 1, 1, 1), 0.5), torch.tensor([0, 7])).int()  # every factor at 1/2: no turn
    assert (middle - middle.flip(3)).abs().max() <= 1, "two halves alike, each with an eye"


# ------------------------------------------------------------------------------------------------------ dcgan_celeba.py
SMALL = ["--batch-size", "8", "--ngf", "2", "--ndf", "2", "--epochs", "1"]


def test_celeba_trains_on_pictures_and_compares_runs(drawn):
    write_pictures("data/celeba/img_align_celeba", 16)
    dcgan_celeba.main([*SMALL, "--generator", "vanilla"])
    drawn.clear()
    dcgan_celeba.main([*SMALL, "--compare", "runs/dcgan_celeba", "--out", "other"])
    assert Path("other/losses_comparison.png").exists()
    for run in ("runs/dcgan_celeba", "other"):
        _, rows = csv_rows(Path(run, "losses.csv"))
        for column in (2, 3):
            line = None, [row[0] for row in rows], [row[column] for row in rows]
            assert drawn.count(line) >= 1, "the losses of both runs"
    assert {"dcgan_celeba", "other"} <= {label for label, *_ in drawn}
    kinds = [checkpoint(run)["generator"] for run in ("runs/dcgan_celeba", "other")]
    assert kinds == [{"class": "VanillaGenerator", "latent_dim": 100, "ngf": 2, "size": 64},
                     {"class": "DCGANGenerator", "latent_dim": 100, "ngf": 2}]
    Path("runs/dcgan_celeba").rename("elsewhere")
    Path("other/losses_comparison.png").unlink()
    dcgan_celeba.main(["--resume", "other", "--epochs", "2"])  # needs no run to compare with
    assert not Path("other/losses_comparison.png").exists()
    dcgan_celeba.main(["--resume", "other", "--compare", "elsewhere"])
    assert Path("other/losses_comparison.png").exists()


def test_pictures_of_a_size_that_no_block_is_written_for_are_refused_by_name():
    for kind in (dcgan_celeba.VanillaGenerator, dcgan_celeba.Discriminator):
        with pytest.raises(ValueError, match="32 x 32"):
            kind(size=32)


def test_a_run_on_pictures_takes_the_first_ones(built):
    write_pictures("mine", 12)
    images = common.load_faces("mine")
    small = ["--data", "mine", "--batch-size", 2, *SCRIPTS[dcgan_celeba][6:]]
    assert torch.equal(built(dcgan_celeba, *small).images, images)
    assert torch.equal(built(dcgan_celeba, *small, "--limit", 5).images, images[:5])
