"""Faces in: CelebA in every layout people have it in, anybody's pictures, and faces drawn by code."""
import contextlib
import importlib.util
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT, SCRIPTS, checkpoint, csv_rows
from PIL import Image, PngImagePlugin

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


def scattered(count, size=(8, 8)):
    """Pictures of one colour each, all different, as many zips and folders are made from."""
    return [Image.new("RGB", size, (i, 255 - i, i)) for i in range(count)]


def save_into(folder, *pictures, suffix=".png", **how):
    """Save pictures as 0.png, 1.png, ... into a new folder. Returns it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        picture.save(Path(folder, f"{i}{suffix}"), **how)
    return Path(folder)


def spoil(path):
    """Replace a file's bytes, but neither its size nor its time: only who decodes it again notices."""
    stat = os.stat(path)
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


needs_unix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the permissions and links of Unix")


@contextlib.contextmanager
def ordinary_user():
    """Permissions do not stop root, as in a container: there, be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.chmod(".", 0o777)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def said(capsys):
    """What load_faces prints: said(root)."""
    def run(root, **how):
        capsys.readouterr()
        common.load_faces(root, **how)
        return capsys.readouterr().out
    return run


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
    assert torch.equal(common.load_faces("mac", limit=2), plain[[0, 2]]), "the first two of the new order"
    assert torch.equal(common.load_faces("mac"), plain[[0, 2, 1]])


# ------------------------------------------------------------------------------------- what is found, what is left out
def test_all_zips_and_loose_pictures_are_read_and_counted(said):
    pictures = scattered(9)
    for name, part in [("a", pictures[:2]), ("b", pictures[2:5]), ("c", pictures[5:8])]:
        save_into(name, *part)
    Path("data/deep").mkdir(parents=True)
    zip_folder("a", "data/a.zip")
    zip_folder("b", "data/deep/b.ZIP")
    zip_folder("c", "data/deep/c.zip")
    save_into("data/loose", pictures[8])
    images = common.load_faces("data")
    assert images[:, 0].float().mean(dim=(1, 2)).tolist() == list(range(9)), "in the order of their names"
    assert "data: 9 (folders: 1, zip archives: 3)" in said("data")


def test_an_archive_that_was_unpacked_beside_itself_counts_once(said):
    """As torchvision leaves CelebA."""
    save_into("data/celeba/img_align_celeba", *scattered(4))
    zip_folder("data/celeba", "img_align_celeba.zip")
    Path("img_align_celeba.zip").rename("data/celeba/img_align_celeba.zip")
    assert len(common.load_faces("data")) == 4 and "unpacked (1)" in said("data")
    Path("data/celeba/img_align_celeba/1.png").unlink()  # not all of it was
    assert len(common.load_faces("data")) == 7


def test_a_folder_may_be_named_like_a_file_and_a_zip_in_a_zip_is_named(said, refuses):
    save_into("data/x.zip", *scattered(2))
    save_into("data/y.jpg", *scattered(3))
    assert len(common.load_faces("data")) == 5
    zip_folder("data/x.zip", "inner.zip")
    Path("outer").mkdir()
    with zipfile.ZipFile("outer/outer.zip", "w") as archive:
        archive.write("inner.zip")
    assert ".zip within a .zip: unpack it (1)" in refuses("outer")
    save_into("outer", *scattered(1))
    assert "outer: 1 (" in (line := said("outer")) and ".zip within a .zip: unpack it (1)" in line


def test_one_line_says_what_is_left_out(said, refuses):
    save_into("data", *scattered(2))
    for name in ("a.heic", "b.HEIC", "c.gif", "d.avif", "list.csv", "README", "x.7z"):
        Path("data", name).write_text("not read")
    scattered(1)[0].save("data/z.jfif", "JPEG")  # a JPEG
    line = said("data")
    assert "data: 3 (folders: 1, zip archives: 0)" in line and line.count("\n") == 1
    for words in (".heic (2)", ".gif (1)", ".avif (1)", ".csv (1)", ".7z (1)", "files without a suffix (1)"):
        assert words in line
    assert said("data") == line, "nor is the kept copy a file that is left out"
    with zipfile.ZipFile("labels.zip", "w") as archive:
        archive.writestr("labels.txt", "1")
    Path("labels.zip").rename("data/labels.zip")
    assert ".zip without pictures (1)" in (line := said("data")) and "zip archives: 0" in line and ".txt (1)" in line
    Path("phone").mkdir()
    Path("phone/a.heic").write_text("not read")
    assert ".heic (1)" in refuses("phone"), "it says why there is nothing"


@pytest.mark.parametrize("name", [".Trash-1000", ".ipynb_checkpoints", ".venv/lib/matplotlib", "@eaDir", "__MACOSX", "#recycle",
                                  "$RECYCLE.BIN", "lost+found", "System Volume Information", "sub/@eaDir"])
def test_what_systems_keep_beside_pictures_is_left_out_and_named(name, said):
    pictures = scattered(5)
    save_into("data", *pictures[:2])
    save_into(Path("data", name, "x"), *pictures[2:])
    assert len(common.load_faces("data")) == 2
    assert name.removeprefix("sub/").partition("/")[0] + " (1)" in said("data")
    zip_folder("data", "all.zip")
    assert len(common.load_faces("all.zip")) == 2 and "hidden files (3)" in said("all.zip")
    assert len(common.load_faces(Path("data", name))) == 3, "who names it means it"


def test_python_environments_and_our_own_runs_are_left_out(said):
    save_into("data", *scattered(2))
    save_into("data/env/share", *scattered(3))
    Path("data/env/pyvenv.cfg").touch()
    save_into("data/mine/samples", *scattered(2))  # no run: nothing else of one is beside it
    for run, file in [("runs/dcgan_celeba", "checkpoint.pt"), ("moved", "config.json")]:
        save_into(Path("data", run), *scattered(1))
        save_into(Path("data", run, "samples"), *scattered(3))
        Path("data", run, file).touch()
    line = said("data")
    assert "data: 4 (folders: 2," in line and "runs (2)" in line and "Python environments (1)" in line
    assert len(common.load_faces("data/moved")) == 4, "who names it means it"


def test_a_run_inside_the_picture_folder_does_not_change_the_data():
    write_pictures("mine", 16)
    os.chdir("mine")
    dcgan_celeba.main([*SMALL, "--data", "."])
    assert Path("runs/dcgan_celeba/samples").exists() and len(common.load_faces(".")) == 16
    dcgan_celeba.main(["--resume", "runs/dcgan_celeba", "--epochs", "2"])


def test_an_empty_celeba_folder_beside_pictures_hides_nothing(said):
    save_into("data", *scattered(3))
    Path("data/celeba").mkdir()
    assert "data: 3 (" in said("data")
    save_into("data/celeba", *scattered(2))
    assert f"{Path('data/celeba')}: 2 (" in said("data")


@needs_unix
def test_each_real_folder_is_read_once(said):
    save_into("data/sub/deep", *scattered(3))
    Path("data/latest").symlink_to(".")
    Path("data/sub/up").symlink_to("..")
    Path("data/sub/deep/top").symlink_to(Path("data").resolve())
    Path("data/again").symlink_to("sub")
    zip_folder("data/sub/deep", "one.zip")
    Path("zips").mkdir()
    Path("one.zip").rename("zips/one.zip")
    Path("zips/two.zip").symlink_to("one.zip")
    assert len(common.load_faces("data")) == 3
    assert "zips: 3 (folders: 0, zip archives: 1)" in said("zips")
    Path("data/disk").symlink_to("/nowhere/pictures")
    assert "broken links (1)" in said("data")


@needs_unix
def test_a_folder_or_an_archive_that_may_not_be_read_is_an_error(refuses):
    for name in ("data", "zips"):
        save_into(name, *scattered(3))
    save_into("data/private", *scattered(2)).chmod(0)
    zip_folder("data", "private.zip")
    Path("private.zip").rename("zips/private.zip")
    Path("zips/private.zip").chmod(0)
    with ordinary_user():
        assert "data/private cannot be read: Permission denied" in refuses("data")
        assert "zips/private.zip cannot be read: Permission denied" in refuses("zips")
    Path("data/private").chmod(0o755)
    assert len(common.load_faces("data")) == 5


# --------------------------------------------------------------------------------------------------------- how it is decoded
RAMP = numpy.linspace(0, 1, 64, dtype=numpy.float32) * numpy.ones((64, 1), dtype=numpy.float32)  # black to white


@pytest.mark.parametrize("pixels, suffix", [
    ((RAMP * 65535).astype("uint16"), ".png"), ((RAMP * 65535).astype("uint16"), ".tif"), ((RAMP * 65535).astype(">u2"), ".tif"),
    ((RAMP * 65535).astype("int32"), ".tif"), ((RAMP * 255).round().astype("int32"), ".tif"),
    ((RAMP * 2e9).astype("int32"), ".tif"), (RAMP, ".tif"), (RAMP * 255, ".tif"), (RAMP * 65535, ".tif")])
def test_more_than_8_bits_are_scaled_to_8(pixels, suffix):
    save_into("data", Image.fromarray(pixels), suffix=suffix)
    wanted = torch.from_numpy(RAMP * 255).expand(3, 64, 64)
    assert (common.load_faces("data")[0].float() - wanted).abs().max() < 1.1


def test_white_is_the_same_in_every_picture_of_16_bits():
    """A dark one stays dark; and floats that exceed 1 a little, as after sharpening, do not become black."""
    greys = numpy.arange(256, dtype="uint16").repeat(16).reshape(64, 64)
    save_into("data", Image.fromarray(greys * 257), Image.fromarray(numpy.full((64, 64), 200, dtype="uint16")))
    images = common.load_faces("data")
    assert torch.equal(images[0], torch.from_numpy(greys.astype("uint8")).expand(3, 64, 64)), "exactly"
    assert images[1].unique().tolist() == [1]
    save_into("floats", Image.fromarray(RAMP * 1.1 - 0.05), suffix=".tif")
    assert common.load_faces("floats")[0, 0, 30, [0, 31, 63]].tolist() == [0, 125, 255]


def erased(background=(10, 20, 30)):
    """A photo whose background was erased: transparent, but its colour is still in the file."""
    picture = Image.new("RGB", (64, 64), background)
    picture.paste((200, 100, 50), (16, 16, 48, 48))
    alpha = Image.new("L", (64, 64), 0)
    alpha.paste(255, (16, 16, 48, 48))
    picture.putalpha(alpha)
    return picture


def with_associated_alpha(path):
    """Note in a TIFF that its colours are multiplied by alpha (ExtraSamples 1, not 2)."""
    content = bytearray(Path(path).read_bytes())
    content[content.index(struct.pack("<HHI", 338, 3, 1)) + 8] = 1
    Path(path).write_bytes(content)


@pytest.mark.parametrize("mode, suffix, how", [
    ("RGBA", ".png", {}), ("RGBA", ".webp", {"lossless": True, "exact": True}), ("RGBA", ".tif", {}), ("LA", ".png", {}),
    ("LA", ".tif", {}), ("La", ".tif", {}), ("RGBa", ".tif", {}), ("P", ".png", {}), ("RGB", ".png", {"transparency": (10, 20, 30)}),
    ("L", ".png", {"transparency": 18})])
def test_what_is_transparent_is_laid_on_white(mode, suffix, how):
    picture = erased().quantize(16) if mode == "P" else erased().convert(mode.upper())
    save_into("data", picture, suffix=suffix, **how)
    if mode in ("La", "RGBa"):
        with_associated_alpha("data/0.tif")
    image = common.load_faces("data")[0].int()
    assert image[:, 4, 4].tolist() == image[:, 32, 4].tolist() == [255] * 3
    inside = (200, 100, 50) if "RGB" in mode or mode == "P" else (124, 124, 124)
    assert (image[:, 32, 32] - torch.tensor(inside)).abs().max() <= 1


def test_half_transparent_black_is_grey_and_a_palette_without_alpha_keeps_its_colours():
    save_into("data", Image.new("RGBA", (64, 64), (0, 0, 0, 128)), Image.new("P", (64, 64), 3))
    images = common.load_faces("data")
    assert images[0].unique().tolist() == [127] and images[1, :, 0, 0].tolist() == list(Image.new("P", (1, 1), 3).convert("RGB").getpixel((0, 0)))


def damaged_exif(width_first=True):
    """An EXIF block that says Orientation 6 (turn by 90 degrees, clockwise), and has a damaged entry: a width as text."""
    entries = [struct.pack("<HHI4s", 0x0100, 2, 4, b"640\0"), struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + b"".join(entries if width_first else entries[::-1]) + bytes(4)


def test_exif_and_profiles_and_texts_never_decide_whether_a_picture_is_whole():
    picture = Image.new("RGB", (64, 64), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 32, 64))  # red on the left
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("workflow", "x" * 3_000_000, zip=True)
    save_into("turned", picture, suffix=".jpg", exif=damaged_exif(), quality=95)
    save_into("ends", picture, exif=damaged_exif(width_first=False)[:30])  # of which Pillow warns
    for name, suffix, how in [("profile", ".png", {"icc_profile": bytes(1_500_000)}), ("text", ".png", {"pnginfo": texts}),
                              ("exif", ".jpg", {"exif": b"Exif\0\0nonsense"}), ("cut", ".png", {"exif": b"Exif\0\0II*\0"}),
                              ("head", ".png", {"exif": b"Exif\0\0IIx\0" + damaged_exif()[10:]}),
                              ("jpeg", ".jpg", {"icc_profile": b"nonsense" * 20_000}), ("webp", ".webp", {"exif": b"II*\0\x08\0\0\0\x09"})]:
        save_into(name, picture, suffix=suffix, **how)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # python -W error
            red = common.load_faces(name)[0, 0].float()
        assert red[:, :28].mean() > 240 and red[:, 36:].mean() < 15, name
    for name in ("turned", "ends"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            red = common.load_faces(name)[0, 0].float()
        assert red[:28].mean() > 240 and red[36:].mean() < 15, "the readable entry counts"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation):
    upright = numpy.zeros((64, 64, 3), dtype=numpy.uint8)
    upright[:32, :32], upright[:32, 32:], upright[32:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    # what a camera stores, so that row 0 and column 0 of the file are the sides that EXIF names
    held = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
            6: numpy.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: numpy.rot90(upright, 3)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_into("data", Image.fromarray(numpy.ascontiguousarray(held)), exif=exif)
    assert torch.equal(common.load_faces("data")[0].permute(1, 2, 0), torch.from_numpy(upright))


def test_a_picture_beyond_the_pixel_limit_of_pillow_and_palettes_are_used_with_warnings_as_errors():
    save_into("data", Image.new("L", (14_000, 12_900), 100), suffix=".jpg")  # 180 million: a poster, scanned
    erased().quantize(16).save("data/1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert common.load_faces("data")[:, 0, 32, 32].tolist() == [100, 200]


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
def test_decoded_images_are_kept_until_a_file_changes():
    save_into("plain", *scattered(5), suffix=".bmp")  # of the same size, all of them
    images = common.load_faces("plain")
    assert Path("plain/faces64.pt").exists() and not list(Path("plain").glob("*.tmp"))
    path, new = Path("plain/2.bmp"), Path("plain/4.bmp").read_bytes()
    whole, when = path.read_bytes(), os.stat(path).st_mtime_ns
    spoil(path)  # who decoded it again would fail
    assert torch.equal(common.load_faces("plain"), images)
    assert torch.equal(common.load_faces("plain", limit=2), images[:2])
    assert torch.equal(common.load_faces(Path("plain").resolve()), images), "another way to write the folder's name"
    for content, time_ns in [(new, when + 10**9), (new + b"!", when)]:  # another time alone, another size alone
        path.write_bytes(whole)
        os.utime(path, ns=(when, when))
        assert torch.equal(common.load_faces("plain"), images)
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        assert torch.equal(common.load_faces("plain"), images[[0, 1, 4, 3, 4]])
    path.unlink()
    assert torch.equal(common.load_faces("plain"), images[[0, 1, 3, 4]])
    save_into("plain", *scattered(6), suffix=".bmp")
    assert len(common.load_faces("plain")) == 6
    Path("plain/faces64.pt").write_bytes(b"not whole")
    assert len(common.load_faces("plain")) == 6
    assert common.load_faces("plain", size=32).shape == (6, 3, 32, 32), "another size is kept in a file of its own"
    assert common.load_faces("plain").shape == (6, 3, 64, 64)


@pytest.mark.parametrize("times", [(1e9, 1e9), (1e9, 2e9)])
def test_two_pictures_that_swap_their_names_are_decoded_again(times):
    """Their sizes are the same, and their times add up to what they were."""
    save_into("data", *scattered(2), suffix=".bmp")
    for i in (0, 1):
        os.utime(f"data/{i}.bmp", (times[i], times[i]))
    images = common.load_faces("data")
    for a, b in [("0", "x"), ("1", "0"), ("x", "2")]:
        Path(f"data/{a}.bmp").rename(f"data/{b}.bmp")
    assert torch.equal(common.load_faces("data", limit=1), images[1:])


def test_a_changed_zip_is_decoded_again():
    pictures = scattered(5)
    Path("data").mkdir()
    for i, count in enumerate([3, 2, 5]):
        save_into(f"p{i}", *pictures[:count])
        zip_folder(f"p{i}", "data/x.zip")
        os.utime("data/x.zip", (1e9 + i, 1e9 + i))
        assert len(common.load_faces("data")) == count
    kept = common.load_faces("data")
    with zipfile.ZipFile("data/x.zip") as archive:
        start = archive.getinfo("2.png").header_offset
    content = bytearray(Path("data/x.zip").read_bytes())
    content[start:start + 4] = b"oops"  # as many bytes at the same time
    Path("data/x.zip").write_bytes(content)
    os.utime("data/x.zip", (1e9 + 2, 1e9 + 2))
    assert torch.equal(common.load_faces("data"), kept)


def edited_common(edit):
    """A copy of common.py with some lines more, imported."""
    Path("edited.py").write_text((ROOT / "common.py").read_text("utf-8") + edit, "utf-8")
    spec = importlib.util.spec_from_file_location("edited", "edited.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_decode_decodes_again():
    """A crop, a flip, also in a function that decode calls."""
    write_pictures("data", 1)
    results = []
    for edit in ("", "\n_decode = decode\ndef decode(*inputs): return ImageOps.mirror(_decode(*inputs))\n",
                 "\n_to_rgb = to_rgb\ndef to_rgb(image): return ImageOps.invert(_to_rgb(image))\n"):
        results.append(edited_common(edit).load_faces("data"))
        when = os.stat("data/faces64.pt").st_mtime_ns
        assert torch.equal(edited_common(edit).load_faces("data"), results[-1])
        assert os.stat("data/faces64.pt").st_mtime_ns == when, "not kept a second time"
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert not torch.equal(results[a], results[b])


def test_an_edit_of_the_file_while_it_runs_does_not_pass_for_what_runs():
    """As in a notebook: common.py is edited, and the cell runs again with the old one."""
    write_pictures("data", 1)
    edit = "\n_decode = decode\ndef decode(*inputs): return ImageOps.mirror(_decode(*inputs))\n"
    running = edited_common("")
    edited = edited_common(edit)  # the same file, newer
    images = running.load_faces("data")
    assert torch.equal(edited.load_faces("data"), images.flip(3))


def test_a_decode_typed_into_a_notebook_is_always_used(monkeypatch):
    write_pictures("data", 1)
    images = common.load_faces("data")
    names = {"original": common.decode}
    for number in (0, 1):
        exec(f"def decode(*inputs): return original(*inputs).transpose({number})", names)
        monkeypatch.setattr(common, "decode", names["decode"])
        assert torch.equal(common.load_faces("data"), images.flip(3 - number))


def test_the_copy_is_kept_from_one_process_to_the_next():
    write_pictures("data", 3)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", "import common; common.load_faces('data')"], env=environment, check=True)
    spoil(Path("data/000002.jpg"))
    assert len(common.load_faces("data")) == 3


def test_a_limit_decodes_that_many_and_keeps_nothing():
    write_pictures("plain", 8)
    whole = Path("plain/000004.jpg").read_bytes()
    Path("plain/000004.jpg").write_bytes(b"")
    images = common.load_faces("plain", limit=3)  # one that is broken would be an error
    assert len(images) == 3 and not Path("plain/faces64.pt").exists()
    Path("plain/000004.jpg").write_bytes(whole)
    assert torch.equal(common.load_faces("plain")[:3], images)


def test_nothing_is_kept_of_a_set_in_which_a_picture_failed():
    """It may have been the network drive, for a moment: the next start tries again."""
    save_into("data", *scattered(20))
    whole, when = Path("data/7.png").read_bytes(), os.stat("data/7.png").st_mtime_ns
    spoil(Path("data/7.png"))
    assert len(common.load_faces("data")) == 19 and not Path("data/faces64.pt").exists()
    Path("data/7.png").write_bytes(whole)
    os.utime("data/7.png", ns=(when, when))
    assert len(common.load_faces("data")) == 20


@needs_unix
def test_a_folder_that_cannot_be_written_is_read_all_the_same(capsys):
    write_pictures("plain", 3)
    Path("plain").chmod(0o555)
    with ordinary_user():
        assert len(common.load_faces("plain")) == 3
    assert "faces64.pt is not kept (Permission denied)" in (line := capsys.readouterr().out) and line.count("\n") == 2
    Path("plain").chmod(0o755)
    assert not Path("plain/faces64.pt").exists()


@needs_unix
def test_a_full_disk_costs_the_copy_only(capsys):
    """A limit for the size of a file stops the writing as a full disk does."""
    import resource

    write_pictures("data", 3)
    common.load_faces("data")
    kept = Path("data/faces64.pt").read_bytes()
    write_pictures("data", 4)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        images = common.load_faces("data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(images) == 4 and "faces64.pt is not kept (" in capsys.readouterr().out
    assert Path("data/faces64.pt").read_bytes() == kept
    assert not list(Path("data").glob("unfinished*")), "half of a copy would fill the disk for good"


def test_what_a_killed_run_left_beside_the_pictures_is_removed():
    write_pictures("data", 2)
    common.load_faces("data")
    old, young, other = Path("data/unfinished-a.tmp"), Path("data/unfinished-b.tmp"), Path("data/mine.tmp")
    for path, age in [(old, 2 * 3600), (young, 60), (other, 2 * 3600)]:
        path.write_bytes(b"half of a copy")
        os.utime(path, (time.time() - age,) * 2)
    common.load_faces("data")  # even where the whole copy is there
    assert not old.exists() and young.exists() and other.exists(), "another run may be saving now"
    common.load_faces("data", limit=1)


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
           "    common.load_faces(folder); print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    small, large = [int(line.split()[1]) for line in said.splitlines() if line.startswith("peak ")]
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
    assert "plain/000007.jpg (OSError: " in said and "runcated" in said, "the first one's cause"
    again = common.load_faces("plain")
    assert torch.equal(images, again)
    with Image.open("plain/000008.jpg") as picture:  # the first behind a gap
        assert torch.equal(images[6], torch.from_numpy(numpy.array(picture)).permute(2, 0, 1))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("offset", [0, 60])  # in the member's header, in its data
def test_a_damaged_zip_loses_the_damaged_picture_only(capsys, method, offset):
    save_into("plain", *scattered(20), suffix=".bmp")
    with zipfile.ZipFile("all.zip", "w", method) as archive:
        for path in sorted(Path("plain").iterdir()):
            archive.write(path, path.name)
    with zipfile.ZipFile("all.zip") as archive:
        start = archive.getinfo("13.bmp").header_offset
    content = bytearray(Path("all.zip").read_bytes())
    content[start + offset:start + offset + 4] = b"oops"
    Path("all.zip").write_bytes(content)
    assert len(common.load_faces("all.zip")) == 19
    assert "1 of 20 pictures" in (said := capsys.readouterr().out) and "13.bmp" in said


def test_a_link_to_nowhere_is_a_broken_picture(capsys, refuses):
    """As in a folder of links whose disk has moved."""
    write_pictures("plain", 100, size=(64, 64))
    Path("plain/000001.jpg").unlink()
    Path("plain/000001.jpg").symlink_to("nowhere.jpg")
    assert len(common.load_faces("plain")) == len(common.load_faces("plain")) == 99
    line = "1 of 100 pictures in plain are broken (one in ten may be): plain/000001.jpg (FileNotFoundError: "
    assert capsys.readouterr().out.count(line) == 2, "at each start: nothing is kept"
    Path("links").mkdir()
    Path("links/a.jpg").symlink_to("nowhere.jpg")
    assert "1 of 1 pictures in links are broken" in refuses("links")


def test_many_broken_pictures_are_an_error(refuses):
    write_pictures("plain", 20, size=(64, 64))
    broken = [f"{i:06d}.jpg" for i in range(3, 10)]
    for name in broken:
        Path("plain", name).write_bytes(b"")
    assert "7 of 20 pictures in plain are broken" in (line := refuses("plain")) and all(name in line for name in broken)
    assert "plain/000003.jpg (UnidentifiedImageError: cannot identify image file), " in line, "and no address in memory"
    assert not Path("plain/faces64.pt").exists()


def test_one_in_ten_may_be_some_bytes_short(refuses):
    write_pictures("plain", 100, size=(64, 64))
    for i in range(1, 11):
        path = Path(f"plain/{i:06d}.jpg")
        path.write_bytes(path.read_bytes()[:-20])
    assert len(common.load_faces("plain")) == 90
    Path("plain/000050.jpg").write_bytes(b"")
    assert "11 of 100 pictures" in refuses("plain")


@needs_unix
def test_no_thread_outlives_its_work():
    """One that is alive when Python ends can crash it: exit status 134, in 3 of 40 tries."""
    write_pictures("data", 600)
    common.load_faces("data", limit=1)  # tqdm starts a thread of its own, once
    before = set(threading.enumerate())
    Path("data/000001.jpg").chmod(0)  # an error, when most pictures are still to be decoded
    with ordinary_user(), pytest.raises(SystemExit):
        try:
            common.load_faces("data")
        finally:
            assert not set(threading.enumerate()) - before


@needs_unix
def test_a_picture_that_may_not_be_read_is_not_broken(refuses):
    save_into("data", *scattered(30))
    Path("data/7.png").chmod(0)
    with ordinary_user():
        line = refuses("data")
    assert "data/7.png cannot be read: Permission denied" in line and "broken" not in line


def marked(source, path, flag=0, method=None):
    """A copy of a zip archive whose members are marked as encrypted (flag 1), or as compressed by another method."""
    content = bytearray(Path(source).read_bytes())
    with zipfile.ZipFile(source) as archive:
        starts = [(member.header_offset, 6) for member in archive.infolist()]  # its flags; the method follows
    start = content.find(b"PK\1\2")
    while start >= 0:
        starts.append((start, 8))
        start = content.find(b"PK\1\2", start + 4)
    for start, offset in starts:
        content[start + offset] |= flag
        if method is not None:
            content[start + offset + 2:start + offset + 4] = struct.pack("<H", method)
    Path(path).write_bytes(content)


@pytest.mark.parametrize("flag, method, words", [(1, None, "encrypted"), (1, 99, "encrypted"), (0, 9, "compression"), (0, 98, "compression")])
def test_a_password_and_an_unknown_compression_are_not_broken_pictures(refuses, flag, method, words):
    save_into("pictures", *scattered(20))
    save_into("data", *scattered(2))
    zip_folder("pictures", "plain.zip")
    marked("plain.zip", "data/x.zip", flag, method)
    line = refuses("data")
    assert words in line and "data/x.zip/0.png" in line and "Unpack" in line and "broken" not in line and "object" not in line


def test_nothing_found_names_kinds_sources_and_the_place(refuses):
    Path("data/celeba").mkdir(parents=True)
    words = ("img_align_celeba.zip", "mmlab", "kaggle", "1.4 GB", "--dataset toy")
    for root, reason in [("data", "no pictures (jpg, png, ...) in data"), ("nowhere", "no such folder")]:
        line = refuses(root)
        assert all(word in line for word in (*words, reason, f"--data {root}", f"{root}/celeba"))


def test_a_zip_that_is_none_is_named(refuses):
    Path("data/celeba").mkdir(parents=True)
    write_pictures("plain", 2)
    zip_folder("plain", "whole.zip")
    spoiled = Path("whole.zip").read_bytes().replace(b"PK\x01\x02", b"PK\x01\x00")
    for content in (b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>", b"PK\x03\x04 cut short", b"", spoiled):
        Path("data/celeba/img_align_celeba.zip").write_bytes(content)
        assert "img_align_celeba.zip is no complete zip archive" in (line := refuses("data")) and "web page" in line
    assert "000001.jpg is no complete zip archive (a picture or" in refuses("plain/000001.jpg")
    write_pictures("data/celeba/loose", 2)
    assert "img_align_celeba.zip is no complete zip archive" in refuses("data"), "loose pictures do not hide it"
    with zipfile.ZipFile("empty.zip", "w") as archive:
        archive.writestr("readme.txt", "no pictures")
    assert "no pictures (jpg, png, ...) in empty.zip" in (line := refuses("empty.zip")) and ".txt (1)" in line


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
