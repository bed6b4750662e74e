"""What every training script relies on: exact resume, folders that nothing overwrites, bad input in one line."""
import gzip
import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, csv_rows, same_weights, write_mnist
from PIL import Image

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba

# script -> flags of a run of a few seconds
SCRIPTS = {
    gan_mnist_mlp: ["--dataset", "toy", "--limit", "320"],
    dcgan_mnist: ["--dataset", "toy", "--limit", "64", "--batch-size", "16", "--ngf", "8", "--ndf", "8"],
    dcgan_celeba: ["--dataset", "toy", "--limit", "64", "--batch-size", "16", "--ngf", "4", "--ndf", "8"],
    wgan_celeba: ["--dataset", "toy", "--limit", "64", "--batch-size", "4", "--ngf", "4", "--ndf", "4"],  # 16 steps; a round has 20
}
each_script = pytest.mark.parametrize("script, small", SCRIPTS.items(), ids=[script.__name__ for script in SCRIPTS])
MLP = [*SCRIPTS[gan_mnist_mlp], "--out", "run"]


def generator_of(out):
    return torch.load(Path(out, "checkpoint.pt"), weights_only=True)["G"]


def same_run(a, b):
    """Whether two runs have the same CSV files, byte for byte, and the same generator, bit for bit."""
    names = sorted(path.name for path in Path(a).glob("*.csv"))
    assert names == sorted(path.name for path in Path(b).glob("*.csv"))
    same_tables = all(Path(a, name).read_bytes() == Path(b, name).read_bytes() for name in names)
    return same_tables and same_weights(generator_of(a), generator_of(b))


# ------------------------------------------------------------------------------------------------------- seed and resume
@each_script
def test_same_seed_same_bytes_other_seed_other_bytes(script, small):
    for out, seed in [("a", 3), ("b", 3), ("c", 4)]:
        script.main([*small, "--epochs", "1", "--seed", str(seed), "--out", out])
    assert same_run("a", "b")
    assert not same_run("a", "c")


@each_script
def test_a_resumed_run_equals_one_never_stopped(script, small):
    script.main([*small, "--epochs", "6", "--out", "straight"])
    script.main([*small, "--epochs", "3", "--out", "resumed"])
    script.main(["--resume", "--epochs", "6", "--out", "resumed"])
    assert same_run("straight", "resumed")
    assert Path("straight/training.gif").read_bytes() == Path("resumed/training.gif").read_bytes()
    script.main(["--resume", "--out", "resumed"])  # nothing is left to do: only the drawings are made again
    assert same_run("straight", "resumed")


@each_script
def test_ctrl_c_ends_after_the_step_and_resume_goes_on_in_the_middle_of_the_epoch(script, small, stops, monkeypatch):
    script.main([*small, "--epochs", "2", "--out", "straight"])
    log = common.Run.log

    def log_and_interrupt(run, **losses):
        log(run, **losses)
        if run.step == stop_at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(common.Run, "log", log_and_interrupt)
    per_epoch = csv_rows("straight/losses.csv")[1][-1][0] // 2
    for stop_at in (3, per_epoch):  # in the middle of the first epoch, and with its last step
        flags = ["--resume"] if Path("run").exists() else [*small, "--epochs", "2"]
        line = stops(script.main, [*flags, "--out", "run"], status=130)
        assert f"step {stop_at:.0f}" in line and "--resume" in line
        assert torch.load("run/checkpoint.pt", weights_only=True)["step"] == stop_at
    script.main(["--resume", "--out", "run"])
    assert same_run("straight", "run")


def test_rows_written_after_the_checkpoint_are_not_doubled():
    gan_mnist_mlp.main([*MLP, "--epochs", "3"])
    before = Path("run/losses.csv").read_bytes()
    checkpoint = Path("run/checkpoint.pt").read_bytes()
    gan_mnist_mlp.main(["--resume", "--out", "run", "--epochs", "4"])
    Path("run/checkpoint.pt").write_bytes(checkpoint)  # as if the run had been killed between the CSV files and the checkpoint
    gan_mnist_mlp.main(["--resume", "--out", "run", "--epochs", "3"])
    assert Path("run/losses.csv").read_bytes() == before


def test_resume_takes_flags_from_the_checkpoint_and_refuses_others_by_name(stops):
    gan_mnist_mlp.main([*MLP, "--epochs", "2", "--lr-g", "0.002"])
    gan_mnist_mlp.main(["--resume", "--out", "run", "--epochs", "3", "--lr-g", "0.002", "--device", "cpu"])
    assert json.loads(Path("run/config.json").read_text())["lr_g"] == 0.002
    for flag, value in [("--lr-g", 0.001), ("--seed", 5), ("--dataset", "mnist"), ("--batch-size", 8), ("--limit", 100)]:
        line = stops(gan_mnist_mlp.main, ["--resume", "--out", "run", flag, value])
        assert f"{flag} {value}" in line
    assert "had 3 epochs" in stops(gan_mnist_mlp.main, ["--resume", "--out", "run", "--epochs", "2"])


# --------------------------------------------------------------------------------------------------------------- folders
def test_a_run_never_overwrites_another(stops, capsys):
    small = [*SCRIPTS[gan_mnist_mlp], "--epochs", "1"]
    gan_mnist_mlp.main(small)
    first = Path("runs/gan_mnist_mlp/checkpoint.pt").read_bytes()
    gan_mnist_mlp.main([*small, "--seed", "1"])
    assert "runs/gan_mnist_mlp-2" in capsys.readouterr().out
    assert Path("runs/gan_mnist_mlp/checkpoint.pt").read_bytes() == first
    assert "holds a run already" in stops(gan_mnist_mlp.main, [*small, "--out", "runs/gan_mnist_mlp"])
    Path("runs/gan_mnist_mlp/checkpoint.pt").rename("kept.pt")  # the rest of the run is there still
    assert "holds a run already" in stops(gan_mnist_mlp.main, [*small, "--out", "runs/gan_mnist_mlp"])
    Path("kept.pt").rename("runs/gan_mnist_mlp/checkpoint.pt")
    gan_mnist_mlp.main(["--resume", "--epochs", "2"])  # without --out: the one with the highest number
    assert torch.load("runs/gan_mnist_mlp-2/checkpoint.pt", weights_only=True)["epoch"] == 2
    assert Path("runs/gan_mnist_mlp/checkpoint.pt").read_bytes() == first


def test_default_folders_are_ordered_as_numbers():
    for name in ["x", "x-2", "x-10", "x-lr0.1", "xy", "x-3"]:
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "checkpoint.pt").touch()
    Path("runs/x-11/samples").mkdir(parents=True)  # holds no run yet: somebody may just have started one
    assert sorted(common.default_folders("x")) == [1, 2, 3, 10]
    gan_mnist_mlp.main([*SCRIPTS[gan_mnist_mlp], "--epochs", "1"])
    Path("runs/gan_mnist_mlp-2/samples").mkdir(parents=True)
    gan_mnist_mlp.main([*SCRIPTS[gan_mnist_mlp], "--epochs", "1"])
    assert not Path("runs/gan_mnist_mlp-2/checkpoint.pt").exists() and Path("runs/gan_mnist_mlp-3/checkpoint.pt").exists()


def test_a_full_disk_keeps_the_old_checkpoint_and_says_what_failed(stops, monkeypatch):
    gan_mnist_mlp.main([*MLP, "--epochs", "1"])
    before = Path("run/checkpoint.pt").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert "checkpoint.pt: [Errno 28] No space left" in stops(gan_mnist_mlp.main, ["--resume", "--out", "run", "--epochs", "2"], status=1)
    assert Path("run/checkpoint.pt").read_bytes() == before and not list(Path("run").glob("*.tmp"))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(stops):
    gan_mnist_mlp.main([*MLP, "--epochs", "1"])
    before = Path("run/checkpoint.pt").read_bytes()
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    saved["G"]["layers.0.bias"][0] = float("nan")
    torch.save(saved, "run/checkpoint.pt")
    poisoned = Path("run/checkpoint.pt").read_bytes()
    line = stops(gan_mnist_mlp.main, ["--resume", "--out", "run", "--epochs", "2"], status=1)
    assert "step 21:" in line and "run/checkpoint.pt" in line
    assert Path("run/checkpoint.pt").read_bytes() == poisoned != before


# ------------------------------------------------------------------------------------------------------------- bad input
def test_bad_flags_get_one_line(stops):
    Path("file").touch()
    for flags, word in [
        (["--epochs", "0"], "--epochs 0"), (["--epochs", "many"], "--epochs"), (["--batch-size", "-3"], "--batch-size -3"),
        (["--limit", "0"], "--limit 0"), (["--batch-size", "6000"], "larger than the data, 5923"),
        (["--limit", "10"], "larger than the data, 10"), (["--dataset", "cifar"], "--dataset"), (["--precision", "fp8"], "--precision"),
        (["--device", "warp"], "--device warp"), (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "meta"], "--device meta"), (["--limit", "5", "--batch-size", "2"], "5 images are too few"), (["--epoch", "3"], "--epoch"),
        (["--seed", "-1"], "--seed -1"), (["--seed", "1e3"], "--seed"), (["--lr-g", "nan"], "--lr-g nan"),
        (["--lr-g", "inf"], "--lr-g inf"), (["--out", "file"], "file"), (["--out", "file/below"], "file/below"),
    ]:
        assert word in stops(gan_mnist_mlp.main, ["--dataset", "toy", *flags])
    assert sorted(path.name for path in Path().iterdir()) == ["file"], "a refused run left something behind"


def test_no_mnist_and_no_network(stops, monkeypatch):
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    assert "data/MNIST/raw" in stops(gan_mnist_mlp.main, [])


def cut_short(raw):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:5000])


def wrong_magic(raw):
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes(b"\x00\x00\x77\x03" + path.read_bytes()[4:])


def web_page(raw):
    for path in raw.iterdir():
        path.write_bytes(b"<!DOCTYPE html><html>403 Forbidden</html>")


def fewer_labels(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())


@pytest.mark.parametrize("spoil", [cut_short, wrong_magic, web_page, fewer_labels])
def test_spoiled_mnist_files_get_one_line(stops, spoil):
    spoil(write_mnist("data"))
    assert "cannot load MNIST" in stops(gan_mnist_mlp.main, [])
    assert not Path("runs").exists()


def test_mnist_train_and_test_are_joined_on_demand():
    write_mnist("data", count=60)
    images, labels = common.load_mnist("data", "mnist")
    assert images.shape == (60, 1, 28, 28) and images.dtype == torch.uint8 and labels.tolist() == [i % 10 for i in range(60)]
    assert common.load_mnist("data", "mnist", test=True)[0].shape == (90, 1, 28, 28)
    write_mnist("data", count=40, kind="FashionMNIST", seed=1)
    fashion, _ = common.load_mnist("data", "fashion")
    assert len(fashion) == 40 and not torch.equal(fashion, images[:40])


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_checkpoints_that_are_none_get_one_line_and_run_no_code(stops):
    gan_mnist_mlp.main([*MLP, "--epochs", "1"])
    good = Path("run/checkpoint.pt").read_bytes()
    other = torch.load("run/checkpoint.pt", weights_only=True)
    resume = ["--resume", "--out", "run"]
    for content in [b"", b"PK", good[:1000], good[:-500], b"<html>quota exceeded</html>", gzip.compress(good), pickle.dumps(Evil())]:
        Path("run/checkpoint.pt").write_bytes(content)
        assert "run/checkpoint.pt is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    for content in [torch.zeros(3), {"G": {}}, {"evil": Evil()}]:
        torch.save(content, "run/checkpoint.pt")
        assert "run/checkpoint.pt is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    torch.save({**other, "script": "dcgan_mnist"}, "run/checkpoint.pt")
    assert "dcgan_mnist" in stops(gan_mnist_mlp.main, resume)
    torch.save({**other, "G": {}}, "run/checkpoint.pt")
    assert "does not fit" in stops(gan_mnist_mlp.main, resume)
    torch.save({**other, "images": 7}, "run/checkpoint.pt")
    assert "7 images" in stops(gan_mnist_mlp.main, resume)
    Path("run/checkpoint.pt").unlink()
    assert "run/checkpoint.pt" in stops(gan_mnist_mlp.main, resume)
    assert "runs/gan_mnist_mlp/checkpoint.pt" in stops(gan_mnist_mlp.main, ["--resume"])
    assert not Path("executed").exists()


# ------------------------------------------------------------------------------------------------- images, pictures, CSV
def test_minibatches_visit_every_image_once_an_epoch_and_reshuffle():
    images = torch.arange(50, dtype=torch.uint8).view(50, 1, 1, 1).expand(50, 1, 28, 28).contiguous()
    G, D = gan_mnist_mlp.Generator(), gan_mnist_mlp.Discriminator()
    args, saved = gan_mnist_mlp.parse_args(["--dataset", "toy", "--batch-size", "8", "--epochs", "2"])
    args.device = "cpu"
    run = common.Run(args, saved, images, G, D, torch.optim.SGD(G.parameters()), torch.optim.SGD(D.parameters()), {"latent_dim": 64})
    seen = []
    for real in run.minibatches():
        assert real.shape == (8, 1, 28, 28) and real.dtype == torch.float32 and real.min() >= -1
        seen.append(((real[:, 0, 0, 0] + 1) * 127.5).round().int().tolist())
        run.log(loss_d=real.mean(), loss_g=real.mean())
    epochs = [sum(seen[:6], []), sum(seen[6:], [])]
    assert len(seen) == 12, "50 images are six batches of 8; the incomplete one is dropped"
    assert all(len(set(epoch)) == 48 and max(epoch) < 50 for epoch in epochs)
    assert epochs[0] != epochs[1] and epochs[0] != sorted(epochs[0])


def test_grid_maps_minus_one_to_black_and_one_to_white():
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 0.0, 1.0, 5.0)])
    common.save_grid("grid.png", images, columns=2)
    grid = Image.open("grid.png")
    assert grid.size == (14, 14)
    assert [grid.getpixel(at) for at in [(3, 3), (9, 3), (3, 9), (9, 9)]] == [(0,) * 3, (128,) * 3, (255,) * 3, (255,) * 3]


def test_gif_lasts_as_long_as_said_even_when_frames_repeat():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "red", "blue", "red")]
    common.save_gif("x.gif", frames, seconds=2)
    with Image.open("x.gif") as gif:
        durations = [gif.seek(i) or gif.info["duration"] for i in range(gif.n_frames)]
    assert sum(durations) == 2000


def test_toy_zeros_are_zeros_and_always_the_same():
    images = common.toy_zeros()
    assert images.shape == (5923, 1, 28, 28) and images.dtype == torch.uint8
    assert torch.equal(images, common.toy_zeros())
    ink = images.float() / 255
    assert ink[:, :, 13:15, 13:15].mean() < 0.1 < 0.15 < ink.mean() < 0.25, "a dark hole in a ring about as heavy as MNIST's (0.17)"
    border = torch.cat([ink[..., 0, :], ink[..., -1, :], ink[..., :, 0], ink[..., :, -1]], dim=-1)
    assert border.mean() < 0.02


# ----------------------------------------------------------------------------------------------------------- the copy rule
@each_script
def test_one_script_and_common_run_alone(script, small, tmp_path):
    for name in (f"{script.__name__}.py", "common.py"):
        Path(name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, f"{script.__name__}.py", *small, "--epochs", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    files = {path.name for path in Path("runs", script.__name__).iterdir()}
    assert {"real.png", "losses.csv", "losses.png", "checkpoint.pt", "training.gif", "config.json"} <= files


@pytest.mark.parametrize("script", [dcgan_mnist, dcgan_celeba, wgan_celeba], ids=lambda script: script.__name__)
def test_a_sample_does_not_depend_on_its_batch_mates(script, monkeypatch):
    """Pictures are made in eval mode, and G goes on in train mode."""
    pictures, save_samples = [], common.Run._save_samples

    def check(run):
        save_samples(run)
        G = run.parts["G"]
        assert G.training
        with torch.no_grad():
            alone = torch.cat([G.eval()(z) for z in run.fixed_z[:4].split(1)])
            crowd = G.train()(run.fixed_z[:4])  # train mode: what must not be in the pictures; its moving averages follow
        assert (pictures[-1][:4] - alone).abs().max() < 1e-5 < (crowd - alone).abs().max()

    monkeypatch.setattr(common.Run, "_save_samples", check)
    monkeypatch.setattr(common, "save_grid", lambda path, images, columns: pictures.append(images))
    monkeypatch.setattr(common.Run, "finish", lambda run, *panels: None)
    script.main([*SCRIPTS[script], "--epochs", "1"])
    assert len(pictures) == 3  # the reals, and the samples before and after
