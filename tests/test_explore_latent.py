"""The latent explorer, on checkpoints of every training script with narrow nets."""
import csv
import math
import sys
from pathlib import Path

import numpy
import pytest
import torch
from conftest import ROOT, launched
from PIL import Image, ImageDraw

import common
import dcgan_celeba
import dcgan_mnist
import explore_latent as script
import gan_mnist_mlp
import wgan_celeba

# name -> (script, class, its keywords, other flags of the run)
KINDS = {
    "zeros": (gan_mnist_mlp, "Generator", {"latent_dim": 64}),
    "blog mlp": (dcgan_mnist, "MLPGenerator", {"latent_dim": 100, "ngf": 16}),
    "blog dcgan": (dcgan_mnist, "DCGANGenerator", {"latent_dim": 128, "ngf": 8}),
    "lab vanilla": (dcgan_celeba, "VanillaGenerator", {"latent_dim": 100, "ngf": 8, "size": 64}),
    "lab mnist": (dcgan_celeba, "VanillaGenerator", {"latent_dim": 100, "ngf": 8, "size": 28}),
    "lab dcgan": (dcgan_celeba, "DCGANGenerator", {"latent_dim": 100, "ngf": 4}),
    "wgan": (wgan_celeba, "Generator", {"latent_dim": 100, "ngf": 8, "upsample": "bilinear"}),
}


def write_checkpoint(kind="zeros", **changes):
    """An untrained generator with lively weights, as its script would save it."""
    module, name, keywords = KINDS[kind]
    torch.manual_seed(0)
    G = getattr(module, name)(**keywords)
    for weight in G.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=2 / weight[0].numel() ** 0.5)
    saved = {"script": module.__name__, "args": {}, "generator": {"class": name, **keywords}, "G": G.state_dict(), "step": 1, "epoch": 1, **changes}
    torch.save(saved, "checkpoint.pt")
    return G.eval(), keywords["latent_dim"]


def pixels(path):
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB")).astype(int)


def cells(path, size, columns):
    """The pictures of a grid with labels, in order: a list of arrays (size, size, 3).

    Each of their pixels is a square, between them all is white, and above and on the left of them there are labels.
    """
    with Image.open(path) as image:
        page, scale = numpy.asarray(image), 128 // size
    large = size * scale
    step = large + 8  # from one picture to the next
    rows, left = (page.shape[0] - 40) // step, page.shape[1] - columns * step
    assert page.shape[0] == 40 + rows * step and left > 16
    pictures, grid = [], page[40:, left:]
    between = numpy.ones(grid.shape[:2], dtype=bool)
    for y in range(0, rows * step, step):
        assert (page[40 + y:, :left][:large] < 128).any() and (page[40 + y + large:, :left][:8] == 255).all(), "a label of its own"
        for x in range(0, columns * step, step):
            picture = grid[y:, x:][:large, :large]
            between[y:y + large, x:x + large] = False
            small = picture[::scale, ::scale]
            assert (picture == small.repeat(scale, axis=0).repeat(scale, axis=1)).all()
            pictures.append(small.astype(int))
    for x in (left, left + (columns - 1) * step):
        assert (page[:40, x:][:, :large] < 128).any(), "a label above the first and the last column"
    assert (grid[between] == 255).all() and (page[:40, :8] == 255).all()
    return pictures


@pytest.fixture
def labels(monkeypatch):
    """The labels of a picture, by the place where they are really drawn: those of the rows from top to bottom, and those of
    the columns, from left to right. A function of the picture's path and its cells' size and columns."""
    notes, text = [], ImageDraw.ImageDraw.text

    def note(draw, xy, name, *style, **how):
        notes.append((draw.im.size, xy, name))
        return text(draw, xy, name, *style, **how)

    def read(path, size, columns):
        with Image.open(path) as image:
            width, height = image.size
        step = size * (128 // size) + 8
        rows, above = [""] * ((height - 40) // step), [""] * columns
        for shape, (x, y), name in notes:
            if shape == (width, height) and y < 40:
                above[(x - (width - columns * step)) // step] += name
            elif shape == (width, height):
                assert x <= width - columns * step - 8, "not on a picture"
                rows[(y - 40) // step] += name
        notes.clear()
        return rows, above

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return read


def as_pixels(images):
    return ((images + 1) * 127.5).round().clamp(0, 255).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy().astype(int)


# ------------------------------------------------------------------------------------------------------------- every script
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_works_on_every_scripts_checkpoint(kind, capsys):
    _, latent_dim = write_checkpoint(kind)
    script.main(["checkpoint.pt", "sample", "--seeds", "0-8", "--each"])
    saved = torch.load("checkpoint.pt", weights_only=True)
    assert f"checkpoint.pt: {saved['script']}.py after epoch {saved['epoch']}\n" in capsys.readouterr().out
    script.main(["checkpoint.pt", "play", "--seeds", "1"])
    script.main(["checkpoint.pt", "walk", "--seeds", "1,2", "--frames", "4", "--space", "all"])
    size = 64 if kind in ("lab vanilla", "lab dcgan", "wgan") else 28
    assert pixels("explore/sample.png").shape == (3 * (size + 2) + 2, 3 * (size + 2) + 2, 3)
    assert sorted(path.name for path in Path("explore/sample").iterdir()) == [f"{seed:06d}.png" for seed in range(9)]
    assert pixels("explore/sample/000004.png").shape == (size, size, 3)
    assert len(cells("explore/play_1.png", size, 3)) == latent_dim * 3
    assert len(cells("explore/play_1_top.png", size, 11)) == 10 * 11
    assert len(cells("explore/walk_1-2_all.png", size, 4)) == 3 * 4
    assert {"walk_1-2_all.gif", "walk_1-2_all.mp4"} <= {path.name for path in Path("explore").iterdir()}


# ------------------------------------------------------------------------------------------------------------------- seeds
def test_a_seed_is_the_same_picture_in_every_list_and_command():
    G, latent_dim = write_checkpoint("blog dcgan")
    script.main(["checkpoint.pt", "sample", "--seeds", "0-41,42", "--out", "many", "--each"])
    script.main(["checkpoint.pt", "sample", "--seeds", "42", "--out", "one", "--each"])
    with torch.no_grad():
        expected = as_pixels(G(torch.randn(1, latent_dim, generator=torch.Generator().manual_seed(42))))[0]
    for path in ("many/sample/000042.png", "one/sample/000042.png"):
        assert abs(pixels(path) - expected).max() <= 1
    script.main(["checkpoint.pt", "play", "--seeds", "42", "--out", "play"])
    assert abs(cells("play/play_42.png", 28, 3)[0] - expected).max() <= 1
    script.main(["checkpoint.pt", "walk", "--seeds", "7,42", "--out", "walk"])
    assert abs(cells("walk/walk_7-42_latent.png", 28, 11)[-1] - expected).max() <= 1


def test_samples_of_other_seeds_are_not_left_for_a_score_to_read(stops):
    """They may be of older weights, and torch-fidelity reads all that is in the folder."""
    write_checkpoint()
    script.main(["checkpoint.pt", "sample", "--seeds", "0-4", "--each"])
    Path("explore/sample/.DS_Store").touch()  # what a Mac leaves behind is no sample
    before, grid = sorted(Path("explore/sample").iterdir()), Path("explore/sample.png").read_bytes()
    assert "holds 3 files of other seeds" in stops(script.main, ["checkpoint.pt", "sample", "--seeds", "1,2,8", "--each"])
    assert sorted(Path("explore/sample").iterdir()) == before and Path("explore/sample.png").read_bytes() == grid
    script.main(["checkpoint.pt", "sample", "--seeds", "0-6", "--each"])
    assert len(list(Path("explore/sample").glob("*.png"))) == 7


def test_seed_lists():
    assert script.parse_seeds("0-3,8") == [0, 1, 2, 3, 8] and script.parse_seeds("5") == [5] and script.parse_seeds("1, 2") == [1, 2]


# -------------------------------------------------------------------------------------------------------------------- walks
@pytest.mark.parametrize("space", ["latent", "sphere"])
@pytest.mark.parametrize("frames", [2, 7, 50])
def test_a_walk_begins_and_ends_at_exactly_the_two_zs(space, frames):
    seen = []

    class G(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z):
            seen.append(z)
            return z.view(-1, 1, 1, 100)

    a, b = script.z_of(3, 100), script.z_of(9, 100)
    assert len(script.between(G(), space, a, b, frames)) == frames
    z = torch.cat(seen)
    assert torch.equal(z[0], a) and torch.equal(z[-1], b)


def test_the_arc_keeps_the_length_that_the_line_loses():
    a = torch.tensor([2.0, 0.0])
    b = torch.tensor([2 * math.cos(math.pi / 3), 2 * math.sin(math.pi / 3)])  # at 60 degrees, the same length
    for alpha in (0.0, 0.2, 0.5, 0.9, 1.0):
        point = script.slerp(a, b, torch.tensor([[alpha]]))[0]
        angle = math.pi / 3 * alpha
        assert point.tolist() == pytest.approx([2 * math.cos(angle), 2 * math.sin(angle)], abs=1e-6)
    a, b, t = script.z_of(0, 1000), script.z_of(1, 1000), torch.tensor([[0.5]])
    length = a.norm().item()
    assert script.slerp(a, b, t).norm().item() == pytest.approx(length, rel=0.05)
    assert torch.lerp(a, b, t[0]).norm().item() == pytest.approx(length / 2**0.5, rel=0.05)
    for parallel in (a, 2 * a, -a):
        assert script.slerp(a, parallel, t).isfinite().all()


def test_the_screen_walk_is_a_cross_fade_and_the_latent_walk_is_not():
    write_checkpoint("blog dcgan")
    script.main(["checkpoint.pt", "walk", "--seeds", "0,1", "--frames", "11", "--space", "all"])
    pictures = cells("explore/walk_0-1_all.png", 28, 11)
    latent, sphere, screen = pictures[:11], pictures[11:22], pictures[22:]
    ghost = (screen[0] + screen[10]) / 2
    assert abs(screen[5] - ghost).max() <= 1
    assert abs(latent[5] - ghost).mean() > 5 and abs(sphere[5] - ghost).mean() > 5
    for end in (0, 10):
        assert abs(latent[end] - screen[end]).max() <= 1 and abs(sphere[end] - screen[end]).max() <= 1


def test_the_rows_and_the_ends_of_a_walk_are_labelled(labels):
    G, latent_dim = write_checkpoint("lab mnist")
    script.main(["checkpoint.pt", "walk", "--seeds", "5,0", "--frames", "3", "--space", "all"])
    assert labels("explore/walk_5-0_all.png", 28, 3) == (["latent", "sphere", "screen"], ["seed 5", "", "seed 0"])
    script.main(["checkpoint.pt", "walk", "--seeds", "5,0,7", "--frames", "3", "--space", "all"])
    rows, columns = labels("explore/walk_5-0-7_all.png", 28, 3)
    tour = [(5, 0), (0, 7), (7, 5)]
    assert rows == [f"{space} {a} to {b}" for space in ("latent", "sphere", "screen") for a, b in tour]
    assert columns == ["from", "", "to"]
    z = torch.stack([script.z_of(seed, latent_dim) for seed in range(8)])
    images, pictures = as_pixels(script.images_of(G, z)), cells("explore/walk_5-0-7_all.png", 28, 3)
    for row, (a, b) in enumerate(tour * 3):
        assert abs(pictures[3 * row] - images[a]).max() <= 1 and abs(pictures[3 * row + 2] - images[b]).max() <= 1
    script.main(["checkpoint.pt", "walk", "--seeds", "5,0", "--frames", "2", "--space", "sphere"])
    assert labels("explore/walk_5-0_sphere.png", 28, 2) == (["sphere"], ["seed 5", "seed 0"])


def test_labels_wider_than_a_picture_do_not_overlap(monkeypatch):
    boxes, text = [], ImageDraw.ImageDraw.text

    def note(draw, xy, name, fill, font, anchor):
        boxes.append(draw.textbbox(xy, name, font, anchor))
        return text(draw, xy, name, fill, font, anchor=anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    write_checkpoint()
    script.main(["checkpoint.pt", "walk", "--seeds", f"{2**32 - 2},{2**32 - 1}", "--frames", "2"])
    height, width = pixels(f"explore/walk_{2**32 - 2}-{2**32 - 1}_latent.png").shape[:2]
    row, left, right = boxes
    assert left[2] - left[0] > 112 and 0 <= left[0] and left[2] < right[0] and right[2] <= width
    assert 0 <= row[0] and row[3] <= height and left[3] < row[1]


def gif_milliseconds(path):
    with Image.open(path) as gif:
        return sum(gif.seek(i) or gif.info["duration"] for i in range(gif.n_frames))


def mp4_pictures(path):
    import av

    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == 0 and stream.height % 2 == 0
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(stream)]


def test_every_grey_survives_the_way_into_a_frame():
    greys = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    frame = numpy.asarray(script.to_picture(common.to_float(greys)))
    assert frame.shape == (16, 16, 3) and (frame == greys.view(16, 16, 1).numpy()).all()
    assert script.to_picture(torch.tensor([[[-1.5, 1.5]]])).tobytes() == bytes([0, 0, 0, 255, 255, 255])


def test_films_go_there_and_back_and_a_tour_closes():
    G, _ = write_checkpoint("blog dcgan")
    script.main(["checkpoint.pt", "walk", "--seeds", "0,1", "--frames", "10"])
    assert gif_milliseconds("explore/walk_0-1_latent.gif") == 18 * 50  # 10 there, 8 back: the ends are shown once
    film = mp4_pictures("explore/walk_0-1_latent.mp4")
    assert len(film) == 18
    there, back = film[1:9], film[:9:-1]
    assert max(abs(a - b).mean() for a, b in zip(there, back)) < 4
    script.main(["checkpoint.pt", "walk", "--seeds", "0,1,2", "--frames", "10"])
    assert len(mp4_pictures("explore/walk_0-1-2_latent.mp4")) == 27
    assert gif_milliseconds("explore/walk_0-1-2_latent.gif") == 27 * 50
    script.main(["checkpoint.pt", "walk", "--seeds", "0-6", "--frames", "2"])
    assert Path("explore/walk_0-1-2-3-4-5-6_latent.png").exists(), "no other walk has this name"
    first = as_pixels(script.images_of(G, script.z_of(0, 128).unsqueeze(0)))[0]
    scale = film[0].shape[0] // 28
    assert abs(film[0][scale // 2::scale, scale // 2::scale] - first).mean() < 10, "the film begins at the first seed"


def test_the_gif_of_a_generator_that_always_draws_the_same_lasts_as_long():
    G, _ = write_checkpoint()
    torch.nn.init.zeros_(G.layers[0].weight)
    saved = torch.load("checkpoint.pt", weights_only=True)
    torch.save({**saved, "G": G.state_dict()}, "checkpoint.pt")
    script.main(["checkpoint.pt", "walk", "--seeds", "0,1", "--frames", "20"])
    assert gif_milliseconds("explore/walk_0-1_latent.gif") == 38 * 50
    assert len(mp4_pictures("explore/walk_0-1_latent.mp4")) == 38


# --------------------------------------------------------------------------------------------------------------------- play
def test_the_ranking_agrees_with_a_recomputation(labels):
    G, latent_dim = write_checkpoint("blog mlp")
    script.main(["checkpoint.pt", "play", "--seeds", "5", "--value", "2.5"])
    with open("explore/play_5.csv") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["dimension"]) for row in rows) == list(range(latent_dim))
    z = script.z_of(5, latent_dim)
    with torch.no_grad():
        original = G(z.unsqueeze(0))
        for row in rows[:3] + rows[-3:]:
            for sign, name in [(1, "change_plus"), (-1, "change_minus")]:
                changed = z.clone()
                changed[int(row["dimension"])] = sign * 2.5
                assert float(row[name]) == pytest.approx((G(changed.unsqueeze(0)) - original).abs().mean().item(), rel=1e-3)
            assert float(row["change"]) == pytest.approx((float(row["change_plus"]) + float(row["change_minus"])) / 2, rel=1e-4)
    changes = [float(row["change"]) for row in rows]
    assert changes == sorted(changes, reverse=True) and changes[0] > 1.5 * changes[-1]
    pictures = cells("explore/play_5.png", 28, 3)
    assert all((pictures[3 * i] == pictures[0]).all() for i in range(latent_dim)), "the original on the left of every row"
    top = int(rows[0]["dimension"])
    sweep = cells("explore/play_5_top.png", 28, 11)[:11]
    assert abs(sweep[10] - pictures[3 * top + 1]).max() <= 1 and abs(sweep[0] - pictures[3 * top + 2]).max() <= 1
    plus = z.clone()
    plus[top] = 2.5
    expected = as_pixels(script.images_of(G, plus.unsqueeze(0)))[0]
    assert abs(pictures[3 * top + 1] - expected).max() <= 1, "row `top`, column +2.5"
    assert labels("explore/play_5.png", 28, 3) == ([f"z[{i}]" for i in range(latent_dim)], ["original", "+2.5", "-2.5"])


def test_the_first_ten_are_labelled_with_their_numbers_and_values(labels):
    G, latent_dim = write_checkpoint("wgan")
    script.main(["checkpoint.pt", "play", "--seeds", "5"])
    with open("explore/play_5.csv") as file:
        top = [int(row["dimension"]) for row in csv.DictReader(file)][:10]
    rows, columns = labels("explore/play_5_top.png", 64, 11)
    assert rows == [f"z[{i}]" for i in top]
    assert columns == ["-3", "-2.4", "-1.8", "-1.2", "-0.6", "0", "+0.6", "+1.2", "+1.8", "+2.4", "+3"]
    z = script.z_of(5, latent_dim).repeat(10, 11, 1)
    for row, i in enumerate(top):
        z[row, :, i] = torch.tensor([float(name) for name in columns])
    expected = as_pixels(script.images_of(G, z.flatten(0, 1)))
    assert abs(numpy.stack(cells("explore/play_5_top.png", 64, 11)) - expected).max() <= 1


# ---------------------------------------------------------------------------------------------------------------- bad input
def test_bad_input_gets_one_line(stops):
    write_checkpoint()
    for words, part in [
        (["checkpoint.pt"], "command"), (["checkpoint.pt", "fly"], "fly"), (["~/nowhere.pt", "sample"], str(Path.home() / "nowhere.pt")), ([], "checkpoint"),
        (["checkpoint.pt", "sample", "--seeds", "a"], "--seeds"), (["checkpoint.pt", "sample", "--seeds", "5-3"], "--seeds"),
        (["checkpoint.pt", "sample", "--seeds", ""], "--seeds"), (["checkpoint.pt", "sample", "--seeds", "0-"], "--seeds"),
        (["checkpoint.pt", "sample", "--seeds", "0-9999999999"], "--seeds"), (["checkpoint.pt", "sample", "--seeds", "99999999999999999999"], "--seeds"),
        (["checkpoint.pt", "walk", "--seeds", "1"], "two seeds"), (["checkpoint.pt", "walk", "--frames", "1"], "two frames"),
        (["checkpoint.pt", "sample", "--seeds", "0-99999999999999999999"], "--seeds"), (["checkpoint.pt", "sample", "--seeds", "9" * 5000], "--seeds"),
        (["checkpoint.pt", "play", "--value", "0"], "--value"), (["checkpoint.pt", "walk", "--space", "outer"], "--space"),
        (["checkpoint.pt", "play", "--value", "1e39"], "--value"),
        (["checkpoint.pt", "sample", "--out", "checkpoint.pt"], "checkpoint.pt"), (["checkpoint.pt", "sample", "--device", "warp"], "--device warp"),
    ]:
        assert part in stops(launched(script), words), words
    assert sorted(path.name for path in Path().iterdir()) == ["checkpoint.pt"]


def test_checkpoints_of_something_else_get_one_line(stops):
    for changes, part in [
        ({"script": "os"}, "not one of the scripts here"), ({"generator": {"class": "Discriminator", "latent_dim": 64}}, "not one of the scripts here"),
        ({"generator": {"class": "__init__", "latent_dim": 64}}, "not one of the scripts here"), ({"generator": {"latent_dim": 64}}, "does not say which generator"),
        ({"generator": {"class": "Generator", "latent_dim": 32}}, "size mismatch for layers.0.weight"), ({"generator": {"class": "Generator", "depth": 3}}, "does not fit"),
        ({"G": {}}, "does not fit gan_mnist_mlp.py (if it is of your own copy, name that with --script)"),
    ]:
        write_checkpoint(**changes)
        assert part in stops(script.main, ["checkpoint.pt", "sample"]), changes
    Path("evil.py").write_text("raise SystemExit('executed')")
    write_checkpoint(script="evil")
    assert "not one of the scripts here" in stops(script.main, ["checkpoint.pt", "sample"]) and "evil" not in sys.modules


# ----------------------------------------------------------------------------------------------------- a student's own copy
def test_a_renamed_copy_is_explored_when_its_file_is_named(stops):
    write_checkpoint(script="my_gan", generator={"class": "MyGenerator", "latent_dim": 64})
    assert "--script my_gan.py" in stops(script.main, ["checkpoint.pt", "sample"])
    Path("mine").mkdir()
    source = (ROOT / "gan_mnist_mlp.py").read_text()
    Path("mine/my_gan.py").write_text(source.replace("class Generator", "class MyGenerator"))
    script.main(["--script", "mine/my_gan.py", "checkpoint.pt", "sample", "--seeds", "0-3", "--out", "copy"])
    write_checkpoint()
    script.main(["checkpoint.pt", "sample", "--seeds", "0-3", "--out", "original"])
    assert (pixels("copy/sample.png") == pixels("original/sample.png")).all()
    Path("my.gan.py").write_text(source)  # Python cannot import this
    for file in ("none.py", "checkpoint.pt", "my.gan.py"):
        assert "no such Python file" in stops(script.main, ["--script", file, "checkpoint.pt", "sample"])


def test_a_mistake_in_a_students_own_script_keeps_its_traceback():
    write_checkpoint(script="slip")
    source = (ROOT / "gan_mnist_mlp.py").read_text()
    Path("slip.py").write_text(source.replace("class Generator(nn.Module)", "class Generator(nn.Modul)"))
    with pytest.raises(AttributeError, match="Modul"):
        script.main(["--script", "slip.py", "checkpoint.pt", "sample"])


def test_a_generator_that_wants_labels_is_refused_in_one_line(stops):
    write_checkpoint(script="conditional")
    source = (ROOT / "gan_mnist_mlp.py").read_text()
    Path("conditional.py").write_text(source.replace("def forward(self, z):", "def forward(self, z, labels):"))
    line = stops(script.main, ["--script", "conditional.py", "checkpoint.pt", "sample"])
    assert "wants more than z" in line and "labels" in line and "does not fit conditional.py, or" in line and "--script" not in line


def test_a_full_gpu_is_not_a_script_that_does_not_fit(stops, monkeypatch):
    write_checkpoint()

    def prepare(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")

    monkeypatch.setattr(common, "prepare", prepare)
    line = stops(launched(script), ["checkpoint.pt", "sample"], status=1)
    assert "memory" in line and "does not fit" not in line


def test_a_sample_does_not_depend_on_its_batch_mates():
    """The tools judge G in eval mode: with BatchNorm's running statistics."""
    write_checkpoint("blog dcgan")
    G, latent_dim = script.load_generator("checkpoint.pt", torch.device("cpu"))
    z = torch.stack([script.z_of(seed, latent_dim) for seed in range(4)])
    assert (script.images_of(G, z)[:1] - script.images_of(G, z[:1])).abs().max() < 1e-5


# ------------------------------------------------------------------------------------------------------------------ exports
@pytest.mark.parametrize("kind", KINDS)
def test_an_export_draws_what_its_checkpoint_draws(kind):
    """Half precision: less than one grey level of 255 on average."""
    write_checkpoint(kind, args={"data": "/home/me/data", "device": "cpu", "seed": 3, "dataset": "toy"}, step=9, epoch=2)
    script.main(["checkpoint.pt", "export", "--out", "small.pt"])
    images = {}
    for path in ("checkpoint.pt", "small.pt"):
        G, latent_dim = script.load_generator(path, torch.device("cpu"))
        assert next(G.parameters()).dtype == torch.float32
        images[path] = script.images_of(G, torch.stack([script.z_of(seed, latent_dim) for seed in range(16)]))
    difference = (images["checkpoint.pt"] - images["small.pt"]).abs().mean() * 127.5
    assert 0 < difference < 1
    saved = torch.load("small.pt", weights_only=True)
    assert saved["export"] is True and saved["args"] == {"seed": 3, "dataset": "toy"}, "no path of its owner"
    assert (saved["step"], saved["epoch"]) == (9, 2) and saved["versions"]["torch"] == torch.__version__
    assert Path("small.pt").stat().st_size < 0.6 * Path("checkpoint.pt").stat().st_size + 5000


def test_an_export_keeps_batchnorms_counter():
    """158,250 steps, which float16 would make infinite."""
    write_checkpoint("blog dcgan")
    saved = torch.load("checkpoint.pt", weights_only=True)
    counter = next(name for name in saved["G"] if name.endswith("num_batches_tracked"))
    mean = next(name for name in saved["G"] if name.endswith("running_mean"))
    saved["G"][counter].fill_(158_250)
    saved["G"][mean] += 1 / 3
    torch.save(saved, "checkpoint.pt")
    script.main(["checkpoint.pt", "export", "--out", "small.pt"])
    small = torch.load("small.pt", weights_only=True)["G"]
    assert small[counter].item() == 158_250 and torch.equal(small[mean], saved["G"][mean])


def test_an_export_is_explored_like_a_checkpoint_and_written_nowhere_beside_it():
    write_checkpoint()
    script.main(["checkpoint.pt", "export", "--out", "pretrained/zeros.pt"])
    script.main(["pretrained/zeros.pt", "sample", "--seeds", "0-3"])
    script.main(["pretrained/zeros.pt", "walk", "--seeds", "0,1", "--frames", "2"])
    names = {path.name for path in Path("runs/explore_latent-zeros").iterdir()}
    assert {"sample.png", "walk_0-1_latent.gif", "walk_0-1_latent.mp4"} <= names
    assert [path.name for path in Path("pretrained").iterdir()] == ["zeros.pt"]
    script.main(["pretrained/zeros.pt", "export", "--out", "again.pt"])  # of an export, too
    assert torch.load("again.pt", weights_only=True)["export"] is True


def test_an_export_overwrites_nothing_and_trains_no_further(stops):
    write_checkpoint()
    Path("small.pt").write_text("mine")
    assert "--out small.pt is there already" in stops(script.main, ["checkpoint.pt", "export", "--out", "small.pt"])
    assert Path("small.pt").read_text() == "mine"
    assert "--out" in stops(script.main, ["checkpoint.pt", "export"])
    script.main(["checkpoint.pt", "export", "--out", "run/checkpoint.pt"])
    line = stops(gan_mnist_mlp.main, ["--resume", "run"])
    assert "export" in line and "generator alone" in line


def test_an_export_of_an_edited_script_wants_its_name(stops):
    write_checkpoint(script="my_gan", generator={"class": "MyGenerator", "latent_dim": 64})
    source = (ROOT / "gan_mnist_mlp.py").read_text()
    Path("my_gan.py").write_text(source.replace("class Generator", "class MyGenerator"))
    assert "--script my_gan.py" in stops(script.main, ["checkpoint.pt", "export", "--out", "small.pt"])
    script.main(["--script", "my_gan.py", "checkpoint.pt", "export", "--out", "small.pt"])
    assert "--script my_gan.py" in stops(script.main, ["small.pt", "sample"])
    script.main(["--script", "my_gan.py", "small.pt", "sample", "--seeds", "0"])
    good = Path("small.pt").read_bytes()
    Path("cut.pt").write_bytes(good[:len(good) // 2])
    assert "cut.pt is not a checkpoint" in stops(script.main, ["--script", "my_gan.py", "cut.pt", "sample"])


# -------------------------------------------------------------------------------------------------------------------- names
def test_walks_over_different_seeds_never_share_a_name():
    write_checkpoint()
    for seeds in ("0-60", "0-62", ",".join(map(str, range(10**6, 10**6 + 20)))):
        script.main(["checkpoint.pt", "walk", "--seeds", seeds, "--frames", "2"])
    names = [path.name for path in Path("explore").glob("*.gif")]
    assert len(names) == 3 and all(len(name) < 255 for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="no such names there")
@pytest.mark.parametrize("name", ["a:b", "100%", "%03d", "-x", "file:x", "ä ö"])
def test_a_walk_goes_into_a_folder_of_any_name(name):
    write_checkpoint()
    Path(name).mkdir()
    Path("checkpoint.pt").rename(Path(name, "checkpoint.pt"))
    script.main([f"./{name}/checkpoint.pt", "walk", "--seeds", "0,1", "--frames", "2"])
    assert Path(name, "explore/walk_0-1_latent.mp4").stat().st_size > 500
