"""Helpers of the tests, which run offline, in an empty folder, on the CPU, on images that they draw
themselves.

Plain `pytest` hides the GPUs; `pytest -m cuda` runs the tests that need one. With CI set in the
environment every warning is an error.
"""
import contextlib
import functools
import gzip
import io
import itertools
import os
import shutil
import struct
import subprocess
import sys
import time
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

# script -> flags of a run of a second. After one epoch the zeros have no measurement (at step 50)
# yet, and the WGAN's critic has had 16 of the 20 updates that G's first update waits for
SCRIPTS = {
    gan_mnist_mlp: "--dataset toy --limit 640".split(),
    dcgan_mnist: "--dataset toy --limit 64 --batch-size 16 --ngf 8 --ndf 8".split(),
    dcgan_celeba: "--dataset toy --limit 64 --batch-size 16 --ngf 4 --ndf 8".split(),
    wgan_celeba: "--dataset toy --limit 64 --batch-size 4 --ngf 4 --ndf 4".split(),
}
EPOCH = {gan_mnist_mlp: 40, dcgan_mnist: 4, dcgan_celeba: 4, wgan_celeba: 16}  # steps in one of them


def name_of(value):
    """For pytest's ids: a script's name, a text as it is."""
    return getattr(value, "__name__", str(value))


each_script = pytest.mark.parametrize("script", SCRIPTS, ids=name_of)


def on_gpu(test):
    """A test that runs only with -m cuda, and is skipped where there is no GPU."""
    no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    return pytest.mark.cuda(no_gpu(test))


def pytest_configure(config):
    if os.environ.get("CI"):  # but a new deprecation must not turn a student's tests red
        config.addinivalue_line("filterwarnings", "error")
        # an old driver; torch 2.9.0, of TF32
        for words in ("CUDA initialization", "Please use the new API"):
            config.addinivalue_line("filterwarnings", f"ignore:{words}")
    # the same for the scripts that are started: it is no error of theirs
    os.environ["PYTHONWARNINGS"] = "ignore:CUDA initialization"
    if "cuda" not in config.option.markexpr.replace("not cuda", ""):
        # another device gives other bytes. Early enough: torch looks later
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="session")
def toy_images_are_drawn_once():
    """Drawing all faces takes seconds, in each of a hundred runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("zeros", "faces"):
            patch.setattr(toy_images, name, functools.cache(getattr(toy_images, name)))
        yield


SAVEFIG = Figure.savefig


def do_not_paint(figure, file, **how):
    """In place of Figure.savefig: painting takes half a second, in each of a hundred runs."""
    if hasattr(file, "write"):
        file.write(b"not painted")
    else:
        Path(file).write_bytes(b"not painted")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, and knows of no other test's checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(common, "how_to_go_on", "")
    monkeypatch.setattr(Figure, "savefig", do_not_paint)  # `drawn` wants it painted
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
    """What is plotted from now on: a list of (label, x, y). The figures become pictures, too."""
    monkeypatch.setattr(Figure, "savefig", SAVEFIG)
    lines, plot = [], Axes.plot

    def note(axes, x, y, *style, **how):
        lines.append((how.get("label"), list(x), list(y)))
        return plot(axes, x, y, *style, **how)

    monkeypatch.setattr(Axes, "plot", note)
    return lines


@pytest.fixture
def clock(monkeypatch):
    """The time as common.py reads it. It stands still until a test adds seconds to `now`."""
    clock = SimpleNamespace(now=time.time())
    fake = SimpleNamespace(**vars(time))
    fake.time = fake.perf_counter = fake.monotonic = lambda: clock.now
    monkeypatch.setattr(common, "time", fake)
    return clock


def launched(script):
    """A script's main as the bottom of its file starts it."""
    return lambda argv: common.launch(lambda: script.main(argv))


def python(*words, check=True, **environment):
    """Run Python, with this project's files to import, and one thread: other sums, other bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run([sys.executable, *map(str, words)], env=environment, text=True,
                            capture_output=True, encoding="utf-8", timeout=300)
    if check:
        assert result.returncode == 0, result.stdout + result.stderr
    return result


SMALL_DISK = """
import ctypes, os, sys
from pathlib import Path

def mount(flags, size):
    return libc.mount(b"tmpfs", b"disk", b"tmpfs", flags, b"size=%d,mode=755" % size)

def set_size(size):  # bytes
    assert mount(32, size) == 0  # 32: MS_REMOUNT

def free():
    disk = os.statvfs("disk")
    return disk.f_bavail * disk.f_bsize

def fill(leave=0):  # put a file on the disk that leaves so many bytes
    Path("disk/filler").write_bytes(bytes(free() - leave))

libc = ctypes.CDLL(None)
user, group = os.getuid(), os.getgid()
try:
    if libc.unshare(0x10000000 | 0x20000) != 0:  # CLONE_NEWUSER, CLONE_NEWNS
        sys.exit("no namespaces here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    Path("disk").mkdir()
    if mount(0, 64 << 20) != 0:
        sys.exit("no tmpfs here")
except (AttributeError, OSError) as error:
    sys.exit(f"no small disk here: {error}")
"""


def on_a_small_disk(code):
    """Run code in a Python of its own where disk/ is a file system of 64 MB that nobody else sees.

    The code has set_size, free and fill. Skips the test where the system allows no such thing.
    """
    skip = "needs Linux, and user namespaces"
    if sys.platform != "linux" or python("-c", SMALL_DISK, check=False).returncode != 0:
        pytest.skip(skip)
    Path("disk").rmdir()
    return python("-c", SMALL_DISK + code)


@pytest.fixture(scope="session")
def straight(tmp_path_factory):
    """script -> (folder, what it printed) of its run of three epochs, never stopped. Made once; not
    to be changed."""
    @functools.cache
    def run(script):
        out = tmp_path_factory.mktemp("straight") / script.__name__
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", do_not_paint)
            script.main([*SCRIPTS[script], "--epochs", "3", "--out", str(out)])
        return out, said.getvalue()
    return run


@pytest.fixture
def built(monkeypatch):
    """What main has built when the first epoch begins: nets, optimizers, images, generator,
    fixed_z, args."""
    class Built(Exception):
        pass

    numbers = itertools.count()

    def run(script, *flags):
        seen = SimpleNamespace(out=Path(f"built-{next(numbers)}"))

        def note(out, args, parts, **others):
            vars(seen).update(parts, args=args, **others)

        def stop(images, *rest):
            seen.images = images
            raise Built

        with monkeypatch.context() as patch:
            patch.setattr(common, "save_checkpoint", note)
            patch.setattr(common, "shuffled_batches", stop)
            patch.setattr(common, "save_samples", lambda *args: None)  # wide nets draw slowly
            with pytest.raises(Built):
                script.main([*map(str, flags), "--out", str(seen.out)])
        return seen
    return run


def write_mnist(folder, count=200, kind="MNIST", seed=0):
    """Write the four IDX files of a small MNIST into folder/MNIST/raw: random images, labels 0 to 9
    in turn."""
    raw = Path(folder) / kind / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    for name, n in [("train", count), ("t10k", count // 2)]:
        images = torch.randint(256, (n, 28, 28), generator=generator, dtype=torch.uint8)
        labels = torch.arange(n).remainder(10).to(torch.uint8)
        for suffix, magic, data in [("images-idx3-ubyte", 2051, images),
                                    ("labels-idx1-ubyte", 2049, labels)]:
            header = struct.pack(f">{1 + data.dim()}i", magic, *data.shape)
            content = header + data.numpy().tobytes()
            (raw / f"{name}-{suffix}").write_bytes(content)
            (raw / f"{name}-{suffix}.gz").write_bytes(gzip.compress(content))
    return raw


def same_weights(a, b):
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def csv_rows(path):
    """A CSV file's header, a list of names, and its rows, lists of numbers."""
    header, *lines = Path(path).read_text().splitlines()
    return header.split(","), [[float(value) for value in line.split(",")] for line in lines]


def checkpoint(out):
    return torch.load(Path(out, "checkpoint.pt"), weights_only=True)


def samples_of(out):
    """The steps whose pictures are in a run's samples/, in order. It holds nothing else."""
    names = [path.name for path in Path(out, "samples").iterdir()]
    steps = sorted(int(name.removeprefix("step_").removesuffix(".png")) for name in names)
    assert sorted(names) == sorted(f"step_{step:06d}.png" for step in steps)
    return steps


def assert_same_run(a, b):
    """Two runs have the same tables and pictures, byte for byte, and the same nets, bit for bit."""
    files, others = ({path.relative_to(run) for pattern in ("*.csv", "samples/*", "*.gif")
                      for path in Path(run).glob(pattern)} for run in (a, b))
    assert files == others
    for name in sorted(files):
        assert Path(a, name).read_bytes() == Path(b, name).read_bytes(), f"{name} differs"
    ours, theirs = checkpoint(a), checkpoint(b)
    assert same_weights(ours["G"], theirs["G"]) and same_weights(ours["D"], theirs["D"])


def apply_patch(patch):
    """Copy the scripts into this test's folder, apply a patch to them, and return the name of the
    one script that it changes."""
    scripts = list(ROOT.glob("*.py"))
    for script in scripts:
        shutil.copy(script, ".")
    # not as a part of a repository around it
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": os.path.dirname(os.getcwd())}
    subprocess.run(["git", "apply", str(patch)], check=True, env=environment)
    changed = [script.name for script in scripts
               if script.read_bytes() != Path(script.name).read_bytes()]
    assert len(changed) == 1, changed
    return changed[0]
