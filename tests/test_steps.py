"""The two updates of every training script, and the classic bugs: who moves, who gets a gradient, what the losses are."""
import math

import pytest
import torch
from conftest import same_weights
from torch import nn

import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba


class Game:
    """A script's nets and steps behind one interface: D's loss is `halves` times the mean of its halves."""

    def __init__(self, script, G, D, latent_dim, shape, halves):
        torch.manual_seed(0)
        self.script, self.G, self.D, self.halves = script, G, D, halves
        self.opt_G, self.opt_D = torch.optim.SGD(G.parameters(), lr=0.01), torch.optim.SGD(D.parameters(), lr=0.01)
        self.z, self.real = torch.randn(8, latent_dim), torch.rand(8, *shape)

    def step_D(self):
        if self.script is wgan_celeba:
            loss, real, fake = self.script.step_D(self.G, self.D, self.opt_D, self.real, self.z, "minimax")
            return loss, real.sigmoid().mean(), fake.sigmoid().mean()
        if self.script is dcgan_mnist:
            return self.script.step_D(self.D, self.opt_D, self.real, self.G(self.z).detach())
        return self.script.step_D(self.G, self.D, self.opt_D, self.real, self.z)

    def step_G(self):
        if self.script is wgan_celeba:
            return self.script.step_G(self.G, self.D, self.opt_G, self.z, "minimax")
        return self.script.step_G(self.G, self.D, self.opt_G, self.G(self.z) if self.script is dcgan_mnist else self.z)


GAMES = {
    "zeros": lambda: Game(gan_mnist_mlp, gan_mnist_mlp.Generator(), gan_mnist_mlp.Discriminator(), 64, (1, 28, 28), halves=1),
    "blog mlp": lambda: Game(dcgan_mnist, dcgan_mnist.MLPGenerator(), dcgan_mnist.MLPDiscriminator().eval(), 100, (1, 28, 28), halves=1),
    "blog dcgan": lambda: Game(dcgan_mnist, dcgan_mnist.DCGANGenerator(ngf=8), dcgan_mnist.DCGANDiscriminator(ndf=8),
                               128, (1, 28, 28), halves=1),
    "lab vanilla": lambda: Game(dcgan_celeba, dcgan_celeba.VanillaGenerator(ngf=8), dcgan_celeba.Discriminator(ndf=8),
                                100, (3, 64, 64), halves=2),
    "lab dcgan": lambda: Game(dcgan_celeba, dcgan_celeba.DCGANGenerator(ngf=4), dcgan_celeba.Discriminator(ndf=8),
                              100, (3, 64, 64), halves=2),
    "lab mnist": lambda: Game(dcgan_celeba, dcgan_celeba.VanillaGenerator(ngf=8, size=28), dcgan_celeba.Discriminator(ndf=8, size=28),
                              100, (1, 28, 28), halves=2),
    "assignment minimax": lambda: Game(wgan_celeba, wgan_celeba.Generator(ngf=8), wgan_celeba.Discriminator(ndf=8),
                                       100, (3, 64, 64), halves=2),
}


@pytest.fixture(params=GAMES)
def game(request):
    return GAMES[request.param]()


def parameters(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def test_a_D_step_moves_only_D_and_a_G_step_only_G(game):
    G, D = parameters(game.G), parameters(game.D)
    game.step_D()
    assert same_weights(G, parameters(game.G)) and not same_weights(D, parameters(game.D))
    D = parameters(game.D)
    game.step_G()
    assert same_weights(D, parameters(game.D)) and not same_weights(G, parameters(game.G))


def test_a_G_step_leaves_no_gradient_in_D_and_a_D_step_none_in_G(game):
    game.step_G()
    assert all(weight.grad is None for weight in game.D.parameters())
    game.opt_G.zero_grad()
    game.step_D()
    assert all(weight.grad is None for weight in game.G.parameters())


def test_one_G_step_raises_D_of_the_same_noise(game):
    before = game.D(game.G(game.z)).mean()
    game.step_G()
    assert game.D(game.G(game.z)).mean() > before


def test_one_D_step_tells_the_same_images_apart_better(game):
    gap = game.D(game.real).mean() - game.D(game.G(game.z)).mean()
    game.step_D()
    assert game.D(game.real).mean() - game.D(game.G(game.z)).mean() > gap


@pytest.mark.parametrize("logit", [0.0, 1.5, -3.0])
def test_a_constant_D_gives_the_losses_of_the_formulas(game, logit):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logit = nn.Parameter(torch.tensor(logit))

        def forward(self, x):
            return self.logit + 0 * x.flatten(1).sum(1)

    game.D = Constant()
    game.opt_D = torch.optim.SGD(game.D.parameters(), lr=0.0)
    p = 1 / (1 + math.exp(-logit))
    loss_D, d_real, d_fake = game.step_D()
    assert loss_D.item() == pytest.approx(-game.halves / 2 * (math.log(p) + math.log(1 - p)), rel=1e-5)
    assert (d_real.item(), d_fake.item()) == pytest.approx((p, p), rel=1e-5)
    assert game.step_G().item() == pytest.approx(-math.log(p), rel=1e-5)
    assert not any(value.requires_grad for value in (loss_D, d_real, d_fake)), "a graph kept in the log would eat the memory"


def test_bf16_computes_in_bfloat16_and_keeps_weights_losses_and_outputs_in_float32():
    import common

    torch.manual_seed(0)
    net, x = dcgan_mnist.DCGANDiscriminator(ndf=8), torch.rand(4, 1, 28, 28)
    exact = net(x)
    common.place(net, torch.device("cpu"), "bf16")
    rough = net(x)
    assert rough.dtype == torch.float32 and all(weight.dtype == torch.float32 for weight in net.parameters())
    assert 0 < (rough - exact).abs().max() < 0.05
    assert set(net.state_dict()) == set(dcgan_mnist.DCGANDiscriminator(ndf=8).state_dict())
