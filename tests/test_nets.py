"""The networks: parameters as in the documents, the shapes that the comments claim, the initialisation that is claimed."""
import inspect
import re

import pytest
import torch
from torch import nn

import dcgan_celeba
import dcgan_mnist
import wgan_celeba

# a net, the shape of its input, its number of parameters in the documents
NETS = [
    (dcgan_mnist.MLPGenerator, {}, (100,), 1_486_352),
    (dcgan_mnist.MLPDiscriminator, {}, (1, 28, 28), 566_273),
    (dcgan_mnist.DCGANGenerator, {}, (128,), 369_600),
    (dcgan_mnist.DCGANDiscriminator, {}, (1, 28, 28), 109_504),
    (dcgan_celeba.VanillaGenerator, {}, (100,), 3_576_704),
    (dcgan_celeba.VanillaGenerator, {"size": 28}, (100,), 1_066_880),
    (dcgan_celeba.DCGANGenerator, {}, (100,), 12_658_432),
    (dcgan_celeba.Discriminator, {}, (3, 64, 64), 2_765_568),
    (dcgan_celeba.Discriminator, {"size": 28}, (1, 28, 28), 661_248),
    (wgan_celeba.Generator, {}, (100,), 3_592_064),
    (wgan_celeba.Generator, {"upsample": "nearest"}, (100,), 2_386_496),
    (wgan_celeba.Generator, {"upsample": "bilinear"}, (100,), 2_386_496),
    (wgan_celeba.Discriminator, {}, (3, 64, 64), 2_766_529),
]
each_net = pytest.mark.parametrize("kind, keywords, shape, parameters", NETS, ids=lambda value: getattr(value, "__name__", None))
SHAPES = re.compile(r"#.*?(\([\d, ]*\)) -> (\([\d, ]*\))")
LAYERS = re.compile(r"\b(?:nn\.(?!Sequential|Module)\w+|up|down|double)\(")


@each_net
def test_parameters_are_those_of_the_documents(kind, keywords, shape, parameters):
    assert sum(weight.numel() for weight in kind(**keywords).parameters()) == parameters


def test_the_blogs_generator_has_312256_parameters_at_a_latent_size_of_100():
    assert sum(weight.numel() for weight in dcgan_mnist.DCGANGenerator(latent_dim=100).parameters()) == 312_256


@each_net
def test_every_shape_comment_is_true(kind, keywords, shape, parameters):
    """Walk the lines of the class beside its layers: a line's comment must give the shapes before and after its layers."""
    before, _, after = inspect.getsource(kind).partition("else:")
    if keywords.get("size") == 28:
        source = before.partition("if size")[0] + after
    else:
        source = before + after.rpartition("]")[2]
    net = kind(**keywords).eval()
    layers, x, comments = list(net.layers), torch.zeros(2, *shape), 0
    for line in source.splitlines():
        code, claimed = line.partition("#")[0], SHAPES.search(line)
        start = tuple(x.shape[1:])
        for _ in LAYERS.findall(code):
            x = layers.pop(0)(x)
        if claimed:
            comments += 1
            assert (str(start), str(tuple(x.shape[1:]))) == claimed.groups(), line
        else:
            assert tuple(x.shape[1:]) == start, f"no comment on a line that changes the shape: {line}"
    assert not layers and comments >= 4


@each_net
def test_generators_make_images_in_range_and_discriminators_one_logit_an_image(kind, keywords, shape, parameters):
    net = kind(**keywords).eval()
    out = net(5 * torch.randn(3, *shape))
    if "Generator" in kind.__name__:
        size = keywords.get("size", 28 if kind.__module__ == "dcgan_mnist" else 64)
        assert out.shape == (3, 1 if size == 28 else 3, size, size) and out.abs().max() <= 1
    else:
        assert out.shape == (3,)


@each_net
def test_init_weights_is_no_empty_gesture(kind, keywords, shape, parameters):
    torch.manual_seed(0)
    net = kind(**keywords)
    inspect.getmodule(kind).init_weights(net)
    weighted = [layer for layer in net.modules() if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d))]
    norms = [layer for layer in net.modules() if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d))]
    for layer in weighted:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=4 / layer.weight.numel() ** 0.5)
        assert abs(layer.weight.mean().item()) < 5 * 0.02 / layer.weight.numel() ** 0.5
    for layer in norms:
        assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and layer.weight.std().item() == pytest.approx(0.02, rel=0.5)
    assert all((layer.bias == 0).all() for layer in weighted + norms if layer.bias is not None)


def test_batch_norm_is_where_the_documents_have_it():
    def norms(net):
        return [block[1].num_features for block in net.layers if isinstance(block, nn.Sequential)]
    assert norms(dcgan_mnist.DCGANDiscriminator()) == [32, 64, 128], "the blog post: on the first layer too"
    assert norms(dcgan_celeba.Discriminator()) == [128, 256, 512], "the lab: on the middle three"
    assert norms(dcgan_celeba.Discriminator(size=28)) == [128, 256]
    for net in (dcgan_mnist.DCGANDiscriminator(), dcgan_celeba.Discriminator()):
        assert {layer.negative_slope for layer in net.modules() if isinstance(layer, nn.LeakyReLU)} == {0.2}
    assert [layer.p for layer in dcgan_mnist.MLPDiscriminator().layers if isinstance(layer, nn.Dropout)] == [0.3] * 3
