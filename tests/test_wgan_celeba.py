"""The WGAN: the three losses, the critic's schedule and its clip."""
import json
import math
from pathlib import Path

import pytest
import torch
from conftest import csv_rows
from PIL import Image

import wgan_celeba as script

SMALL = ["--dataset", "toy", "--limit", "128", "--batch-size", "4", "--ngf", "4", "--ndf", "4"]  # 32 steps an epoch


@pytest.fixture
def game():
    torch.manual_seed(0)
    G, D = script.Generator(ngf=8), script.Discriminator(ndf=8)
    script.init_weights(G), script.init_weights(D)
    return G, D, torch.optim.RMSprop(G.parameters(), lr=5e-5), torch.optim.RMSprop(D.parameters(), lr=5e-5)


@pytest.mark.parametrize("c", [0.0, 0.5, -3.0, 40.0])
def test_losses_of_constant_outputs_are_those_of_the_formulas(c):
    d = torch.full((6,), c)
    assert script.loss_of_D("wgan", d, d).item() == 0 and script.loss_of_G("wgan", d).item() == -c
    assert script.loss_of_D("lsgan", d, d).item() == pytest.approx((c - 1) ** 2 + c**2)
    assert script.loss_of_G("lsgan", d).item() == pytest.approx((c - 1) ** 2)
    log_p, log_q = -math.log1p(math.exp(-c)), -c - math.log1p(math.exp(-c))  # log sigmoid(c) and log(1 - sigmoid(c))
    assert script.loss_of_D("minimax", d, d).item() == pytest.approx(-log_p - log_q)
    assert script.loss_of_G("minimax", d).item() == pytest.approx(-log_p)


@pytest.mark.parametrize("loss", script.DEFAULTS)
def test_D_wants_high_for_real_and_G_wants_high_for_fake(loss):
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    script.loss_of_D(loss, real, fake).backward()
    assert (real.grad < 0).all() and ((fake.grad > 0).all() or loss == "lsgan")  # lsgan wants the 0 that it has
    fake.grad = None
    script.loss_of_G(loss, fake).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("loss", script.DEFAULTS)
def test_a_mix_up_of_shapes_raises(loss):
    with pytest.raises(ValueError, match="must be"):
        script.loss_of_D(loss, torch.zeros(4, 1), torch.zeros(4))


def test_the_schedule_is_the_assignments():
    counts = [script.critic_updates(g_iter, 5) for g_iter in range(1500)]
    assert counts[:50] == [20] * 50 and sum(counts[:50]) == 1000, "1000 minibatches, the assignment says"
    assert [g_iter for g_iter in range(50, 1500) if counts[g_iter] == 20] == [499, 999, 1499]
    assert set(counts) == {5, 20} and script.critic_updates(60, 3) == 3


def test_position_counts_as_a_walk_through_the_schedule_does():
    def updates_before(g_step):
        return script.critic_updates(g_step, 5)

    g_step = d_steps = 0
    for step in range(1, 4000):
        d_steps += 1
        if d_steps == updates_before(g_step):
            g_step, d_steps = g_step + 1, 0
        assert script.position(step, updates_before) == (g_step, d_steps)
    assert g_step > 500


@pytest.mark.parametrize("clip", [0.01, 0.05])
def test_no_weight_exceeds_the_clip_after_a_critic_step(game, clip):
    G, D, _, opt_D = game
    assert max(weight.abs().max() for weight in D.parameters()) > 0.9, "BatchNorm's scales begin near 1"
    for _ in range(2):
        script.step_D(G, D, opt_D, torch.rand(8, 3, 64, 64), torch.randn(8, 100), "wgan", clip)
        assert all(weight.abs().max() <= clip for weight in D.parameters())


@pytest.mark.parametrize("loss", script.DEFAULTS)
def test_one_critic_step_widens_the_gap_and_one_G_step_raises_the_critics_mean(game, loss):
    G, D, opt_G, opt_D = game
    real, z = torch.rand(16, 3, 64, 64), torch.randn(16, 100)

    def w_estimate():
        with torch.no_grad():
            return (D(real).mean() - D(G(z)).mean()).item()

    before = w_estimate()
    script.step_D(G, D, opt_D, real, z, loss)
    assert w_estimate() > before
    before = D(G(z)).mean().item()
    script.step_G(G, D, opt_G, z, loss)
    assert D(G(z)).mean().item() > before


def test_a_run_gives_the_critic_its_updates_and_keeps_count(capsys):
    script.main([*SMALL, "--epochs", "2", "--out", "run"])
    header, rows = csv_rows("run/losses.csv")
    assert header == ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake", "g_step", "w_estimate"]
    assert [row[6] for row in rows] == [step // 20 for step in range(1, 65)], "critic updates carry over the end of an epoch"
    for _, _, loss_d, _, d_real, d_fake, _, w in rows:
        assert w == pytest.approx(d_real - d_fake, abs=1e-6) and loss_d == pytest.approx(-w, abs=1e-6)
    saved = torch.load("run/checkpoint.pt", weights_only=True)
    bound = max(weight.abs().max().item() for name, weight in saved["D"].items() if "running" not in name and "tracked" not in name)
    assert bound <= 0.01 + 1e-9
    assert saved["generator"] == {"class": "Generator", "latent_dim": 100, "ngf": 4, "upsample": "deconv"}
    with Image.open("run/losses.png") as picture:
        assert picture.size == (900, 900), "a panel for w_estimate"
    assert "1,000 minibatches" in capsys.readouterr().out


def test_every_critic_update_draws_a_fresh_minibatch(monkeypatch):
    seen, step_D = [], script.step_D

    def remember(G, D, opt_D, real, *rest):
        seen.append(real.sum().item())
        return step_D(G, D, opt_D, real, *rest)

    monkeypatch.setattr(script, "step_D", remember)
    script.main([*SMALL, "--epochs", "1"])
    assert len(seen) == len(set(seen)) == 32


@pytest.mark.parametrize("loss, lr, n_critic, clip", [("wgan", 5e-5, 5, 0.01), ("minimax", 2e-4, 1, None), ("lsgan", 2e-4, 1, None)])
def test_each_loss_brings_its_defaults_and_flags_override_them(loss, lr, n_critic, clip):
    args, _ = script.parse_args(["--loss", loss])
    assert (args.lr, args.n_critic, args.clip, args.batch_size, args.epochs) == (lr, n_critic, clip, 64, 50)
    args, _ = script.parse_args(["--loss", loss, "--lr", "0.001", "--n-critic", "2"])
    assert (args.lr, args.n_critic) == (0.001, 2)


@pytest.mark.parametrize("loss", ["minimax", "lsgan"])
def test_the_other_losses_take_turns_and_record_what_was_used(loss):
    script.main([*SMALL, "--loss", loss, "--epochs", "1", "--out", "run", "--upsample", "nearest"])
    _, rows = csv_rows("run/losses.csv")
    assert [row[6] for row in rows] == list(range(1, 33))
    if loss == "minimax":
        assert all(0 <= p <= 1 for row in rows for p in row[4:6])
    config = json.loads(Path("run/config.json").read_text())
    assert (config["lr"], config["n_critic"], config["clip"]) == (2e-4, 1, None)


def test_clip_belongs_to_wgan(stops):
    assert "--clip 0.05" in stops(script.main, ["--loss", "lsgan", "--clip", "0.05", "--dataset", "toy"])
    assert "--clip 0.0" in stops(script.main, ["--clip", "0", "--dataset", "toy"])
    assert "--batch-size 1" in stops(script.main, ["--batch-size", "1", "--dataset", "toy"])
    assert "--n-critic 0" in stops(script.main, ["--n-critic", "0", "--dataset", "toy"])


def test_resizing_paints_no_checkerboard_and_an_odd_deconvolution_does():
    """The assignment's toy signal (Odena et al. 2016): constant input, kernels of ones, away from the border."""
    x = torch.ones(1, 1, 16, 16)

    def pattern(layer):
        torch.nn.init.ones_(layer.weight)
        with torch.no_grad():
            return layer(x)[0, 0, 6:-6, 6:-6].unique()

    assert len(pattern(torch.nn.ConvTranspose2d(1, 1, kernel_size=4, stride=2, padding=1, bias=False))) == 1
    assert len(pattern(torch.nn.ConvTranspose2d(1, 1, kernel_size=3, stride=2, padding=1, bias=False))) > 1
    for mode in ("nearest", "bilinear"):
        net = script.double(1, 1, mode)
        torch.nn.init.ones_(net[1].weight)
        with torch.no_grad():
            assert len(net(x)[0, 0, 6:-6, 6:-6].unique()) == 1
