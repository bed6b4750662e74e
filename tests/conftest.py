"""Helpers of the tests. They run offline and on the CPU, in an empty folder, on images that they draw themselves."""
import gzip
import signal
import struct
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")  # a broadcast of (B, 1) against (B,) in a loss only warns
    config.addinivalue_line("markers", "slow: takes minutes; runs only when asked for with -m slow")
    if not config.option.markexpr:
        config.option.markexpr = "not slow"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own and gives Ctrl-C back to pytest."""
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)  # small nets: a second thread costs more than it brings
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


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
