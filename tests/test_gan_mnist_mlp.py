"""The zeros script: its observer, and what a run leaves behind. Its two steps are tested in test_steps.py."""
import json
import math

import pytest
import torch
from conftest import csv_rows, write_mnist
from PIL import Image

import common
import gan_mnist_mlp as script

SMALL = ["--dataset", "toy", "--limit", "320"]  # 20 steps an epoch


def test_nets_have_the_reports_sizes_and_ranges():
    G, D = script.Generator(), script.Discriminator()
    shapes = [tuple(weight.shape) for net in (G, D) for weight in net.parameters() if weight.dim() == 2]
    assert shapes == [(128, 64), (512, 128), (784, 512), (256, 784), (1, 256)]
    images = G(100 * torch.randn(5, 64))
    assert images.shape == (5, 1, 28, 28) and images.abs().max() <= 1
    assert D(images).shape == (5,)
    assert [layer.negative_slope for net in (G, D) for layer in net.layers if hasattr(layer, "negative_slope")] == [0.01] * 3


# ------------------------------------------------------------------------------------------------------------ the observer
@pytest.fixture(scope="module")
def observer():
    return script.Observer(common.toy_zeros(), latent_dim=64)


def observe(observer, samples):
    """Rows of modes.csv for a list of sample sets (B, 784), one observation every 50 steps, as columns of numbers."""
    undecided = torch.zeros(1)
    rows = [observer.measure(fake, undecided, undecided) for fake in samples]
    table = {name: [row[name].item() for row in rows] for name in rows[0]}
    return {"step": list(range(50, 50 * len(rows) + 1, 50)), **table}


def phases(table):
    return [(name, modes) for name, _, _, modes in script.find_phases(table["step"], table["spread"], table["dominant_mode"])]


def test_half_of_the_reals_reads_as_healthy(observer):
    x = common.to_float(common.toy_zeros()).flatten(1)
    table = observe(observer, [x[::2][:2000]] * 5)
    assert table["spread"][0] == pytest.approx(1, abs=0.05)
    assert table["modes_covered"][0] == 10 and table["dominant_share"][0] < 0.2
    assert [name for name, _ in phases(table)] == ["spread out"]


def test_one_real_repeated_reads_as_collapsed_on_its_mode(observer):
    x = common.to_float(common.toy_zeros()).flatten(1)
    table = observe(observer, [x[7] + 0.01 * torch.randn(200, 784)] * 50)
    assert table["spread"][0] < 0.1 and table["dominant_share"][0] == 1 and table["modes_covered"][0] == 1
    assert phases(table) == [("collapsed", [observer.shares(x[7:8]).argmax().item()])]


def test_a_walk_over_five_reals_reads_as_exactly_its_hops(observer):
    walk = [3, 0, 4, 1, 5]  # each centre is the middle of its mode, the nearest thing to a typical real
    samples = [observer.centres[mode] + 0.01 * torch.randn(200, 784) for mode in walk for _ in range(10)]
    table = observe(observer, samples)
    assert phases(table) == [("collapsed", [3]), ("cycling", [0, 4, 1, 5])]
    steps = [first for _, first, _, _ in script.find_phases(table["step"], table["spread"], table["dominant_mode"])]
    assert steps == [50, 550]
    stays = observe(observer, samples + samples[-1:] * 20)  # 1,000 steps more in the last mode: it has settled
    assert phases(stays) == [("collapsed", [3]), ("cycling", [0, 4, 1]), ("collapsed", [5])]


def test_a_spread_that_trembles_on_a_threshold_is_one_phase():
    steps = list(range(50, 1050, 50))
    assert len(script.find_phases(steps, [0.24, 0.26] * 10, [0] * 20)) == 1
    assert len(script.find_phases(steps, [0.71, 0.69] * 10, [0] * 20)) == 1
    assert [name for name, *_ in script.find_phases(steps, [0.2] * 10 + [0.5] * 5 + [0.8] * 5, [0] * 20)] == ["collapsed", "spreading", "spread out"]


def test_modes_are_numbered_by_size_and_shares_add_up(observer):
    assert observer.real_shares.sum().item() == pytest.approx(1)
    x = common.to_float(common.toy_zeros()).flatten(1)
    assert (observer.shares(x).diff() <= 0.01).all()


def test_D_accuracy_counts_reals_above_and_fakes_below_zero(observer):
    row = observer.measure(torch.rand(50, 784), torch.tensor([1.0, 2.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0]))
    assert (row["acc_real"].item(), row["acc_fake"].item()) == (0.75, 0.5)


# ------------------------------------------------------------------------------------------------------------------- runs
def test_a_run_leaves_what_the_contract_says(capsys):
    script.main([*SMALL, "--epochs", "6"])
    out = common.Path("runs/gan_mnist_mlp")
    header, rows = csv_rows(out / "losses.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake"]
    assert [row[0] for row in rows] == list(range(1, 121)) and [row[1] for row in rows] == [1 + i // 20 for i in range(120)]
    assert rows[0][2] == pytest.approx(math.log(2), abs=0.1)
    assert all(0 <= p <= 1 for row in rows for p in row[4:])
    header, rows = csv_rows(out / "modes.csv")
    assert header == "step,spread,std,dominant_mode,dominant_share,modes_covered,acc_real,acc_fake".split(",") + [f"share_{i}" for i in range(10)]
    assert [row[0] for row in rows] == [50, 100] and all(sum(row[8:]) == pytest.approx(1) for row in rows)
    config = json.loads((out / "config.json").read_text())
    assert config["images"] == 320 and config["parameters"] == {"G": 476560, "D": 201217} and config["lr_d"] == 0.05
    samples = sorted(path.name for path in (out / "samples").iterdir())
    assert samples == [f"step_{step:06d}.png" for step in range(0, 121, 20)]
    for name, size in {"real.png": (242, 242), "modes.png": (1100, 600), "losses.png": (900, 600)}.items():
        with Image.open(out / name) as picture:
            assert picture.size == size
    with Image.open(out / "training.gif") as film:
        assert film.n_frames == 7
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    assert saved["script"] == "gan_mnist_mlp" and (saved["step"], saved["epoch"]) == (120, 6)
    assert saved["generator"] == {"class": "Generator", "latent_dim": 64} and saved["args"]["digit"] == "0"
    assert not list(out.rglob("*.tmp"))
    text = capsys.readouterr().out
    assert "epoch 6/6, step 120: loss_d 0." in text and "collapsed on mode" in text and "0.693" in text


def test_the_observer_does_not_touch_the_training(monkeypatch):
    script.main([*SMALL, "--epochs", "3", "--out", "with"])
    monkeypatch.setattr(script, "OBSERVE_EVERY", 10**9)
    script.main([*SMALL, "--epochs", "3", "--out", "without"])
    assert common.Path("with/losses.csv").read_bytes() == common.Path("without/losses.csv").read_bytes()
    assert not common.Path("without/modes.csv").exists()


def test_a_digit_is_chosen_before_the_limit_and_all_means_all():
    write_mnist("data", count=200)
    images, labels = common.load_mnist("data", "mnist")
    args = script.parse_args(["--digit", "3", "--limit", "15"])[0]
    assert torch.equal(script.load_images(args), images[labels == 3][:15])
    args = script.parse_args(["--digit", "all"])[0]
    assert torch.equal(script.load_images(args), images)


def test_bad_input_gets_one_line(stops):
    assert "--digit" in stops(script.main, ["--digit", "10"])
    assert "only zeros" in stops(script.main, ["--dataset", "toy", "--digit", "3"])
    assert "10 modes" in stops(script.main, ["--dataset", "toy", "--limit", "5", "--batch-size", "2"])
    assert "--lr-g" in stops(script.main, ["--dataset", "toy", "--lr-g", "-1"])
