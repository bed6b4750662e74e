"""Helpers of the tests, which run offline, in an empty folder, on images that they draw themselves, and on the CPU.

Plain `pytest` hides the GPUs and leaves out what is marked `slow` or `cuda`. `pytest -m cuda` runs those on a GPU.
"""
import contextlib
import functools
import gzip
import io
import itertools
import os
import struct
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import toy_images
import wgan_celeba

# script -> flags of a run of a second. After one epoch the zeros have had no look (at step 50) yet, and the WGAN's
# critic 16 of the 20 updates of its first round
SCRIPTS = {
    gan_mnist_mlp: ["--dataset", "toy", "--limit", "640"],
    dcgan_mnist: ["--dataset", "toy", "--limit", "64", "--batch-size", "16", "--ngf", "8", "--ndf", "8"],
    dcgan_celeba: ["--dataset", "toy", "--limit", "64", "--batch-size", "16", "--ngf", "4", "--ndf", "8"],
    wgan_celeba: ["--dataset", "toy", "--limit", "64", "--batch-size", "4", "--ngf", "4", "--ndf", "4"],
}
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)


def on_gpu(test):
    """A test that runs only with -m cuda, and is skipped where there is no GPU."""
    return pytest.mark.cuda(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")(test))


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")  # a broadcast of (B, 1) against (B,) in a loss only warns
    for words in ("CUDA initialization", "Please use the new API"):  # an old driver; torch 2.9.0, of TF32
        config.addinivalue_line("filterwarnings", f"ignore:{words}")
    os.environ["PYTHONWARNINGS"] = "ignore:CUDA initialization"  # and the scripts that are started: it is no error of theirs
    config.addinivalue_line("markers", "slow: takes minutes; runs only when asked for with -m slow")
    config.addinivalue_line("markers", "cuda: needs a GPU; runs only when asked for with -m cuda")
    chosen = config.option.markexpr = config.option.markexpr or "not slow and not cuda"
    if "cuda" not in chosen.replace("not cuda", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # another device has other bytes. Early enough: torch looks later


@pytest.fixture(autouse=True, scope="session")
def toy_images_are_drawn_once():
    """Drawing all faces takes seconds, in each of a hundred runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("zeros", "faces"):
            patch.setattr(toy_images, name, functools.cache(getattr(toy_images, name)))
        yield


SAVEFIG = Figure.savefig


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, and knows of no other test's checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common.launch, "hint", "")
    # to paint a figure takes half a second, in each of seventy runs: `drawn` and `straight` want it
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **how: Path(path).write_bytes(b"not painted"))
    torch.set_num_threads(1)  # small nets: a second thread costs more than it brings


@pytest.fixture
def stops(capsys):
    """Run a main that must end by itself; return its one line on stderr."""
    def run(main, argv, status=2):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in argv])
        line = capsys.readouterr().err
        assert stop.value.code == status
        assert line.count("\n") == 1 and line.endswith("\n"), line
        return line
    return run


@pytest.fixture
def drawn(monkeypatch):
    """What is plotted from now on: a list of (label, x, y). Without this fixture no figure becomes a picture."""
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)
    lines, plot = [], Axes.plot

    def note(axes, x, y, *style, **how):
        lines.append((how.get("label"), list(x), list(y)))
        return plot(axes, x, y, *style, **how)

    monkeypatch.setattr(Axes, "plot", note)
    return lines


@pytest.fixture
def full_disk(monkeypatch):
    """While its `full` is true, what is saved whole meets a device that is full. `parents`: where that was tried."""
    disk, make = SimpleNamespace(full=False, parents=set()), tempfile.mkdtemp

    def mkdtemp(*inputs):
        disk.parents.add(Path(folder := make(*inputs)).parent.resolve())
        if disk.full:
            Path(folder, "whole.pt").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    return disk


def launched(script):
    """A script's main as the bottom of its file starts it."""
    return lambda argv: common.launch(lambda: script.main(argv))


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """script -> (folder, what it printed) of its run of three epochs, never stopped. Made once; not to be changed."""
    @functools.cache
    def run(script):
        out = tmp_path_factory.mktemp("straight") / script.__name__
        with contextlib.redirect_stdout(io.StringIO()) as said, pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", SAVEFIG)
            script.main([*SCRIPTS[script], "--epochs", "3", "--out", str(out)])
        return out, said.getvalue()
    return run


@pytest.fixture
def built(monkeypatch):
    """What main has built when the first epoch begins: nets, optimizers, images, generator, fixed_z, args."""
    class Built(Exception):
        pass

    numbers = itertools.count()

    def run(script, *flags):
        seen = SimpleNamespace(out=Path(f"built-{next(numbers)}"))

        def stop(images, *rest):
            seen.images = images
            raise Built

        with monkeypatch.context() as patch:
            patch.setattr(common, "save_checkpoint", lambda out, args, parts, **others:
                          vars(seen).update(parts, args=args, **others))
            patch.setattr(common, "shuffled_batches", stop)
            patch.setattr(script, "save_samples", lambda *args: None)  # wide nets draw slowly
            with pytest.raises(Built):
                script.main([*map(str, flags), "--out", str(seen.out)])
        return seen
    return run


def write_mnist(folder, count=200, kind="MNIST", seed=0):
    """Write the four IDX files of a small MNIST into folder/MNIST/raw: random images, labels 0 to 9 in turn."""
    raw = Path(folder) / kind / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for name, n in [("train", count), ("t10k", count // 2)]:
        images = torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.arange(n).remainder(10).to(torch.uint8)
        for suffix, magic, data in [("images-idx3-ubyte", 2051, images), ("labels-idx1-ubyte", 2049, labels)]:
            content = struct.pack(f">{1 + data.dim()}i", magic, *data.shape) + data.numpy().tobytes()
            (raw / f"{name}-{suffix}").write_bytes(content)
            (raw / f"{name}-{suffix}.gz").write_bytes(gzip.compress(content))
    return raw


def same_weights(a, b):
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def csv_rows(path):
    """A CSV file as a list of rows of numbers, and its header as a list of names."""
    header, *lines = Path(path).read_text().splitlines()
    return header.split(","), [[float(value) for value in line.split(",")] for line in lines]


def checkpoint(out):
    return torch.load(Path(out, "checkpoint.pt"), weights_only=True)


def assert_same_run(a, b):
    """Two runs have the same tables and pictures, byte for byte, and the same nets, bit for bit."""
    files, others = ({path.relative_to(run) for pattern in ("*.csv", "samples/*", "*.gif")
                      for path in Path(run).glob(pattern)} for run in (a, b))
    assert files == others
    for name in sorted(files):
        assert Path(a, name).read_bytes() == Path(b, name).read_bytes(), f"{name} differs"
    ours, theirs = checkpoint(a), checkpoint(b)
    assert same_weights(ours["G"], theirs["G"]) and same_weights(ours["D"], theirs["D"])
