"""--resume: a run that goes on is the run that was never stopped, and no other experiment."""
import gzip
import json
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from conftest import (
    EPOCH,
    ROOT,
    SCRIPTS,
    assert_same_run,
    checkpoint,
    csv_rows,
    each_script,
    name_of,
    on_gpu,
    samples_of,
    write_mnist,
)
from PIL import Image

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba

JUNK = b"999,9,0.123,0.4"  # a line that a kill has torn


def stopped(saved, folder="run", **changes):
    """Write a checkpoint into a folder: that of a run, with these changes."""
    Path(folder, "samples").mkdir(parents=True, exist_ok=True)
    torch.save({**saved, **changes}, Path(folder, "checkpoint.pt"))


# ---------------------------------------------------------------------------------- the same run
@each_script
def test_a_stopped_and_resumed_run_equals_one_never_stopped(script, straight):
    epochs = 2 if script is gan_mnist_mlp else 1  # its modes.csv has no row after the first epoch
    script.main([*SCRIPTS[script], "--epochs", str(epochs), "--out", "run"])
    if script is wgan_celeba:
        assert checkpoint("run")["d_steps"] == 16, "in the middle of the critic's 20 updates"
    # what it went on to write before it was killed
    steps = epochs * EPOCH[script]
    for path in Path("run").glob("*.csv"):
        whole_rows = path.read_bytes().splitlines(keepends=True)[1:3]
        path.write_bytes(path.read_bytes() + b"".join(whole_rows) + JUNK)
    for step in (steps + 1, steps + 7, 999_999):
        shutil.copy(f"run/samples/step_{steps:06d}.png", f"run/samples/step_{step:06d}.png")
    script.main(["--resume", "run", "--epochs", "3"])
    assert_same_run(straight(script)[0], "run")
    Path("run/training.gif").unlink()
    script.main(["--resume", "run"])  # nothing is left to do: only the drawings are made again
    assert_same_run(straight(script)[0], "run")


@each_script
def test_a_resume_begins_without_what_is_past_the_checkpoint(script, straight, monkeypatch):
    """So that a run that is stopped once more shows no picture of what never was."""
    class Stop(Exception):
        pass

    def stop(*inputs):
        raise Stop

    shutil.copytree(straight(script)[0], "run")
    steps = EPOCH[script]
    stopped(checkpoint("run"), step=steps, epoch=1)
    monkeypatch.setattr(common, "shuffled_batches", stop)
    with pytest.raises(Stop):
        script.main(["--resume", "run", "--epochs", "3"])
    assert max(samples_of("run")) == steps and 0 in samples_of("run")
    assert len(csv_rows("run/losses.csv")[1]) == steps
    if script is gan_mnist_mlp:
        assert Path("run/modes.csv").read_bytes() == b""


@each_script
def test_a_resume_draws_from_the_runs_own_fixed_noise(script, straight):
    """Also with a torch that draws other numbers from the same seed."""
    saved = checkpoint(straight(script)[0])
    stopped(saved, fixed_z=saved["fixed_z"] + 1, step=0, epoch=0)
    script.main(["--resume", "run", "--epochs", "1"])
    assert torch.equal(checkpoint("run")["fixed_z"], saved["fixed_z"] + 1)


# -------------------------------------------------------------------------------------------- flags
def test_resume_takes_the_runs_flags_and_refuses_others_by_name(stops, straight):
    saved = checkpoint(straight(gan_mnist_mlp)[0])
    args = {**saved["args"], "limit": 32, "images": 32, "lr_g": 0.002}
    args.pop("checksum")  # of the 640
    stopped(saved, step=0, epoch=0, args=args)
    before = Path("run/checkpoint.pt").read_bytes()
    for flag, value in [
        ("--lr-g", 0.001), ("--seed", 5), ("--dataset", "mnist"), ("--batch-size", 8),
        ("--limit", 100), ("--digit", "all"), ("--g-loss", "saturating"), ("--precision", "bf16"),
        ("--lr-d", 1),
    ]:
        assert f"{flag} {value}" in stops(gan_mnist_mlp.main, ["--resume", "run", flag, value])
    assert "--out" in stops(gan_mnist_mlp.main, ["--resume", "run", "--out", "other"])
    assert "--resume" in stops(gan_mnist_mlp.main, ["--resume"])
    stops(gan_mnist_mlp.main, ["--resume", ""])  # a variable of the shell that is not set
    assert Path("run/checkpoint.pt").read_bytes() == before
    assert not Path("run/config.json").exists()
    flags = "--epochs 2 --data elsewhere --device cpu --lr-g 0.002 --sample-every 1 --cuda-graph"
    gan_mnist_mlp.main(["--resume", "run", *flags.split()])
    config = json.loads(Path("run/config.json").read_text())
    wanted = {"lr_g": 0.002, "limit": 32, "epochs": 2, "sample_every": 1, "cuda_graph": True}
    assert {name: config[name] for name in wanted} == wanted
    for kept in (config, checkpoint("run")["args"]):
        assert Path(kept["data"]).absolute() == Path("elsewhere").absolute()
    assert checkpoint("run")["epoch"] == 2
    assert samples_of("run") == [1, 2, 3, 4]
    gan_mnist_mlp.main(["--resume", "run", "--no-cuda-graph"])
    assert checkpoint("run")["args"]["cuda_graph"] is False


@pytest.mark.parametrize("script, changes", [
    (dcgan_mnist, {"--model": "mlp", "--ngf": 9, "--ndf": 9, "--lr": 0.1}),
    (dcgan_celeba, {"--generator": "vanilla", "--ngf": 9, "--ndf": 9, "--lr": 0.1,
                    "--dataset": "mnist"}),
    (wgan_celeba, {"--loss": "lsgan", "--upsample": "nearest", "--ngf": 9, "--ndf": 9, "--lr": 0.1,
                   "--n-critic": 9, "--clip": 0.5}),
], ids=name_of)
def test_resume_refuses_to_change_the_experiment(script, changes, straight, stops):
    for flag, value in changes.items():
        line = stops(script.main, ["--resume", straight(script)[0], flag, value])
        assert f"{flag} {value}" in line


def test_fewer_epochs_than_the_run_has_had_are_refused(straight, stops):
    """--epochs is the total: who takes it for "so many more" is told."""
    stopped(checkpoint(straight(gan_mnist_mlp)[0]))
    line = stops(gan_mnist_mlp.main, ["--resume", "run", "--epochs", "2"])
    assert "--epochs 2" in line and "had 3" in line
    assert sorted(os.listdir("run")) == ["checkpoint.pt", "samples"]


def test_no_run_moves_between_mps_and_another_device(stops, straight):
    """Adam's moments lie in memory as the weights do, and on MPS those lie otherwise."""
    out = straight(dcgan_celeba)[0]
    assert "--device mps" in stops(dcgan_celeba.main, ["--resume", out, "--device", "mps"])
    saved = checkpoint(out)
    for device in ("mps", "mps:0"):
        stopped(saved, args={**saved["args"], "device": device})
        line = stops(dcgan_celeba.main, ["--resume", "run", "--device", "cpu"])
        assert f"--device cpu: that run has {device}" in line


# --------------------------------------------------------------------------------------- other data
def test_a_resume_with_more_or_fewer_images_is_refused(straight, stops):
    saved = checkpoint(straight(gan_mnist_mlp)[0])
    stopped(saved, args={**saved["args"], "images": 639})
    line = stops(gan_mnist_mlp.main, ["--resume", "run", "--epochs", "4"])
    assert "639 images" in line and "640" in line
    assert sorted(os.listdir("run")) == ["checkpoint.pt", "samples"]


@pytest.mark.parametrize("changed", [0, 100, 299])
def test_a_resume_with_as_many_other_images_is_refused(changed, stops):
    """Another set of MNIST's format; then one where a single image differs."""
    write_mnist("data", count=200)
    write_mnist("other", count=200, seed=1)
    flags = "--ngf 2 --ndf 2 --batch-size 100 --epochs 1 --out run".split()
    dcgan_mnist.main(flags)
    before = Path("run/checkpoint.pt").read_bytes()
    again = ["--resume", "run", "--epochs", "2"]
    line = stops(dcgan_mnist.main, [*again, "--data", "other"])
    assert "--data" in line and "other images" in line
    name = "train-images-idx3-ubyte" if changed < 200 else "t10k-images-idx3-ubyte"
    path = Path("data/MNIST/raw", name)
    content = bytearray(path.read_bytes())
    content[16 + changed % 200 * 784] ^= 255
    path.write_bytes(content)
    assert "other images" in stops(dcgan_mnist.main, again)
    assert Path("run/checkpoint.pt").read_bytes() == before
    shutil.rmtree("data")
    write_mnist("moved", count=200)
    dcgan_mnist.main([*again, "--data", "moved"])  # the same ones, elsewhere
    assert checkpoint("run")["epoch"] == 2


def test_a_resume_from_another_folder_finds_the_data_or_names_it(stops, monkeypatch):
    random = numpy.random.default_rng(0)
    Path("mine").mkdir()
    for i in range(4):
        picture = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
        picture.save(f"mine/{i}.png")
    flags = "--data mine --ngf 1 --ndf 1 --batch-size 2 --epochs 1 --out run".split()
    dcgan_celeba.main(flags)
    Path("below").mkdir()
    monkeypatch.chdir("below")
    run = os.path.join("..", "run")
    dcgan_celeba.main(["--resume", run, "--epochs", "2"])
    assert checkpoint(run)["epoch"] == 2
    Path("../mine").rename("../moved")
    line = stops(dcgan_celeba.main, ["--resume", run, "--epochs", "3"])
    assert "--data" in line and "mine" in line and run in line
    dcgan_celeba.main(["--resume", run, "--epochs", "3", "--data", os.path.join("..", "moved")])
    assert checkpoint(run)["epoch"] == 3


# --------------------------------------------------------------------------------- no checkpoint
class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_checkpoints_that_are_none_get_one_line_and_run_no_code(stops, straight):
    Path("run").mkdir()
    resume, path = ["--resume", "run"], straight(gan_mnist_mlp)[0] / "checkpoint.pt"
    checkpoint_pt = str(Path("run/checkpoint.pt"))
    assert checkpoint_pt in stops(gan_mnist_mlp.main, resume)
    assert "folder of a run" in stops(gan_mnist_mlp.main, ["--resume", path])
    good, saved = path.read_bytes(), checkpoint(path.parent)
    for content in [b"", b"PK", good[:1000], good[:-500], b"<html>quota exceeded</html>",
                    gzip.compress(good), pickle.dumps(Evil())]:
        Path("run/checkpoint.pt").write_bytes(content)
        assert f"{checkpoint_pt} is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    for content in [torch.zeros(3), {"G": {}}, {"evil": Evil()}]:
        torch.save(content, "run/checkpoint.pt")
        assert f"{checkpoint_pt} is not a checkpoint" in stops(gan_mnist_mlp.main, resume)
    torch.save({**saved, "script": "dcgan_mnist"}, "run/checkpoint.pt")
    assert "a run of dcgan_mnist.py" in stops(gan_mnist_mlp.main, resume)
    del saved["fixed_z"]  # which older versions did not save
    torch.save(saved, "run/checkpoint.pt")
    assert "an older version" in stops(gan_mnist_mlp.main, resume)
    assert not Path("executed").exists() and os.listdir("run") == ["checkpoint.pt"]


def test_an_export_cannot_train_on_and_the_line_says_why(stops, straight):
    saved = checkpoint(straight(gan_mnist_mlp)[0])
    kept = {name: saved[name] for name in ("script", "args", "generator", "G", "step", "epoch")}
    Path("run").mkdir()
    torch.save({**kept, "export": True}, "run/checkpoint.pt")
    line = stops(gan_mnist_mlp.main, ["--resume", "run"])
    assert "--resume run" in line and "export" in line and "optimizers" in line


# --------------------------------------------------------------------------------- a student's copy
def test_one_more_loss_is_saved_printed_and_drawn_and_a_column_may_go(monkeypatch, capsys, drawn):
    """As when a student adds a term to a row of the log, and takes another away."""
    add = common.Log.add

    def other_columns(log, *, d_real, **values):
        add(log, **values, loss_penalty=2 * values["loss_d"], quality=values["loss_g"])

    monkeypatch.setattr(common.Log, "add", other_columns)
    dcgan_mnist.main([*SCRIPTS[dcgan_mnist], "--epochs", "1", "--out", "run"])
    dcgan_mnist.main(["--resume", "run", "--epochs", "2"])
    header, rows = csv_rows("run/losses.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g", "d_fake", "loss_penalty", "quality"]
    assert len(rows) == 8 and all(row[5] == pytest.approx(2 * row[2]) for row in rows)
    assert "loss_penalty" in capsys.readouterr().out
    assert {*header[2:]} <= {label for label, *_ in drawn}


def test_a_log_that_was_changed_before_a_resume_is_refused(monkeypatch, stops):
    dcgan_mnist.main([*SCRIPTS[dcgan_mnist], "--epochs", "1", "--out", "run"])
    add = common.Log.add
    monkeypatch.setattr(common.Log, "add", lambda log, **values: add(log, **values, extra=1.0))
    line = stops(dcgan_mnist.main, ["--resume", "run", "--epochs", "2"])
    assert "extra" in line and "new run" in line and checkpoint("run")["epoch"] == 1


@pytest.mark.parametrize("name", ["Generator", "Discriminator"])
def test_a_changed_net_needs_a_new_run(name, straight, stops, monkeypatch):
    out = straight(gan_mnist_mlp)[0]
    stopped(checkpoint(out))
    before = Path("run/checkpoint.pt").read_bytes()
    other = torch.nn.Linear(64, 784) if name == "Generator" else torch.nn.Linear(784, 1)
    monkeypatch.setattr(gan_mnist_mlp, name, lambda *sizes: other)
    line = stops(gan_mnist_mlp.main, ["--resume", "run", "--epochs", "4"])
    assert "does not fit" in line and "new run" in line
    assert Path("run/checkpoint.pt").read_bytes() == before


def test_a_renamed_copy_runs_alone_with_common_in_any_environment():
    """The copy rule: one script and common.py in an empty folder; only --dataset toy wants
    toy_images.py too. It is started as a notebook would, which names a backend of matplotlib that
    is not installed here, and on a console that has no umlaut."""
    write_mnist("data", count=64)
    for name, copy in [("dcgan_mnist.py", "my_gan.py"), ("common.py", "common.py")]:
        shutil.copy(ROOT / name, copy)
    small = ["--ngf", "4", "--ndf", "4", "--batch-size", "16", "--epochs", "1", "--out", "zwölf ü"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii",
                   "MPLBACKEND": "no_such_backend"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run([sys.executable, "my_gan.py", *small], env=environment, text=True,
                            capture_output=True, timeout=300)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "could not be made" not in result.stdout and "into zw" in result.stdout
    assert {path.name for path in Path("zwölf ü").iterdir()} == {
        "config.json", "losses.csv", "losses.png", "real.png", "samples", "training.gif",
        "checkpoint.pt"}
    with Image.open("zwölf ü/losses.png") as picture:
        assert picture.size == (900, 600)
    assert checkpoint("zwölf ü")["script"] == "my_gan"


@each_script
def test_a_script_that_is_run_hands_its_main_to_launch(script, monkeypatch):
    handed = []
    monkeypatch.setattr(common, "launch", handed.append)
    names = runpy.run_path(script.__file__, run_name="__main__")
    assert handed == [names["main"]]
    handed.clear()
    runpy.run_path(script.__file__, run_name="imported")
    assert not handed


# --------------------------------------------------------------------------------------------- CUDA
@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@each_script
def test_a_run_on_a_GPU_goes_on_on_a_CPU_and_back(script, precision):
    script.main([*SCRIPTS[script], "--precision", precision, "--epochs", "1", "--out", "run"])
    config = json.loads(Path("run/config.json").read_text())
    assert config["device_name"] == torch.cuda.get_device_name(), "though nobody asked for it"
    for epochs, device in [("2", "cpu"), ("3", "cuda")]:
        script.main(["--resume", "run", "--epochs", epochs, "--device", device])
    header, rows = csv_rows("run/losses.csv")
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)) and rows[-1][1] == 3
    saved = common.load_checkpoint("run/checkpoint.pt")
    assert all(value.device.type == "cpu" for value in saved["G"].values())
