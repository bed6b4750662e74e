"""MNIST in: whole files, and what is said about files that are not."""
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from conftest import write_mnist
from test_faces import needs_unix, ordinary_user

import common


@pytest.fixture
def refuses(stops, monkeypatch):
    """What load_mnist says when it ends the program; there is no network."""
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    return lambda root, dataset="mnist": stops(lambda argv: common.load_mnist(argv[0], dataset, test=True), [root])


def test_train_and_test_images_are_joined_in_order():
    raw = write_mnist("data", count=60)
    images, labels = common.load_mnist("data", "mnist", test=True)
    pixels = b"".join((raw / f"{part}-images-idx3-ubyte").read_bytes()[16:] for part in ("train", "t10k"))
    assert images.shape == (90, 1, 28, 28) and images.dtype == torch.uint8 and bytes(images.numpy()) == pixels
    assert labels.dtype == torch.int64 and labels.tolist() == [i % 10 for i in range(60)] + [i % 10 for i in range(30)]
    assert len(common.load_mnist("data", "mnist")[0]) == 60
    write_mnist("data", count=20, kind="FashionMNIST", seed=1)
    assert len(common.load_mnist("data", "fashion")[0]) == 20


def cut(raw):
    for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes((raw / name).read_bytes()[:-1])


def header_only(raw):
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-images-idx3-ubyte").read_bytes()[:16])


def empty(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(b"")


def web_page(raw):
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"<!DOCTYPE html><html>403 Forbidden</html>")


def other_labels(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())


def too_long(raw):
    with open(raw / "train-images-idx3-ubyte", "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("spoil", [cut, header_only, empty, web_page, other_labels, too_long])
@pytest.mark.parametrize("dataset, name", [("mnist", "MNIST"), ("fashion", "FashionMNIST")])
def test_a_damaged_file_names_the_folder_to_remove(refuses, spoil, dataset, name):
    """It is complete by name, so that torchvision would never fetch it again."""
    spoil(write_mnist("data", kind=name))
    line = refuses("data", dataset)
    assert f"cannot load data/{name}/raw" in line and f"remove the folder data/{name}," in line
    assert "Is --data right?" not in line


def test_missing_files_without_a_network_are_no_damaged_files(refuses):
    (write_mnist("some") / "train-labels-idx1-ubyte").unlink()
    Path("some/MNIST/raw/train-labels-idx1-ubyte.gz").unlink()
    for root in ("nowhere", "some"):
        line = refuses(root)
        assert f"cannot load {root}/MNIST/raw" in line and "no network" in line and "--dataset toy" in line
        assert "Is --data right?" in line and "remove" not in line


@needs_unix
def test_a_file_that_may_not_be_read_is_not_to_be_removed(refuses):
    path = write_mnist("data") / "train-images-idx3-ubyte"
    path.chmod(0)
    with ordinary_user():
        line = refuses("data")
    assert "Permission denied" in line and "remove" not in line
