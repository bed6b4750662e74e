"""The flags of the training scripts: their ranges, their words, what they bring along."""
import argparse
import re
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, checkpoint, each_script, launched, name_of

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba

NOT_POSITIVE = ["0", "-1", "nan", "inf", "-inf", "1e400", "many", "", "4294967296"]


# ------------------------------------------------------------------------------------------ ranges
@pytest.mark.parametrize("script, flags", [
    (gan_mnist_mlp, ["--lr-g", "--lr-d"]), (dcgan_mnist, ["--lr"]), (dcgan_celeba, ["--lr"]),
    (wgan_celeba, ["--lr"])], ids=name_of)
def test_learning_rates_are_positive_numbers(script, flags, stops):
    for flag in flags:
        for value in NOT_POSITIVE:
            line = stops(script.parse_args, [f"{flag}={value}"])
            assert flag in line and value in line and "--help" in line
        name = flag.strip("-").replace("-", "_")
        assert getattr(script.parse_args([flag, "1e-5"])[0], name) == 1e-5


@each_script
def test_counts_are_whole_numbers_above_0(script, stops):
    flags = ["--epochs", "--batch-size", "--limit"]
    if script is not gan_mnist_mlp:
        flags += ["--ngf", "--ndf"]
    if script is wgan_celeba:
        flags += ["--n-critic"]
    for flag in flags:
        for value in [*NOT_POSITIVE, "1.5", "1e3"]:
            line = stops(script.parse_args, [f"{flag}={value}"])
            assert flag in line and value in line
        assert getattr(script.parse_args([flag, "7"])[0], flag.strip("-").replace("-", "_")) == 7


@each_script
def test_seeds_and_sample_every_may_be_0(script, stops):
    for flag, name in [("--seed", "seed"), ("--sample-every", "sample_every")]:
        for value in ["-1", "nan", "inf", "1.5", "many", "4294967296"]:
            line = stops(script.parse_args, [f"{flag}={value}"])
            assert flag in line and value in line
        for value in (0, 4294967295):
            assert getattr(script.parse_args([flag, str(value)])[0], name) == value


def test_the_clip_may_be_0_and_is_for_the_critic_only(stops):
    for value in ["-0.1", "nan", "inf"]:
        assert "--clip" in stops(wgan_celeba.parse_args, [f"--clip={value}"])
    assert wgan_celeba.parse_args(["--clip", "0"])[0].clip == 0
    assert "--clip 0.05" in stops(wgan_celeba.parse_args, ["--loss", "lsgan", "--clip", "0.05"])


def test_other_bad_flags_get_one_line_and_leave_nothing_behind(stops):
    Path("file").touch()
    for flags, word in [
        (["--batch-size", "6000"], "larger than the data, 5923"),
        (["--limit", "12"], "larger than the data, 12"),
        (["--limit", "10", "--batch-size", "2"], "10 modes"),
        (["--dataset", "cifar"], "--dataset"), (["--precision", "fp8"], "--precision"),
        (["--device", "warp"], "--device warp"), (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "meta"], "--device meta cannot be used here, cpu can"),
        (["--epochz", "3"], "--epochz"), (["file"], "file"), (["--digit", "10"], "--digit"),
        (["--digit", "3"], "only zeros"), (["--g-loss", "hinge"], "--g-loss"),
        (["--out", "file"], "file"), (["--out", "file/below"], "file"),
    ]:
        flags = ["--dataset", "toy", "--epochs", "1", *flags]
        assert word in stops(launched(gan_mnist_mlp), flags), flags
    for script, flags, word in [
        (dcgan_celeba, ["--dataset", "mnist", "--generator", "dcgan"], "only the vanilla"),
        (dcgan_celeba, ["--compare", "nowhere"], "--compare nowhere"),
        (dcgan_celeba, ["--dataset", "fashion"], "--dataset"),
        (wgan_celeba, ["--batch-size", "1"], "--batch-size 1"),
        (wgan_celeba, ["--dataset", "mnist"], "--dataset"), (dcgan_mnist, ["--model", "vae"], "--model"),
    ]:
        assert word in stops(script.main, ["--dataset", "toy", "--epochs", "1", *flags]), flags
    assert [path.name for path in Path().iterdir()] == ["file"], "a refused run left something"


@each_script
@pytest.mark.parametrize("flag", ["--cuda", "--res=x", "--epoch=3", "--batch=3", "--no-cuda"])
def test_half_a_flag_is_refused_and_not_guessed(script, flag, stops):
    """--cuda is the switch of PyTorch's own example, and must not become --cuda-graph."""
    assert flag in stops(script.parse_args, [flag])


def test_the_cuda_graph_can_be_switched_on_and_off():
    for script in SCRIPTS:
        got = [script.parse_args(flags)[0].cuda_graph
               for flags in ([], ["--cuda-graph"], ["--no-cuda-graph"])]
        assert got == [False, True, False]


# --------------------------------------------------------------------------------- devices, folders
def test_a_gpu_that_is_there_and_cannot_compute_is_named(stops, monkeypatch):
    """As with a GPU too old for this torch, which nobody asked for by its name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    line = stops(lambda argv: common.pick_device(None), [])
    assert "--device cuda cannot be used here, cpu can" in line


def test_a_tilde_is_the_home_folder_in_every_shell(monkeypatch, stops):
    """Also in --out=~/run, or on Windows, where the shell leaves it alone."""
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setenv("USERPROFILE", str(Path.cwd()))
    small = SCRIPTS[gan_mnist_mlp]
    gan_mnist_mlp.main([*small, "--epochs", "1", "--out=~/run", "--data=~/data"])
    gan_mnist_mlp.main(["--resume=~/run"])
    assert checkpoint("run")["args"]["data"] == str(Path("data").absolute())
    assert not Path("~").exists()
    assert str(Path("none").absolute()) in stops(dcgan_celeba.main, ["--compare=~/none"])


# -------------------------------------------------------------------------------------------- help
@each_script
def test_help_says_what_the_script_is(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and script.__doc__.splitlines()[0] in text
    assert text.startswith(f"usage: {script.__name__}.py")


@each_script
def test_every_flag_has_a_help_with_its_default(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit):
        script.main(["--help"])
    lines = re.sub(r"\n {5,}", "  ", capsys.readouterr().out).splitlines()  # a flag, a line
    args, _ = script.parse_args([])
    flags = set()
    for line in lines:
        found = re.match(r"  --(\S+).*?  +(\S.*)$", line)
        if found:
            flags.add(found[1].strip(",").replace("-", "_"))
            assert "None" not in line and "%(" not in line and len(found[2].split()) >= 3, line
    assert flags == set(vars(args)) - {"script"}, "a help for every flag"
    for name, value in vars(args).items():
        if isinstance(value, bool) or value is None or name == "script":
            continue
        flag = f"--{name.replace('_', '-')}"
        line = next(line for line in lines if line.startswith(f"  {flag} "))
        line = line.partition("  ")[2].lstrip("-").partition("  ")[2]
        if "default" not in line:  # it depends on another flag
            line = " ".join(line for line in lines if not line.startswith("  "))
            assert flag in line
        if name == "data":  # kept as an absolute path
            value = Path(value).name
        if isinstance(value, str):
            assert re.search(rf"\b{value}\b", line), line
        else:
            numbers = re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", line)
            assert value in [float(number) for number in numbers], line


@pytest.mark.parametrize("script, flags, epochs, batch_size, seed", [
    (gan_mnist_mlp, [], 250, 16, 0), (dcgan_mnist, [], 100, 128, 42), (dcgan_celeba, [], 5, 128, 0),
    (dcgan_celeba, ["--dataset", "mnist"], 5, 64, 0), (wgan_celeba, [], 50, 64, 0)])
def test_epochs_batches_and_seeds_are_those_of_the_documents(script, flags, epochs, batch_size, seed):
    args, _ = script.parse_args(flags)
    assert (args.epochs, args.batch_size, args.seed) == (epochs, batch_size, seed)
    assert (args.precision, args.limit) == ("fp32", None)
    assert Path(args.data).absolute() == Path("data").absolute()


# ----------------------------------------------------------------------------------- a student's own
def test_a_students_own_flags_may_have_any_value():
    parser = common.training_parser("my_gan.py", "A GAN.", ["toy"], epochs=1, batch_size=2, seed=0,
                                    sample_every=0)
    parser.add_argument("--penalty", action="store_true")
    parser.add_argument("--weight", type=float, default=0.0)
    parser.add_argument("--shift", type=int, default=-1)
    args, _ = common.parse(parser, [])
    assert (args.penalty, args.weight, args.shift) == (False, 0.0, -1)


def test_a_script_without_a_docstring_has_flags_too():
    """As under python -OO, or in a student's file."""
    for doc in (None, ""):
        parser = common.new_parser("my_gan.py", doc)
        assert isinstance(parser, argparse.ArgumentParser) and "my_gan.py" in parser.format_help()
