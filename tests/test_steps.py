"""The two updates of every training script, and the loop that calls them: who moves, on what, with which flags."""
import contextlib
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import SCRIPTS, checkpoint, csv_rows, each_script, on_gpu, same_weights
from torch import nn
from torch.nn import functional as F

import common
import cuda_graph
import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba

# What each game minimises, written in another way than in the scripts: from D's outputs on reals and on fakes.
# "halves" is the zeros' one mean over both, where there are as many fakes as reals
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
# name -> script; G and D; latent_dim; the shape of an image; the losses; what else the script's steps want
GAMES = {
    "zeros": (Z, Z.Generator, Z.Discriminator, 64, SMALL, "halves", "nonsaturating", (), ("nonsaturating",)),
    "zeros saturating": (Z, Z.Generator, Z.Discriminator, 64, SMALL, "halves", "saturating", (), ("saturating",)),
    "blog MLP": (B, B.MLPGenerator, lambda: B.MLPDiscriminator().eval(), 100, SMALL, "halves", "nonsaturating", (), ()),
    "blog DCGAN": (B, lambda: B.DCGANGenerator(ngf=8), lambda: B.DCGANDiscriminator(ndf=8), 128, SMALL,
                   "halves", "nonsaturating", (), ()),
    "lab vanilla": (L, lambda: L.VanillaGenerator(ngf=8), lambda: L.Discriminator(ndf=8), 100, FACE,
                    "minimax", "nonsaturating", (), ()),
    "lab DCGAN": (L, lambda: L.DCGANGenerator(ngf=4), lambda: L.Discriminator(ndf=8), 100, FACE,
                  "minimax", "nonsaturating", (), ()),
    "lab MNIST": (L, lambda: L.VanillaGenerator(ngf=8, size=28), lambda: L.Discriminator(ndf=8, size=28), 100, SMALL,
                  "minimax", "nonsaturating", (), ()),
    **{loss: (W, lambda: W.Generator(ngf=8), lambda: W.Discriminator(ndf=8), 100, FACE,
              loss, "nonsaturating" if loss == "minimax" else loss, (loss,), (loss,)) for loss in W.DEFAULTS},
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
        return self.script.step_D(self.D, self.opt_D, self.real, self.G(self.z).detach(), *self.more_D)

    def step_G(self):
        return self.script.step_G(self.G, self.D, self.opt_G, self.G(self.z), *self.more_G)


@pytest.fixture(params=GAMES)
def game(request):
    return Game(*GAMES[request.param])


def parameters(net):
    return {name: weight.detach().clone() for name, weight in net.named_parameters()}


def gradients(net):
    return {name: weight.grad.clone() for name, weight in net.named_parameters()}


# ---------------------------------------------------------------------------------------------------------- the updates
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
    """A D whose answers are known: an image's mean, times `scale`, plus `shift`. It notes what it is shown."""

    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(scale)), nn.Parameter(torch.tensor(shift))
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return self.scale * x.flatten(1).mean(1) + self.shift


@pytest.mark.parametrize("scale, shift", [(3.0, 0.5), (-2.0, 1.0), (0.0, -3.0)])
def test_losses_and_logged_means_are_those_of_the_formulas(game, scale, shift):
    """The reals' answers lie apart from the fakes', so that a mix-up of the two, or of their labels, shows."""
    game.D = Brightness(scale, shift)
    game.set_rate(0.0)
    fake = game.G(game.z).detach()
    real_out, fake_out = game.D(game.real).detach(), game.D(fake).detach()
    loss_D, d_real, d_fake = game.step_D()
    assert loss_D.item() == pytest.approx(game.loss_D(real_out, fake_out).item(), rel=1e-4, abs=1e-6)
    loss_G = game.step_G()
    assert loss_G.item() == pytest.approx(game.loss_G(fake_out).item(), rel=1e-4, abs=1e-6)
    if game.script is wgan_celeba:  # which means the loop takes
        assert d_real.shape == d_fake.shape == (8,)
        d_real, d_fake = (wgan_celeba.mean_of(game.more_D[0], out) for out in (d_real, d_fake))
    logged = (lambda out: out.mean()) if game.more_D in (("wgan",), ("lsgan",)) else lambda out: out.sigmoid().mean()
    assert (d_real.item(), d_fake.item()) == pytest.approx((logged(real_out).item(), logged(fake_out).item()), rel=1e-4)
    kept = [loss_D, loss_G, d_real, d_fake]
    assert not any(value.requires_grad for value in kept), "a graph kept in the log eats memory"


def test_D_sees_reals_and_fakes_apart_but_in_the_report_on_zeros(game):
    """Mixed into one batch, BatchNorm would give the answer away; the report has one batch, and no BatchNorm."""
    game.D = Brightness(1.0, 0.0)
    game.set_rate(0.0)
    game.step_D()
    fake = game.G(game.z).detach()
    shown = game.D.seen
    if game.script is gan_mnist_mlp:
        assert len(shown) == 1 and torch.equal(shown[0], torch.cat([game.real, fake]))
    else:
        assert len(shown) == 2 and torch.equal(shown[0], game.real) and torch.equal(shown[1], fake)


# ------------------------------------------------------------------------------------------------------------- the loop
@pytest.fixture
def play(monkeypatch):
    """Run a script and note every update, the noise that G was given, and the modes of both nets."""
    def run(script, *flags):
        seen = SimpleNamespace(updates=[], noise=[], pictures=[])
        open_run, save_samples, steps = common.open_run, script.save_samples, (script.step_D, script.step_G)

        def watch(args, device, images, G, D):
            seen.G, seen.D, seen.images = G, D, images
            G.register_forward_pre_hook(lambda net, z: seen.noise.append(z[0].clone()) if net.training else None)
            return open_run(args, device, images, G, D)

        def step_D(D, opt_D, real, fake, *more):
            assert D is seen.D and D.training and seen.G.training, "eval is for pictures only"
            if script is dcgan_mnist and isinstance(D, dcgan_mnist.MLPDiscriminator):
                wanted = None  # Dropout: other outputs at every call
            else:
                with torch.no_grad():
                    wanted = D(real), D(fake)
            result = steps[0](D, opt_D, real, fake, *more)
            largest = max(weight.abs().max().item() for weight in D.parameters())
            seen.updates.append(SimpleNamespace(who="D", real=real.clone(), fake=fake.detach().clone(), outputs=wanted,
                                                graph=fake.requires_grad, result=result, largest=largest,
                                                D=parameters(D), G=parameters(seen.G)))
            return result

        def step_G(G, D, opt_G, fake, *more):
            assert G is seen.G and D is seen.D and D.training and G.training
            used = parameters(D)
            with torch.no_grad():
                outputs = D(fake)
            result = steps[1](G, D, opt_G, fake, *more)
            seen.updates.append(SimpleNamespace(who="G", fake=fake.detach().clone(), graph=fake.requires_grad,
                                                outputs=outputs, result=result, D=used))
            return result

        def note(path, G, fixed_z):
            seen.pictures.append((path.name, fixed_z.clone()))
            save_samples(path, G, fixed_z)

        with monkeypatch.context() as patch:
            patch.setattr(common, "open_run", watch)
            patch.setattr(common, "draw_run", lambda out: None)
            for name, spy in [("step_D", step_D), ("step_G", step_G), ("save_samples", note)]:
                patch.setattr(script, name, spy)
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


@each_script
def test_every_step_improves_D_first_on_fresh_reals_and_then_G(script, play):
    seen = play(script, *(["--loss", "minimax"] if script is wgan_celeba else []), "--epochs", 1)
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
    """The zeros' report and the assignment draw new noise for G's update; the blog and the lab use D's fakes again."""
    seen = play(script, *(["--loss", "minimax"] if script is wgan_celeba else []), "--epochs", 1)
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
    assert names == ("step_000000.png", f"step_{steps:06d}.png")
    assert all(torch.equal(z, zs[0]) for z in zs), "the pictures' noise is fixed"
    assert not any(torch.equal(row, z) for row in noise for z in zs[0][:8])


@pytest.mark.parametrize("script, flags, loss_D, loss_G", [
    (Z, ["--limit", 320], "halves", "nonsaturating"),
    (Z, ["--limit", 320, "--g-loss", "saturating"], "halves", "saturating"),
    (B, [], "halves", "nonsaturating"), (B, ["--model", "mlp"], "halves", "nonsaturating"),
    (L, [], "minimax", "nonsaturating"), (L, ["--generator", "vanilla"], "minimax", "nonsaturating"),
    (W, [], "wgan", "wgan"), (W, ["--loss", "minimax"], "minimax", "nonsaturating"),
    (W, ["--loss", "lsgan", "--upsample", "nearest"], "lsgan", "lsgan")],
    ids=["zeros", "saturating", "blog DCGAN", "blog MLP", "lab DCGAN", "lab vanilla", "wgan", "minimax", "lsgan"])
def test_the_loop_minimises_what_was_asked_for_and_logs_it(script, flags, loss_D, loss_G, play):
    seen = play(script, *flags, "--epochs", 2)
    g_step, waiting = 0, iter(seen.updates)
    columns = ["step", "epoch", "loss_d", "loss_g", "d_real", "d_fake"]
    assert list(seen.table[0]) == columns + (["g_step", "w_estimate"] if script is W else [])
    mean = (lambda out: out.mean().item()) if loss_D in ("wgan", "lsgan") else lambda out: out.sigmoid().mean().item()
    update = next(waiting)
    for number, row in enumerate(seen.table):
        assert (row["step"], row["epoch"]) == (number + 1, 1 + number // (len(seen.table) // 2))
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
            assert row["loss_g"] == near(LOSSES_OF_G[loss_G](fake).item()), "G waits: its loss on D's fakes"
        if script is W:
            assert row["g_step"] == g_step and row["w_estimate"] == near((real.mean() - fake.mean()).item())
    assert update is None


def test_the_first_losses_are_those_of_a_D_that_knows_nothing(straight):
    for script, halves in [(gan_mnist_mlp, 1), (dcgan_mnist, 1), (dcgan_celeba, 2)]:
        header, rows = csv_rows(straight(script)[0] / "losses.csv")
        first = dict(zip(header, rows[0]))
        assert first["loss_d"] == pytest.approx(halves * math.log(2), rel=0.25), script


# -------------------------------------------------------------------------------------- the loop with flags of the WGAN
@pytest.mark.parametrize("loss", ["minimax", "lsgan"])
def test_n_critic_is_the_number_of_D_updates_for_each_of_G(loss, play):
    assert play(wgan_celeba, "--loss", loss, "--n-critic", 3, "--epochs", 1).order == "DDDG" * 5 + "D"


@pytest.mark.parametrize("flags, bound", [([], 0.01), (["--clip", 0.02], 0.02), (["--clip", 0], None)])
def test_the_clip_binds_the_critic_at_every_update(flags, bound, play):
    largest = [update.largest for update in of(play(wgan_celeba, *flags, "--epochs", 1), "D")]
    if bound:
        assert all(value == pytest.approx(bound, rel=1e-5) for value in largest), "BatchNorm's scales begin near 1"
    else:
        assert min(largest) > 0.9, "--clip 0 does not clip"


@pytest.mark.parametrize("loss", ["minimax", "lsgan"])
def test_only_the_critic_is_clipped(loss, play):
    assert min(update.largest for update in of(play(wgan_celeba, "--loss", loss, "--epochs", 1), "D")) > 0.9


def test_the_WGANs_rounds_follow_the_schedule_in_the_loop(play):
    """20 critic updates for each of G's first 50, then --n-critic, but 20 for the 500th: from a run set to G's 49th."""
    wgan_celeba.main([*SCRIPTS[wgan_celeba], "--n-critic", "3", "--epochs", "1", "--out", "run"])
    saved = checkpoint("run")
    assert (saved["g_step"], saved["d_steps"]) == (0, 16)
    orders = []
    for g_step in (48, 498):
        torch.save({**saved, "g_step": g_step, "d_steps": 0}, "run/checkpoint.pt")
        with pytest.MonkeyPatch.context() as patch:
            order = []
            step_D, step_G = wgan_celeba.step_D, wgan_celeba.step_G
            patch.setattr(wgan_celeba, "step_D", lambda *inputs: order.append("D") or step_D(*inputs))
            patch.setattr(wgan_celeba, "step_G", lambda *inputs: order.append("G") or step_G(*inputs))
            patch.setattr(common, "draw_run", lambda out: None)
            wgan_celeba.main(["--resume", "run", "--epochs", "4"])
        orders.append("".join(order))
    fifty = "D" * 20 + "G"
    assert orders[0] == fifty * 2 + "DDDG" * 2 + "DD", "carried on over the ends of two epochs of 16"
    assert orders[1] == "DDDG" + fifty + "DDDG" * 8 + "D"


# -------------------------------------------------------------------------------------------------------- a CUDA graph
def test_a_recorded_round_gets_its_own_reals_and_gives_numbers_that_stay(monkeypatch):
    """With a stand-in for the graph, which computes from the memory that was recorded, into the memory that was recorded."""
    memory, marks = {}, []
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])

    def play(real, labels):
        marks.append(optimizer.param_groups[0]["capturable"])
        memory.update(real=real, labels=labels, sum=real.sum() + labels.sum())
        return memory["sum"], real.mean()

    class Graph:
        def replay(self):
            memory["sum"].copy_(memory["real"].sum() + memory["labels"].sum())

    @contextlib.contextmanager
    def recording(graph):
        yield
        memory["sum"].fill_(math.nan)  # nothing is computed before the first replay

    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "stream", lambda *inputs: contextlib.nullcontext())
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    cuda = torch.device("cuda")
    for one in (False, True):  # a tuple of numbers, or a number
        reals, labels = ([torch.full((2, 3), k * i) for i in range(8)] for k in (1.0, 10.0))
        replay = cuda_graph.recorded((lambda *batch: play(*batch)[0]) if one else play, cuda, [optimizer])
        sums = [replay(*batch) if one else replay(*batch)[0] for batch in zip(reals, labels)]
        assert [value.item() for value in sums] == [66.0 * i for i in range(8)]
        assert [real[0, 0].item() for real in reals] == list(range(8)), "and leaves the minibatches alone"
    assert marks == [False, False, False, True] * 2 and optimizer.param_groups[0]["capturable"] is False
    optimizer.param_groups[0]["lr"] /= 2
    with pytest.raises(ValueError, match="now they are .0.0005"):  # not the old one in silence
        replay(reals[0], labels[0])


@pytest.mark.parametrize("script", [dcgan_mnist, dcgan_celeba, wgan_celeba], ids=lambda script: script.__name__)
def test_without_CUDA_the_flag_changes_nothing(script, straight, monkeypatch):
    """As where a run that began on a GPU goes on, on a laptop."""
    recorded, told = cuda_graph.recorded, []
    monkeypatch.setattr(cuda_graph, "recorded", lambda *inputs: told.extend(inputs[2]) or recorded(*inputs))
    script.main([*SCRIPTS[script], "--epochs", "1", "--out", "run", "--cuda-graph"])
    assert len(set(told)) == 2, "both optimizers are recorded"
    script.main(["--resume", "run", "--epochs", "3"])
    assert csv_rows("run/losses.csv") == csv_rows(straight(script)[0] / "losses.csv")
    assert checkpoint("run")["args"]["cuda_graph"] is True


# ------------------------------------------------------------------------------------------------------- steps on a GPU
@on_gpu
@pytest.mark.parametrize("script, flags", [
    (dcgan_mnist, "--model mlp"), (dcgan_mnist, "--model mlp --precision bf16"), (dcgan_mnist, ""),
    (dcgan_celeba, ""), (dcgan_celeba, "--generator vanilla --precision bf16"), (wgan_celeba, "--clip 0"),
    (wgan_celeba, "--loss minimax --precision bf16"), (wgan_celeba, "--loss lsgan --upsample nearest"),
], ids=lambda value: getattr(value, "__name__", value))
def test_a_CUDA_graph_changes_no_number(script, flags):
    """Not even in a resumed run, nor where that goes on on a CPU. (Convolutions may use other kernels in another run.)"""
    flags = [*SCRIPTS[script], *flags.split(), "--limit", "640", "--batch-size", "16", "--device", "cuda", "--epochs"]
    script.main([*flags, "3", "--out", "played"])
    script.main([*flags, "3", "--out", "replayed", "--cuda-graph"])
    script.main([*flags, "1", "--out", "resumed", "--cuda-graph"])
    script.main(["--resume", "resumed", "--epochs", "2"])
    script.main(["--resume", "resumed", "--epochs", "3"])
    _, played = csv_rows("played/losses.csv")
    for run in ("replayed", "resumed"):
        _, rows = csv_rows(f"{run}/losses.csv")
        assert len(rows) == 3 * 640 // 16 and (rows == played or "mlp" not in flags)
        first, other = ([float(row[2]) for row in table[:10]] for table in (played, rows))
        assert other == pytest.approx(first, abs=0.05), "loss_d of the first ten steps"
    saved = checkpoint("replayed")  # the graphs count the updates, too
    assert saved["opt_D"]["state"][0]["step"] == saved["step"]
    assert saved["opt_G"]["state"][0]["step"] == saved.get("g_step", saved["step"])
    script.main(["--resume", "resumed", "--epochs", "4", "--device", "cpu"])


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("script, flags", [
    (gan_mnist_mlp, ""), (gan_mnist_mlp, "--g-loss saturating"), (dcgan_mnist, "--precision bf16"),
    (dcgan_mnist, "--model mlp"), (dcgan_celeba, ""), (dcgan_celeba, "--generator vanilla --precision bf16"),
    (wgan_celeba, ""), (wgan_celeba, "--loss minimax --precision bf16"),
    (wgan_celeba, "--loss lsgan --upsample bilinear"), (wgan_celeba, "--clip 0 --upsample nearest"),
], ids=lambda value: getattr(value, "__name__", value))
def test_no_step_waits_for_the_GPU(script, flags, monkeypatch):
    batches = common.shuffled_batches

    def strict(*inputs):
        prepared = list(batches(*inputs))
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield from prepared
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(common, "shuffled_batches", strict)
    script.main([*SCRIPTS[script], *flags.split(), "--epochs", "2", "--device", "cuda"])
