"""The two updates of every training script, and the loop that calls them: who learns, from what."""
import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import (
    SCRIPTS,
    checkpoint,
    csv_rows,
    each_script,
    name_of,
    on_gpu,
    same_weights,
    samples_of,
)
from torch import nn

import common
import cuda_graph
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba

# What each game minimises, written in another way than in the scripts: from D's outputs on reals
# and on fakes. "halves" is the zeros' one mean over both, where there are as many of each
LOSSES_OF_D = {
    "halves": lambda real, fake: -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2,
    "minimax": lambda real, fake: -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()),
    "wgan": lambda real, fake: -(real.mean() - fake.mean()),
    "lsgan": lambda real, fake: (real - 1).square().mean() + fake.square().mean(),
}
LOSSES_OF_G = {
    "nonsaturating": lambda fake: -fake.sigmoid().log().mean(),
    "saturating": lambda fake: (1 - fake.sigmoid()).log().mean(),
    "wgan": lambda fake: -fake.mean(),
    "lsgan": lambda fake: (fake - 1).square().mean(),
}
Z, B, L, W = gan_mnist_mlp, dcgan_mnist, dcgan_celeba, wgan_celeba
SMALL, FACE = (1, 28, 28), (3, 64, 64)
# name -> script; G and D; latent_dim; the shape of an image; the losses; what else its steps want
GAMES = {
    "zeros": (Z, Z.Generator, Z.Discriminator, 64, SMALL,
              "halves", "nonsaturating", (), ("nonsaturating",)),
    "zeros saturating": (Z, Z.Generator, Z.Discriminator, 64, SMALL,
                         "halves", "saturating", (), ("saturating",)),
    "blog MLP": (B, B.MLPGenerator, lambda: B.MLPDiscriminator().eval(), 100, SMALL,
                 "halves", "nonsaturating", (), ()),
    "blog DCGAN": (B, lambda: B.DCGANGenerator(ngf=8), lambda: B.DCGANDiscriminator(ndf=8), 128,
                   SMALL, "halves", "nonsaturating", (), ()),
    "lab vanilla": (L, lambda: L.VanillaGenerator(ngf=8), lambda: L.Discriminator(ndf=8), 100, FACE,
                    "minimax", "nonsaturating", (), ()),
    "lab DCGAN": (L, lambda: L.DCGANGenerator(ngf=4), lambda: L.Discriminator(ndf=8), 100, FACE,
                  "minimax", "nonsaturating", (), ()),
    "lab MNIST": (L, lambda: L.VanillaGenerator(ngf=8, size=28),
                  lambda: L.Discriminator(ndf=8, size=28), 100, SMALL,
                  "minimax", "nonsaturating", (), ()),
    **{loss: (W, lambda: W.Generator(ngf=8), lambda: W.Discriminator(ndf=8), 100, FACE,
              loss, "nonsaturating" if loss == "minimax" else loss, (loss,), (loss,))
       for loss in W.DEFAULTS},
}


class Game:
    """A script's nets and steps behind one interface. What D's step returns is made a mean, as in the log."""

    def __init__(self, script, G, D, latent_dim, shape, loss_D, loss_G, more_D, more_G):
        torch.manual_seed(0)
        self.script, self.G, self.D, self.more_D, self.more_G = script, G(), D(), more_D, more_G
        self.loss_D, self.loss_G = LOSSES_OF_D[loss_D], LOSSES_OF_G[loss_G]
        self.real, self.z = torch.rand(8, *shape), torch.randn(8, latent_dim)
        self.set_rate(0.01)

    def set_rate(self, rate):
        self.opt_G, self.opt_D = (torch.optim.SGD(net.parameters(), rate) for net in (self.G, self.D))

    def step_D(self):
        fake = self.G(self.z).detach()
        return self.script.step_D(self.D, self.opt_D, self.real, fake, *self.more_D)

    def step_G(self):
        return self.script.step_G(self.G, self.D, self.opt_G, self.G(self.z), *self.more_G)


@pytest.fixture(params=GAMES)
def game(request):
    return Game(*GAMES[request.param])


def parameters(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def gradients(net):
    return {name: weight.grad.clone() for name, weight in net.named_parameters()}


# -------------------------------------------------------------------------------------- the updates
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


def test_gradients_do_not_add_up_from_step_to_step(game):
    game.set_rate(0.0)
    for step, net in [(game.step_D, game.D), (game.step_G, game.G)]:
        step()
        once = gradients(net)
        step()
        assert same_weights(once, gradients(net)) and any(value.any() for value in once.values())


def test_one_D_step_tells_the_same_images_apart_better(game):
    gap = game.D(game.real).mean() - game.D(game.G(game.z)).mean()
    game.step_D()
    assert game.D(game.real).mean() - game.D(game.G(game.z)).mean() > gap


def test_one_G_step_raises_D_of_the_same_noise(game):
    before = game.D(game.G(game.z)).mean()
    game.step_G()
    assert game.D(game.G(game.z)).mean() > before


class Brightness(nn.Module):
    """A D whose answers are known: an image's mean, times `scale`, plus `shift`. It notes what it is
    shown."""

    def __init__(self, scale, shift):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.shift = nn.Parameter(torch.tensor(shift))
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return self.scale * x.flatten(1).mean(1) + self.shift


@pytest.mark.parametrize("scale, shift", [(3.0, 0.5), (-2.0, 1.0), (0.0, -3.0)])
def test_losses_and_logged_means_are_those_of_the_formulas(game, scale, shift):
    """The reals' answers lie apart from the fakes', so that a mix-up of the two, or of their labels,
    shows."""
    game.D = Brightness(scale, shift)
    game.set_rate(0.0)
    fake = game.G(game.z).detach()
    real_out, fake_out = game.D(game.real).detach(), game.D(fake).detach()
    loss_D, d_real, d_fake = game.step_D()
    wanted = game.loss_D(real_out, fake_out).item()
    assert loss_D.item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    loss_G = game.step_G()
    assert loss_G.item() == pytest.approx(game.loss_G(fake_out).item(), rel=1e-4, abs=1e-6)
    if game.script is wgan_celeba:  # which means the loop takes
        assert d_real.shape == d_fake.shape == (8,)
        d_real, d_fake = (wgan_celeba.mean_for_log(game.more_D[0], out) for out in (d_real, d_fake))
    if game.more_D not in (("wgan",), ("lsgan",)):
        real_out, fake_out = real_out.sigmoid(), fake_out.sigmoid()
    wanted = (real_out.mean().item(), fake_out.mean().item())
    assert (d_real.item(), d_fake.item()) == pytest.approx(wanted, rel=1e-4)
    kept = [loss_D, loss_G, d_real, d_fake]
    assert not any(value.requires_grad for value in kept), "a graph kept in the log eats memory"


def test_D_sees_reals_and_fakes_apart_but_in_the_report_on_zeros(game):
    """Mixed into one batch, BatchNorm would give the answer away; the report has one batch, and no
    BatchNorm."""
    game.D = Brightness(1.0, 0.0)
    game.set_rate(0.0)
    game.step_D()
    fake = game.G(game.z).detach()
    shown = game.D.seen
    if game.script is gan_mnist_mlp:
        assert len(shown) == 1 and torch.equal(shown[0], torch.cat([game.real, fake]))
    else:
        assert len(shown) == 2 and torch.equal(shown[0], game.real) and torch.equal(shown[1], fake)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_D_gives_one_number_an_image_or_an_error(game, size):
    """Of a larger image the last convolution makes many numbers, whose mean would train in silence:
    128 x 128 is the size that is asked for most."""
    channels, height = game.real.shape[1:3]
    try:
        out = game.D(torch.zeros(2, channels, size, size))
    except RuntimeError:
        assert size != height
    else:
        assert out.shape == (2,)


@pytest.mark.parametrize("size", [32, 128])
def test_reals_of_another_size_than_the_fakes_are_an_error(game, size):
    game.D = Brightness(1.0, 0.0)  # which takes any size
    game.set_rate(0.0)
    game.real = torch.zeros(8, game.real.shape[1], size, size)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        game.step_D()


# ----------------------------------------------------------------------------------------- the loop
@pytest.fixture
def play(monkeypatch):
    """Run a script and note every update, the noise that G was given, and the modes of both nets."""
    def run(script, *flags):
        seen = SimpleNamespace(updates=[], noise=[], pictures=[])
        open_run, save_samples = common.open_run, common.save_samples
        real_step_D, real_step_G = script.step_D, script.step_G

        def note_noise(net, z):
            if net.training:
                seen.noise.append(z[0].clone())

        def watch(args, device, G, D):
            seen.G, seen.D = G, D
            G.register_forward_pre_hook(note_noise)
            return open_run(args, device, G, D)

        def note_images(images, args):
            seen.images = images
            return check_images(images, args)

        def step_D(D, opt_D, real, fake, *more):
            assert D is seen.D and D.training and seen.G.training, "eval is for pictures only"
            if script is dcgan_mnist and isinstance(D, dcgan_mnist.MLPDiscriminator):
                wanted = None  # Dropout: other outputs at every call
            else:
                with torch.no_grad():
                    wanted = D(real), D(fake)
            result = real_step_D(D, opt_D, real, fake, *more)
            seen.updates.append(SimpleNamespace(
                who="D", real=real.clone(), fake=fake.detach().clone(), outputs=wanted,
                graph=fake.requires_grad, result=result, D=parameters(D), G=parameters(seen.G),
                largest=max(weight.abs().max().item() for weight in D.parameters())))
            return result

        def step_G(G, D, opt_G, fake, *more):
            assert G is seen.G and D is seen.D and D.training and G.training
            used = parameters(D)
            with torch.no_grad():
                outputs = D(fake)
            result = real_step_G(G, D, opt_G, fake, *more)
            seen.updates.append(SimpleNamespace(
                who="G", fake=fake.detach().clone(), graph=fake.requires_grad, outputs=outputs,
                result=result, D=used))
            return result

        def note_picture(path, G, fixed_z):
            seen.pictures.append((path.name, fixed_z.clone()))
            save_samples(path, G, fixed_z)

        check_images = common.check_images
        with monkeypatch.context() as patch:
            patch.setattr(common, "open_run", watch)
            patch.setattr(common, "check_images", note_images)
            patch.setattr(common, "save_samples", note_picture)
            patch.setattr(script, "step_D", step_D)
            patch.setattr(script, "step_G", step_G)
            script.main([*SCRIPTS[script], *map(str, flags), "--out", "played"])
        header, rows = csv_rows("played/losses.csv")
        seen.table = [dict(zip(header, row)) for row in rows]
        seen.order = "".join(update.who for update in seen.updates)
        return seen
    return run


def of(seen, who):
    return [update for update in seen.updates if update.who == who]


def near(value):
    return pytest.approx(value, rel=1e-3, abs=1e-5)


# a short epoch in which every update of D is followed by one of G
FLAGS = {gan_mnist_mlp: ["--limit", 320], wgan_celeba: ["--loss", "minimax"]}


@each_script
def test_every_step_improves_D_first_on_fresh_reals_and_then_G(script, play):
    seen = play(script, *FLAGS.get(script, []), "--epochs", 1)
    count = len(seen.images) // len(of(seen, "D")[0].real)
    assert seen.order == "DG" * count
    for d, g in zip(of(seen, "D"), of(seen, "G")):
        assert same_weights(d.D, g.D), "G's update meets the D that has just been improved"
        assert not d.graph and g.graph, "D's update must not reach G; G's must"
        assert len(d.fake) == len(d.real) == len(g.fake)
    reals = common.to_float(seen.images)
    drawn = [image for d in of(seen, "D") for image in d.real]
    numbers = [(reals == image).flatten(1).all(1).nonzero().flatten() for image in drawn]
    assert all(len(number) for number in numbers), "reals are images of the data, in [-1, 1]"
    assert len({number[0].item() for number in numbers}) == len(drawn), "none is drawn twice in an epoch"


@each_script
def test_noise_is_normal_and_fresh_where_the_document_draws_fresh_noise(script, play):
    """The zeros' report and the assignment draw new noise for G's update; the blog and the lab use
    D's fakes again."""
    seen = play(script, *FLAGS.get(script, []), "--epochs", 1)
    reuses = script in (dcgan_mnist, dcgan_celeba)
    steps = len(of(seen, "D"))
    assert len(seen.noise) == (steps if reuses else 2 * steps)
    for d, g in zip(of(seen, "D"), of(seen, "G")):
        assert torch.equal(d.fake, g.fake) == reuses
    noise = torch.cat(seen.noise)
    assert len(noise.unique(dim=0)) == len(noise), "no z comes twice"
    assert abs(noise.mean()) < 0.1 and noise.std().item() == pytest.approx(1, abs=0.1)
    assert noise.square().square().mean().item() == pytest.approx(3, abs=0.5), "normal"
    names, zs = zip(*seen.pictures)
    assert names[0] == "step_000000.png" and names[-1] == f"step_{steps:06d}.png"
    assert all(torch.equal(z, zs[0]) for z in zs), "the pictures' noise is fixed"
    assert not any(torch.equal(row, z) for row in noise for z in zs[0][:8])


@pytest.mark.parametrize("script, flags, loss_D, loss_G", [
    (Z, ["--limit", 160], "halves", "nonsaturating"),
    (Z, ["--limit", 160, "--g-loss", "saturating"], "halves", "saturating"),
    (B, [], "halves", "nonsaturating"), (B, ["--model", "mlp"], "halves", "nonsaturating"),
    (L, [], "minimax", "nonsaturating"), (L, ["--generator", "vanilla"], "minimax", "nonsaturating"),
    (W, [], "wgan", "wgan"),
    (W, ["--loss", "minimax", "--limit", 16], "minimax", "nonsaturating"),
    (W, ["--loss", "lsgan", "--upsample", "nearest", "--limit", 16], "lsgan", "lsgan"),
], ids=["zeros", "saturating", "blog DCGAN", "blog MLP", "lab DCGAN", "lab vanilla", "wgan",
        "minimax", "lsgan"])
def test_the_loop_minimises_what_was_asked_for_and_logs_it(script, flags, loss_D, loss_G, play):
    if "--limit" not in flags and script is not W:
        flags = [*flags, "--limit", 32]
    seen = play(script, *flags, "--epochs", 2)
    g_step, waiting = 0, iter(seen.updates)
    columns = ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake"]
    assert list(seen.table[0]) == columns + (["g_step", "w_estimate"] if script is W else [])

    def mean(out):
        if loss_D not in ("wgan", "lsgan"):
            out = out.sigmoid()
        return out.mean().item()

    update = next(waiting)
    for number, row in enumerate(seen.table):
        epoch = 1 + number // (len(seen.table) // 2)
        assert (row["step"], row["epoch"]) == (number + 1, epoch)
        d, update = update, next(waiting, None)
        assert d.who == "D" and row["loss_d"] == near(d.result[0].item())
        if d.outputs:
            real, fake = d.outputs
            assert row["loss_d"] == near(LOSSES_OF_D[loss_D](real, fake).item())
            assert (row["d_real"], row["d_fake"]) == near((mean(real), mean(fake)))
        if update and update.who == "G":
            g_step += 1
            assert row["loss_g"] == near(update.result.item())
            if d.outputs:
                assert row["loss_g"] == near(LOSSES_OF_G[loss_G](update.outputs).item())
            update = next(waiting, None)
        else:
            assert row["loss_g"] == near(LOSSES_OF_G[loss_G](fake).item()), "G waits: on D's fakes"
        if script is W:
            assert row["g_step"] == g_step
            assert row["w_estimate"] == near((real.mean() - fake.mean()).item())
    assert update is None


def test_the_first_losses_are_those_of_a_D_that_knows_nothing(straight):
    for script, halves in [(gan_mnist_mlp, 1), (dcgan_mnist, 1), (dcgan_celeba, 2)]:
        header, rows = csv_rows(straight(script)[0] / "losses.csv")
        first = dict(zip(header, rows[0]))
        assert first["loss_d"] == pytest.approx(halves * math.log(2), rel=0.25), script


# ------------------------------------------------------------------ the loop with flags of the WGAN
@pytest.mark.parametrize("loss", ["minimax", "lsgan"])
def test_n_critic_is_the_number_of_D_updates_for_each_of_G(loss, play):
    assert play(wgan_celeba, "--loss", loss, "--n-critic", 3, "--epochs", 1).order == "DDDG" * 5 + "D"


@pytest.mark.parametrize("flags, bound", [([], 0.01), (["--clip", 0.02], 0.02), (["--clip", 0], None)])
def test_the_clip_binds_the_critic_at_every_update(flags, bound, play):
    largest = [update.largest for update in of(play(wgan_celeba, *flags, "--limit", 16, "--epochs", 1), "D")]
    if bound:  # BatchNorm's scales begin near 1
        assert all(value == pytest.approx(bound, rel=1e-5) for value in largest)
    else:
        assert min(largest) > 0.9, "--clip 0 does not clip"


@pytest.mark.parametrize("loss", ["minimax", "lsgan"])
def test_only_the_critic_is_clipped(loss, play):
    seen = play(wgan_celeba, "--loss", loss, "--limit", 16, "--epochs", 1)
    assert min(update.largest for update in of(seen, "D")) > 0.9


def test_the_WGANs_loop_follows_the_schedule(monkeypatch):
    """20 critic updates for each of G's first 50, then --n-critic, but 20 for the 500th: from a run
    set to G's 49th."""
    wgan_celeba.main([*SCRIPTS[wgan_celeba], "--n-critic", "3", "--epochs", "1", "--out", "run"])
    saved = checkpoint("run")
    assert (saved["g_step"], saved["d_steps"]) == (0, 16)
    step_D, step_G, orders = wgan_celeba.step_D, wgan_celeba.step_G, []

    def note_D(*inputs):
        order.append("D")
        return step_D(*inputs)

    def note_G(*inputs):
        order.append("G")
        return step_G(*inputs)

    monkeypatch.setattr(wgan_celeba, "step_D", note_D)
    monkeypatch.setattr(wgan_celeba, "step_G", note_G)
    for g_step in (48, 498):
        torch.save({**saved, "g_step": g_step, "d_steps": 0}, "run/checkpoint.pt")
        order = []
        wgan_celeba.main(["--resume", "run", "--epochs", "4"])
        orders.append("".join(order))
    twenty = "D" * 20 + "G"
    assert orders[0] == twenty * 2 + "DDDG" * 2 + "DD", "carried on over the ends of two epochs of 16"
    assert orders[1] == "DDDG" + twenty + "DDDG" * 8 + "D"


# -------------------------------------------------------------------------------------- minibatches
def test_minibatches_visit_an_image_once_an_epoch_and_drop_an_incomplete_last_one():
    images = torch.zeros(50, 1, 2, 2, dtype=torch.uint8)
    orders = [common.shuffled_batches(images, 8) for _ in range(200)]
    for order in orders:
        assert order.shape == (6, 8), "50 images are six batches of 8"
        assert len(order.unique()) == 48 and 0 <= order.min() and order.max() < 50
    assert len({tuple(order.flatten().tolist()) for order in orders}) == 200, "always another order"
    # of the images' numbers, for each of the six: 24.5, with a deviation of 0.4
    means = torch.stack(orders).double().mean(dim=(0, 2))
    assert (means - 24.5).abs().max() < 3, "every minibatch is drawn from all of the images"
    assert len(common.shuffled_batches(images, 50)) == 1, "as many as fit, also when all are used"


# ------------------------------------------------------------------------------------- a CUDA graph
@pytest.fixture
def pretended_graph(monkeypatch):
    """A stand-in for CUDA's graph: recording runs the function, and replay the function that a test
    gives as `graph.replay`. `marks`: in which order torch.cuda was asked for what."""
    graph = SimpleNamespace(replay=None, marks=[])

    @contextlib.contextmanager
    def recording(_):
        graph.marks.append("record")
        yield

    class Graph:
        def replay(self):
            graph.marks.append("replay")
            graph.replay()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "stream", lambda *inputs: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "set_device", graph.marks.append)
    return graph


@pytest.mark.parametrize("one", [False, True], ids=["a tuple", "a number"])
def test_a_recorded_step_gets_its_own_reals_and_gives_numbers_that_stay(one, pretended_graph):
    """The graph computes from the memory that was recorded, into the memory that was recorded."""
    memory, marks = {}, []
    adam = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    sgd = torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)

    def step(real, labels):
        marks.append(adam.param_groups[0]["capturable"])
        assert "capturable" not in sgd.param_groups[0], "it would be in the checkpoint"
        memory.update(real=real, labels=labels, sum=real.sum() + labels.sum())
        if len(marks) == 4:
            memory["sum"].fill_(math.nan)  # while it is recorded nothing is computed
        return memory["sum"] if one else (memory["sum"], real.mean())

    def replay():
        memory["sum"].copy_(memory["real"].sum() + memory["labels"].sum())

    pretended_graph.replay = replay
    reals, labels = ([torch.full((2, 3), k * i) for i in range(8)] for k in (1.0, 10.0))
    recorded = cuda_graph.recorded(step, torch.device("cuda"), [adam, sgd])
    results = [recorded(*batch) for batch in zip(reals, labels)]
    sums = results if one else [result[0] for result in results]
    assert [value.item() for value in sums] == [66.0 * i for i in range(8)]
    assert [real[0, 0].item() for real in reals] == list(range(8)), "the minibatches are left alone"
    assert marks == [False, False, False, True] and adam.param_groups[0]["capturable"] is False
    assert "capturable" not in sgd.param_groups[0]
    assert pretended_graph.marks == ["record"] + ["replay"] * 5


def test_a_step_without_inputs_can_be_recorded(pretended_graph):
    """As train_G of the zeros and of the WGAN."""
    count = torch.zeros(())
    pretended_graph.replay = lambda: count.add_(1)

    def step():
        count.add_(1)
        return count

    recorded = cuda_graph.recorded(step, torch.device("cuda", 1), [])
    values = [recorded() for _ in range(7)]
    assert pretended_graph.marks[0] == torch.device("cuda", 1), "graphs are made on the current one"
    assert values[-1] - values[-2] == values[-2] - values[-3] == 1


def test_a_changed_learning_rate_is_an_error_and_not_the_old_one_in_silence(pretended_graph):
    optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1) for _ in range(2)]
    pretended_graph.replay = lambda: None
    recorded = cuda_graph.recorded(lambda: torch.ones(1), torch.device("cuda"), optimizers)
    for _ in range(6):
        recorded()
    optimizers[1].param_groups[0]["lr"] /= 2
    with pytest.raises(ValueError, match="0.05"):
        recorded()


@each_script
def test_without_CUDA_the_flag_changes_nothing(script, straight, monkeypatch):
    """As where a run that began on a GPU goes on, on a laptop."""
    recorded, told = cuda_graph.recorded, []

    def note(function, device, optimizers):
        told.extend(optimizers)
        return recorded(function, device, optimizers)

    monkeypatch.setattr(cuda_graph, "recorded", note)
    script.main([*SCRIPTS[script], "--epochs", "1", "--out", "run", "--cuda-graph"])
    assert len(set(map(id, told))) == 2, "both optimizers are recorded"
    script.main(["--resume", "run", "--epochs", "2"])
    header, rows = csv_rows("run/losses.csv")
    wanted_header, wanted = csv_rows(straight(script)[0] / "losses.csv")
    assert header == wanted_header and rows == wanted[:len(wanted) * 2 // 3]
    assert checkpoint("run")["args"]["cuda_graph"] is True


# ----------------------------------------------------------------------------------- steps on a GPU
@on_gpu
@pytest.mark.parametrize("script, flags", [
    (gan_mnist_mlp, ""), (gan_mnist_mlp, "--g-loss saturating --precision bf16"),
    (dcgan_mnist, "--model mlp"), (dcgan_mnist, "--model mlp --precision bf16"), (dcgan_mnist, ""),
    (dcgan_celeba, ""), (dcgan_celeba, "--generator vanilla --precision bf16"),
    (wgan_celeba, "--clip 0"), (wgan_celeba, "--loss minimax --precision bf16"),
    (wgan_celeba, "--loss lsgan --upsample nearest"),
], ids=name_of)
def test_a_CUDA_graph_changes_no_number(script, flags):
    """Not even in a resumed run, nor where that goes on on a CPU. (Convolutions may use other
    kernels in another run.)"""
    exact = script is gan_mnist_mlp or "mlp" in flags
    flags = [*SCRIPTS[script], *flags.split(), "--limit", "640", "--batch-size", "16",
             "--device", "cuda", "--epochs"]
    script.main([*flags, "3", "--out", "played"])
    script.main([*flags, "3", "--out", "replayed", "--cuda-graph"])
    script.main([*flags, "1", "--out", "resumed", "--cuda-graph"])
    script.main(["--resume", "resumed", "--epochs", "2"])
    script.main(["--resume", "resumed", "--epochs", "3"])
    _, played = csv_rows("played/losses.csv")
    for run in ("replayed", "resumed"):
        _, rows = csv_rows(f"{run}/losses.csv")
        assert len(rows) == 3 * 640 // 16 and (rows == played or not exact)
        first, other = ([row[2] for row in table[:10]] for table in (played, rows))
        assert other == pytest.approx(first, abs=0.05), "loss_d of the first ten steps"
    saved = checkpoint("replayed")
    if script is gan_mnist_mlp:
        assert "capturable" not in saved["opt_D"]["param_groups"][0]
    else:  # the graphs count the updates, too
        assert saved["opt_D"]["state"][0]["step"] == saved["step"]
        assert saved["opt_G"]["state"][0]["step"] == saved.get("g_step", saved["step"])
    script.main(["--resume", "resumed", "--epochs", "4", "--device", "cpu"])
    assert samples_of("resumed") and checkpoint("resumed")["epoch"] == 4


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("script, flags", [
    (gan_mnist_mlp, ""), (gan_mnist_mlp, "--g-loss saturating"), (dcgan_mnist, "--precision bf16"),
    (dcgan_mnist, "--model mlp"), (dcgan_celeba, ""),
    (dcgan_celeba, "--generator vanilla --precision bf16"), (wgan_celeba, ""),
    (wgan_celeba, "--loss minimax --precision bf16"),
    (wgan_celeba, "--loss lsgan --upsample bilinear"), (wgan_celeba, "--clip 0 --upsample nearest"),
], ids=name_of)
def test_no_step_waits_for_the_GPU(script, flags, monkeypatch):
    """All but the last of an epoch, after which the rows are written."""
    shuffled_batches = common.shuffled_batches

    class Strict:
        def __init__(self, *inputs):
            self.batches = list(shuffled_batches(*inputs))

        def __len__(self):
            return len(self.batches)

        def __iter__(self):
            *batches, last = self.batches
            torch.cuda.set_sync_debug_mode("error")
            try:
                yield from batches
            finally:
                torch.cuda.set_sync_debug_mode("default")
            yield last

    monkeypatch.setattr(common, "shuffled_batches", Strict)
    flags = [*flags.split(), "--epochs", "2", "--device", "cuda", "--sample-every", "0"]
    script.main([*SCRIPTS[script], *flags])


@on_gpu
def test_images_are_held_on_the_GPU_where_they_fit_and_the_order_is_the_CPUs():
    images, device = torch.zeros(64, 1, 28, 28, dtype=torch.uint8), torch.device("cuda")
    assert common.to_device_if_it_fits(images, device).device.type == "cuda"
    half = torch.cuda.mem_get_info(device)[0] // 2
    # takes one byte; nbytes counts them all
    huge = torch.empty(1, dtype=torch.uint8).expand(half + 2**28)
    assert common.to_device_if_it_fits(huge, device).device.type == "cpu"
    torch.manual_seed(0)
    on_gpu = common.shuffled_batches(images.to(device), 16)
    torch.manual_seed(0)
    on_cpu = common.shuffled_batches(images, 16)
    assert on_gpu.device.type == "cuda" and torch.equal(on_gpu.cpu(), on_cpu)


@on_gpu
def test_fp32_is_TF32_on_a_GPU_and_only_training_tries_out_kernels():
    for training in (False, True):
        common.pick_device(None, training)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.benchmark == training
