"""The WGAN script: its schedule, its defaults, its ways to double the size. The loop is tested in test_steps.py."""
import pytest
import torch

import wgan_celeba as script


def test_the_schedule_is_the_assignments():
    counts = [script.critic_updates("wgan", 5, g_step) for g_step in range(1500)]
    assert counts[:50] == [20] * 50 and sum(counts[:50]) == 1000, "1000 minibatches, the assignment says"
    assert [g_step for g_step in range(50, 1500) if counts[g_step] == 20] == [499, 999, 1499]
    assert set(counts) == {5, 20} and script.critic_updates("wgan", 3, 60) == 3
    assert {script.critic_updates("wgan", 25, g_step) for g_step in (0, 60, 499)} == {25}, "a larger --n-critic is never less"


@pytest.mark.parametrize("game", ["minimax", "lsgan"])
def test_the_other_games_have_no_schedule(game):
    assert {script.critic_updates(game, 1, g_step) for g_step in range(1000)} == {1}
    assert script.critic_updates(game, 4, 0) == 4


@pytest.mark.parametrize("loss, lr, n_critic, clip",
                         [("wgan", 5e-5, 5, 0.01), ("minimax", 2e-4, 1, 0), ("lsgan", 2e-4, 1, 0)])
def test_each_loss_brings_its_defaults_and_flags_override_them(loss, lr, n_critic, clip):
    args, _ = script.parse_args(["--loss", loss])
    assert (args.lr, args.n_critic, args.clip) == (lr, n_critic, clip)
    args, _ = script.parse_args(["--loss", loss, "--lr", "0.001", "--n-critic", "2", "--clip", "0"])
    assert (args.lr, args.n_critic, args.clip) == (0.001, 2, 0)
    assert script.parse_args(["--clip", "0.05"])[0].clip == 0.05, "the authors' own run"


def test_no_loss_is_the_wgan_and_no_upsampling_is_the_deconvolution():
    args, _ = script.parse_args([])
    assert (args.loss, args.upsample, args.dataset, args.ngf, args.ndf) == ("wgan", "deconv", "celeba", 64, 64)


@pytest.mark.parametrize("mode", ["deconv", "nearest", "bilinear"])
def test_doubling_paints_no_checkerboard(mode):
    """The assignment's toy signal (Odena et al. 2016): constant input, kernels of ones, away from the border."""
    net = script.double(1, 1, mode)
    for weight in net.parameters():
        torch.nn.init.ones_(weight)
    with torch.no_grad():
        out = net(torch.ones(1, 1, 16, 16))
    assert out.shape == (1, 1, 32, 32) and len(out[..., 6:-6, 6:-6].unique()) == 1


def test_the_three_ways_to_double_differ_as_their_names_say():
    """A single bright pixel: nearest repeats it, bilinear spreads it over its neighbours."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4, 4] = 1
    nearest, bilinear = (script.double(1, 1, mode)[0](x) for mode in ("nearest", "bilinear"))
    assert nearest.sum() == bilinear.sum() == 4 and nearest.count_nonzero() == 4 < bilinear.count_nonzero()
