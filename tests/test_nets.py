"""The networks, layer by layer, and what each script's main builds of them: both as in the documents."""
import inspect
import re
import sys

import pytest
import torch
from conftest import write_mnist
from torch import nn

import common
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import toy_images
import wgan_celeba

# a net -> its class, keywords, the shape of its input, its number of parameters in the documents, and its layers:
# kernel/stride/padding of a convolution, slope of a LeakyReLU
NETS = {
    "zeros G": (gan_mnist_mlp.Generator, {}, (64,), 476_560, """
        Linear 64-128 bias, LeakyReLU 0.01, Linear 128-512 bias, LeakyReLU 0.01, Linear 512-784 bias, Tanh"""),
    "zeros D": (gan_mnist_mlp.Discriminator, {}, (1, 28, 28), 201_217, """
        Linear 784-256 bias, LeakyReLU 0.01, Linear 256-1 bias"""),
    "blog MLP G": (dcgan_mnist.MLPGenerator, {}, (100,), 1_486_352, """
        Linear 100-256 bias, LeakyReLU 0.2, Linear 256-512 bias, LeakyReLU 0.2,
        Linear 512-1024 bias, LeakyReLU 0.2, Linear 1024-784 bias, Tanh"""),
    "blog MLP D": (dcgan_mnist.MLPDiscriminator, {}, (1, 28, 28), 566_273, """
        Linear 784-512 bias, LeakyReLU 0.2, Dropout 0.3, Linear 512-256 bias, LeakyReLU 0.2, Dropout 0.3,
        Linear 256-128 bias, LeakyReLU 0.2, Dropout 0.3, Linear 128-1 bias"""),
    "blog DCGAN G": (dcgan_mnist.DCGANGenerator, {}, (128,), 369_600, """
        ConvTranspose2d 128-128 4/1/0, BatchNorm2d 128, ReLU, ConvTranspose2d 128-64 3/2/1, BatchNorm2d 64, ReLU,
        ConvTranspose2d 64-32 4/2/1, BatchNorm2d 32, ReLU, ConvTranspose2d 32-1 4/2/1, Tanh"""),
    "blog DCGAN D": (dcgan_mnist.DCGANDiscriminator, {}, (1, 28, 28), 109_504, """
        Conv2d 1-32 4/2/1, BatchNorm2d 32, LeakyReLU 0.2, Conv2d 32-64 4/2/1, BatchNorm2d 64, LeakyReLU 0.2,
        Conv2d 64-128 3/2/1, BatchNorm2d 128, LeakyReLU 0.2, Conv2d 128-1 4/1/0"""),
    "lab vanilla G": (dcgan_celeba.VanillaGenerator, {}, (100,), 3_576_704, """
        ConvTranspose2d 100-512 4/1/0, BatchNorm2d 512, ReLU, ConvTranspose2d 512-256 4/2/1, BatchNorm2d 256, ReLU,
        ConvTranspose2d 256-128 4/2/1, BatchNorm2d 128, ReLU, ConvTranspose2d 128-64 4/2/1, BatchNorm2d 64, ReLU,
        ConvTranspose2d 64-3 4/2/1, Tanh"""),
    "lab MNIST G": (dcgan_celeba.VanillaGenerator, {"size": 28}, (100,), 1_066_880, """
        ConvTranspose2d 100-256 4/1/0, BatchNorm2d 256, ReLU, ConvTranspose2d 256-128 4/2/1, BatchNorm2d 128, ReLU,
        ConvTranspose2d 128-64 4/2/2, BatchNorm2d 64, ReLU, ConvTranspose2d 64-1 4/2/1, Tanh"""),
    "lab DCGAN G": (dcgan_celeba.DCGANGenerator, {}, (100,), 12_658_432, """
        Linear 100-16384, BatchNorm2d 1024, ReLU, ConvTranspose2d 1024-512 4/2/1, BatchNorm2d 512, ReLU,
        ConvTranspose2d 512-256 4/2/1, BatchNorm2d 256, ReLU, ConvTranspose2d 256-128 4/2/1, BatchNorm2d 128, ReLU,
        ConvTranspose2d 128-3 4/2/1, Tanh"""),
    "lab D": (dcgan_celeba.Discriminator, {}, (3, 64, 64), 2_765_568, """
        Conv2d 3-64 4/2/1, LeakyReLU 0.2, Conv2d 64-128 4/2/1, BatchNorm2d 128, LeakyReLU 0.2,
        Conv2d 128-256 4/2/1, BatchNorm2d 256, LeakyReLU 0.2, Conv2d 256-512 4/2/1, BatchNorm2d 512, LeakyReLU 0.2,
        Conv2d 512-1 4/1/0"""),
    "lab MNIST D": (dcgan_celeba.Discriminator, {"size": 28}, (1, 28, 28), 661_248, """
        Conv2d 1-64 4/2/1, LeakyReLU 0.2, Conv2d 64-128 4/2/1, BatchNorm2d 128, LeakyReLU 0.2,
        Conv2d 128-256 4/2/2, BatchNorm2d 256, LeakyReLU 0.2, Conv2d 256-1 4/1/0"""),
    "assignment G": (wgan_celeba.Generator, {}, (100,), 3_592_064, """
        Linear 100-8192, BatchNorm1d 8192, ReLU, ConvTranspose2d 512-256 4/2/1, BatchNorm2d 256, ReLU,
        ConvTranspose2d 256-128 4/2/1, BatchNorm2d 128, ReLU, ConvTranspose2d 128-64 4/2/1, BatchNorm2d 64, ReLU,
        ConvTranspose2d 64-3 4/2/1, Tanh"""),
    **{f"assignment {mode} G": (wgan_celeba.Generator, {"upsample": mode}, (100,), 2_386_496, f"""
        Linear 100-8192, BatchNorm1d 8192, ReLU, Upsample {mode}, Conv2d 512-256 3/1/1, BatchNorm2d 256, ReLU,
        Upsample {mode}, Conv2d 256-128 3/1/1, BatchNorm2d 128, ReLU,
        Upsample {mode}, Conv2d 128-64 3/1/1, BatchNorm2d 64, ReLU, Upsample {mode}, Conv2d 64-3 3/1/1, Tanh""")
       for mode in ("nearest", "bilinear")},
    "assignment D": (wgan_celeba.Discriminator, {}, (3, 64, 64), 2_766_529, """
        Conv2d 3-64 4/2/1 bias, LeakyReLU 0.2, Conv2d 64-128 4/2/1 bias, BatchNorm2d 128, LeakyReLU 0.2,
        Conv2d 128-256 4/2/1 bias, BatchNorm2d 256, LeakyReLU 0.2,
        Conv2d 256-512 4/2/1 bias, BatchNorm2d 512, LeakyReLU 0.2, Conv2d 512-1 4/1/0 bias"""),
}
each_net = pytest.mark.parametrize("name", NETS)
WEIGHTED, NORMS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d), (nn.BatchNorm1d, nn.BatchNorm2d)


def make(name):
    kind, keywords, shape, *_ = NETS[name]
    return kind(**keywords), shape


def describe(layer):
    """A layer in a few words; None for what only holds other layers or changes the shape."""
    name, bias = type(layer).__name__, " bias" * (getattr(layer, "bias", None) is not None)
    if isinstance(layer, nn.Linear):
        return f"{name} {layer.in_features}-{layer.out_features}{bias}"
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        assert layer.dilation == (1, 1) and layer.groups == 1
        numbers = [layer.kernel_size, layer.stride, layer.padding]
        assert all(a == b for a, b in numbers)
        return f"{name} {layer.in_channels}-{layer.out_channels} {'/'.join(str(a) for a, _ in numbers)}{bias}"
    if isinstance(layer, NORMS):
        assert (layer.eps, layer.momentum) == (1e-5, 0.1) and layer.affine and layer.track_running_stats
        return f"{name} {layer.num_features}"
    if isinstance(layer, nn.LeakyReLU):
        return f"{name} {layer.negative_slope}"
    if isinstance(layer, nn.Dropout):
        return f"{name} {layer.p}"
    if isinstance(layer, nn.Upsample):
        assert layer.scale_factor == 2
        return f"{name} {layer.mode}"
    return name if not list(layer.children()) and not isinstance(layer, (nn.Flatten, nn.Unflatten)) else None


def layers_of(net):
    return [words for layer in net.modules() if (words := describe(layer))]


# ----------------------------------------------------------------------------------------- the nets
@each_net
def test_layers_and_parameters_are_those_of_the_documents(name):
    _, _, _, parameters, layers = NETS[name]
    net, _ = make(name)
    assert layers_of(net) == [words.strip() for words in layers.split(",")]
    assert sum(weight.numel() for weight in net.parameters()) == parameters


def test_the_blogs_generator_has_312256_parameters_at_a_latent_size_of_100():
    assert sum(weight.numel() for weight in dcgan_mnist.DCGANGenerator(latent_dim=100).parameters()) == 312_256


@each_net
def test_G_reaches_the_ends_of_its_range_and_no_further_and_D_gives_numbers_without_bounds(name):
    """With large weights: those of the beginning are too small to need a Tanh, or to show a sigmoid."""
    torch.manual_seed(0)
    net, shape = make(name)
    for layer in net.modules():
        if isinstance(layer, WEIGHTED):
            nn.init.normal_(layer.weight, std=0.5)
    with torch.no_grad():
        out = net.eval()(torch.randn(8, *shape))
        alone = net(torch.randn(1, *shape))
    if name.endswith("G"):
        small = net.__module__ in ("gan_mnist_mlp", "dcgan_mnist") or "MNIST" in name
        assert out.shape == ((8, 1, 28, 28) if small else (8, 3, 64, 64)) and alone.shape[1:] == out.shape[1:]
        assert out.abs().max() <= 1 and out.min() < -0.95 and out.max() > 0.95
    else:
        assert out.shape == (8,) and alone.shape == (1,), "one number an image, also for a single one"
        assert out.max() > 2 and out.min() < -2


SHAPES = re.compile(r"#.*?(\([\d, ]*\))? ?-> (\([\d, ]*\))")


@each_net
def test_every_shape_comment_is_true(name, monkeypatch):
    """Which line of the class makes a layer is noted while it is made; then an image walks through
    the layers. A comment speaks of the layers on its line, and of those since the last comment."""
    kind, keywords, shape, *_ = NETS[name]
    lines, noted = {}, nn.Module.__init__

    def note(layer, *args, **others):
        frame = sys._getframe(1)
        while frame and frame.f_code is not kind.__init__.__code__:
            frame = frame.f_back
        if frame:
            lines[id(layer)] = frame.f_lineno
        noted(layer, *args, **others)

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__init__", note)
        net = kind(**keywords).eval()
    x, walk = torch.zeros(1, *shape), []  # (line, shape before, shape after) of each layer
    for layer in net.layers:
        before, x = x, layer(x)
        walk.append((lines[id(layer)], str(tuple(before.shape[1:])), str(tuple(x.shape[1:]))))
    source, first = inspect.getsourcelines(kind)
    claims, last = 0, 0
    for number, text in enumerate(source, start=first):
        claimed = SHAPES.search(text)
        if claimed:
            layers = [shapes for line, *shapes in walk if last < line <= number]
            if layers:
                before, after = claimed.groups()
                assert before in (None, layers[0][0]) and after == layers[-1][1], text
                claims += 1
            last = number
    if not claims:
        pytest.skip("no comment beside a layer gives its shape")


@pytest.mark.parametrize("name", [name for name in NETS if "zeros" not in name])  # theirs is PyTorch's own
def test_init_weights_draws_small_normal_weights_and_no_bias(name):
    net, _ = make(name)
    torch.manual_seed(0)
    net.apply(sys.modules[net.__module__].init_weights)
    assert_initialised(net)


def test_the_DCGAN_generator_of_the_lab_is_the_vanilla_one_at_twice_the_width():
    """As its docstring and its page say: on a 1 x 1 input the first transposed convolution is a linear layer."""
    vanilla, dcgan = dcgan_celeba.VanillaGenerator(ngf=8), dcgan_celeba.DCGANGenerator(ngf=4)
    first, *rest = vanilla.state_dict().values()
    weights = [first.flatten(1).T, *rest]  # (100, 64, 4, 4) -> (1024, 100)
    dcgan.load_state_dict(dict(zip(dcgan.state_dict(), weights)))
    z = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(vanilla(z), dcgan(z), atol=1e-5) and vanilla(z).std() > 0.1


def assert_initialised(net):
    """Weights N(0, 0.02^2), BatchNorm's scales N(1, 0.02^2), every bias 0."""
    for layer in net.modules():
        if isinstance(layer, (*WEIGHTED, *NORMS)):
            n, mean = layer.weight.numel(), 1 if isinstance(layer, NORMS) else 0
            assert layer.weight.mean().item() == pytest.approx(mean, abs=5 * 0.02 / n**0.5)
            assert layer.weight.std().item() == pytest.approx(0.02, rel=4 / n**0.5)
            if n > 1000:  # normal, and not another distribution: a tenth is beyond 1.645 deviations
                assert ((layer.weight - mean).abs() > 1.645 * 0.02).float().mean().item() == pytest.approx(0.1, rel=0.3)
            assert layer.bias is None or (layer.bias == 0).all()


# --------------------------------------------------------------------------------- what main builds
def adam(weights, lr=2e-4):
    return torch.optim.Adam(weights, lr, betas=(0.5, 0.999))


def adamw(weights, lr=2e-4):
    return torch.optim.AdamW(weights, lr, betas=(0.5, 0.999), weight_decay=1e-5)


def rmsprop(weights, lr=5e-5):
    return torch.optim.RMSprop(weights, lr)


def sgd(lr):
    return lambda weights: torch.optim.SGD(weights, lr)


# script and flags -> the nets, the optimizer of each, the number and size of the fixed z
CASES = {
    "zeros": (gan_mnist_mlp, [], "zeros G", "zeros D", sgd(0.001), sgd(0.05), (64, 64)),
    "blog DCGAN": (dcgan_mnist, [], "blog DCGAN G", "blog DCGAN D", adamw, adamw, (256, 128)),
    "blog MLP": (dcgan_mnist, ["--model", "mlp"], "blog MLP G", "blog MLP D", adamw, adamw, (256, 100)),
    "lab DCGAN": (dcgan_celeba, [], "lab DCGAN G", "lab D", adam, adam, (64, 100)),
    "lab vanilla": (dcgan_celeba, ["--generator", "vanilla"], "lab vanilla G", "lab D", adam, adam, (64, 100)),
    "lab MNIST": (dcgan_celeba, ["--dataset", "mnist"], "lab MNIST G", "lab MNIST D", adam, adam, (64, 100)),
    "wgan": (wgan_celeba, [], "assignment G", "assignment D", rmsprop, rmsprop, (64, 100)),
    "minimax": (wgan_celeba, ["--loss", "minimax", "--upsample", "nearest"],
                "assignment nearest G", "assignment D", adam, adam, (64, 100)),
    "lsgan": (wgan_celeba, ["--loss", "lsgan", "--upsample", "bilinear"],
              "assignment bilinear G", "assignment D", adam, adam, (64, 100)),
}
HOW = {"params", "fused", "foreach", "capturable", "differentiable"}  # how an optimizer computes, not what


def assert_optimizer(optimizer, net, wanted):
    """Of this class and with these settings; and it moves all of this net's weights, and no others."""
    wanted = wanted(list(net.parameters()))
    assert type(optimizer) is type(wanted)
    group, = optimizer.param_groups
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in net.parameters()]
    assert {k: v for k, v in group.items() if k not in HOW} == \
           {k: v for k, v in wanted.param_groups[0].items() if k not in HOW}


@pytest.mark.parametrize("case", CASES)
def test_main_builds_what_the_document_says(case, built):
    script, flags, G, D, wanted_G, wanted_D, noise = CASES[case]
    if "mnist" in flags:
        write_mnist("data")
    toy = [] if "mnist" in flags else ["--dataset", "toy", "--limit", 200]
    seen = built(script, *toy, *flags)
    for net, name, optimizer, wanted in [(seen.G, G, seen.opt_G, wanted_G), (seen.D, D, seen.opt_D, wanted_D)]:
        assert type(net) is NETS[name][0] and layers_of(net) == layers_of(make(name)[0])
        assert_optimizer(optimizer, net, wanted)
        if script is gan_mnist_mlp:  # PyTorch's own: uniform up to 1/sqrt(inputs), biases too
            for layer in net.modules():
                if isinstance(layer, nn.Linear):
                    bound = layer.in_features ** -0.5
                    assert 0.9 * bound < layer.weight.abs().max() <= bound
                    assert 0 < layer.bias.abs().max() <= bound
        else:
            assert_initialised(net)
    assert seen.fixed_z.shape == noise and 0.9 < seen.fixed_z.std() < 1.1 and abs(seen.fixed_z.mean()) < 0.1
    assert (seen.step, seen.epoch) == (0, 0)
    keywords = dict(seen.generator)  # what the tools build G from
    again = getattr(script, keywords.pop("class"))(**keywords)
    again.load_state_dict(seen.G.state_dict())
    assert layers_of(again) == layers_of(seen.G)


@pytest.mark.parametrize("script, flags, G, D, wanted_G, wanted_D", [
    (gan_mnist_mlp, ["--lr-g", 0.3, "--lr-d", 0.2], gan_mnist_mlp.Generator(), gan_mnist_mlp.Discriminator(),
     sgd(0.3), sgd(0.2)),
    (dcgan_mnist, ["--lr", 0.1, "--ngf", 4, "--ndf", 5], dcgan_mnist.DCGANGenerator(ngf=4),
     dcgan_mnist.DCGANDiscriminator(ndf=5), lambda w: adamw(w, 0.1), lambda w: adamw(w, 0.1)),
    (dcgan_mnist, ["--model", "mlp", "--lr", 0.1, "--ngf", 4, "--ndf", 5], dcgan_mnist.MLPGenerator(ngf=4),
     dcgan_mnist.MLPDiscriminator(ndf=5), lambda w: adamw(w, 0.1), lambda w: adamw(w, 0.1)),
    (dcgan_celeba, ["--lr", 0.002, "--ngf", 4, "--ndf", 5], dcgan_celeba.DCGANGenerator(ngf=4),
     dcgan_celeba.Discriminator(ndf=5), lambda w: adam(w, 0.002), lambda w: adam(w, 0.002)),
    (dcgan_celeba, ["--generator", "vanilla", "--ngf", 4, "--ndf", 5], dcgan_celeba.VanillaGenerator(ngf=4),
     dcgan_celeba.Discriminator(ndf=5), adam, adam),
    (wgan_celeba, ["--lr", 0.1, "--ngf", 4, "--ndf", 5], wgan_celeba.Generator(ngf=4),
     wgan_celeba.Discriminator(ndf=5), lambda w: rmsprop(w, 0.1), lambda w: rmsprop(w, 0.1)),
    (wgan_celeba, ["--loss", "lsgan", "--lr", 0.1, "--ngf", 4, "--upsample", "nearest"],
     wgan_celeba.Generator(ngf=4, upsample="nearest"), wgan_celeba.Discriminator(),
     lambda w: adam(w, 0.1), lambda w: adam(w, 0.1)),
], ids=["zeros", "blog DCGAN", "blog MLP", "lab DCGAN", "lab vanilla", "wgan", "lsgan"])
def test_flags_reach_what_main_builds(script, flags, G, D, wanted_G, wanted_D, built):
    seen = built(script, "--dataset", "toy", "--limit", 200, *flags)
    assert type(seen.G) is type(G) and layers_of(seen.G) == layers_of(G)
    assert type(seen.D) is type(D) and layers_of(seen.D) == layers_of(D)
    assert_optimizer(seen.opt_G, seen.G, wanted_G)
    assert_optimizer(seen.opt_D, seen.D, wanted_D)


# ---------------------------------------------------------------------------------------- precision
@pytest.mark.parametrize("script, flags", [
    (gan_mnist_mlp, []), (dcgan_mnist, ["--ngf", 16]), (dcgan_celeba, ["--ngf", 16]),
    (wgan_celeba, ["--ngf", 16])], ids=lambda value: getattr(value, "__name__", ""))
def test_bf16_computes_in_bfloat16_and_keeps_weights_and_outputs_in_float32(script, flags, built):
    """Without --precision the outputs are those of the bare nets; with bf16 they are off by about one in 2^8."""
    flags = ["--dataset", "toy", "--limit", 200, *flags]
    exact, rough = built(script, *flags), built(script, *flags, "--precision", "bf16")
    torch.manual_seed(0)
    images = torch.rand(8, *exact.images.shape[1:]) * 2 - 1
    for net, other, x in [(exact.G, rough.G, exact.fixed_z[:8]), (exact.D, rough.D, images)]:
        keywords = {k: v for k, v in exact.generator.items() if k != "class"} if net is exact.G else {}
        bare = type(net)(**keywords)
        bare.load_state_dict(net.state_dict())
        with torch.no_grad():
            wanted, fp32, bf16 = bare(x), net(x), other(x)
        assert (fp32 - wanted).abs().max() < 1e-5
        assert bf16.dtype == torch.float32 and all(weight.dtype == torch.float32 for weight in other.parameters())
        assert 1e-4 < (bf16 - wanted).abs().max() < 0.1
        assert other.state_dict().keys() == bare.state_dict().keys(), "a checkpoint of bf16 fits the bare net"


def test_images_of_convolutions_lie_in_memory_as_the_processor_likes_it():
    net = common.prepare(dcgan_celeba.Discriminator(ndf=8), torch.device("cpu"))
    weight = net.layers[2][0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


# --------------------------------------------------------------------------- which images, how many
def test_the_blog_joins_train_and_test_and_the_others_take_train_alone(built):
    """70,000 images and 60,000, here 90 and 60; a limit is the first ones; a class is chosen before the limit."""
    write_mnist("data", count=60)
    write_mnist("data", count=40, kind="FashionMNIST", seed=1)
    both, digits = common.load_mnist("data", "mnist", test=True)
    fashion, _ = common.load_mnist("data", "fashion", test=True)
    small = ["--ngf", 2, "--ndf", 2, "--batch-size", 2]
    for images, (script, *flags) in [
        (both, (dcgan_mnist, *small)), (both[:70], (dcgan_mnist, *small, "--limit", 70)),
        (fashion, (dcgan_mnist, *small, "--dataset", "fashion")),
        (both[:60], (dcgan_celeba, *small, "--dataset", "mnist")),
        (both[:13], (dcgan_celeba, *small, "--dataset", "mnist", "--limit", 13)),
        (both[:60], (gan_mnist_mlp, "--digit", "all")), (both[:40], (gan_mnist_mlp, "--digit", "all", "--limit", 40)),
        (fashion[:40], (gan_mnist_mlp, "--digit", "all", "--dataset", "fashion")),
    ]:
        assert torch.equal(built(script, *flags).images, images), flags
    write_mnist("more", count=200)
    images, labels = common.load_mnist("more", "mnist")
    more = ["--data", "more", "--batch-size", 2]
    assert torch.equal(built(gan_mnist_mlp, *more).images, images[labels == 0]), "zeros, if nothing else is said"
    assert torch.equal(built(gan_mnist_mlp, *more, "--digit", 3).images, images[labels == 3])
    assert torch.equal(built(gan_mnist_mlp, *more, "--digit", 3, "--limit", 15).images, images[labels == 3][:15])


def test_a_limit_takes_the_first_toy_images(built, monkeypatch):
    """All of 300, and then 150."""
    zeros, faces = toy_images.zeros()[:300], toy_images.faces(300)[0]
    monkeypatch.setattr(toy_images, "zeros", lambda: zeros)
    monkeypatch.setattr(toy_images, "faces", lambda count=None: (faces[:count],))
    for script, images in [(gan_mnist_mlp, zeros), (dcgan_mnist, zeros), (dcgan_celeba, faces),
                           (wgan_celeba, faces)]:
        small = [] if script is gan_mnist_mlp else ["--ngf", 2, "--ndf", 2]
        assert torch.equal(built(script, "--dataset", "toy", *small).images, images)
        seen = built(script, "--dataset", "toy", *small, "--limit", 150)
        assert torch.equal(seen.images, images[:150]) and seen.images.dtype == torch.uint8
