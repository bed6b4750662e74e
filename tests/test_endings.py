"""How a run ends when something goes wrong: one line, the right exit status, nothing lost."""
import errno
import io
import math
import os
import sys
import types
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
    launched,
    on_a_small_disk,
    python,
    same_weights,
)

import common
import gan_mnist_mlp

ZEROS = SCRIPTS[gan_mnist_mlp]


# ------------------------------------------------------------------------------------------- Ctrl-C
def interrupt(*inputs, **keywords):
    raise KeyboardInterrupt


@each_script
def test_ctrl_c_says_what_a_resume_begins_with_and_loses_nothing_else(script, straight, stops,
                                                                      monkeypatch):
    """Not even the --epochs of a resume that has not finished one of its own."""
    steps, add = EPOCH[script], common.Log.add

    def interrupted(log, **values):
        add(log, **values)
        if values["step"] == stop_at:
            raise KeyboardInterrupt

    new, again = [*SCRIPTS[script], "--epochs", "1", "--out", "run"], ["--resume", "run"]
    for flags, stop_at, epoch in [
        (new, 2, 1), ([*again, "--epochs", "3"], 3, 1),
        (again, 2 * steps, 2),  # at its last step an epoch is not finished
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(common.Log, "add", interrupted)
            line = stops(launched(script), flags, status=130)
        assert "interrupted" in line and f"--resume run goes on with epoch {epoch}\n" in line
        saved = checkpoint("run")
        assert (saved["epoch"], saved["step"]) == (epoch - 1, (epoch - 1) * steps)
    script.main(again)
    assert_same_run(straight(script)[0], "run")


@each_script
def test_ctrl_c_before_the_first_step_ends_with_130(script, stops, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(script, "load_images", interrupt)
        line = stops(launched(script), [*SCRIPTS[script], "--out", "run"], status=130)
        assert line == "error: interrupted\n"
    assert not Path("run").exists()
    monkeypatch.setattr(common, "shuffled_batches", interrupt)
    line = stops(launched(script), [*SCRIPTS[script], "--out", "run"], status=130)
    assert "--resume run goes on with epoch 1" in line and checkpoint("run")["epoch"] == 0
    monkeypatch.setattr(common, "how_to_go_on", "")  # as in a new process
    line = stops(launched(script), ["--resume", "run"], status=130)
    assert "--resume run goes on with epoch 1" in line


@each_script
def test_ctrl_c_while_a_finished_run_is_drawn_says_that_all_epochs_are_done(script, stops,
                                                                           monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", interrupt)
        flags = [*SCRIPTS[script], "--epochs", "1", "--out", "run"]
        line = stops(launched(script), flags, status=130)
        assert "all epochs are done" in line and "--resume run" in line and "epoch 2" not in line
        monkeypatch.setattr(common, "how_to_go_on", "")
        assert "all epochs are done" in stops(launched(script), ["--resume", "run"], status=130)
    assert not list(Path("run").rglob("*.tmp")) and not Path("run/losses.png").exists()
    script.main(["--resume", "run"])
    assert Path("run/losses.png").exists() and Path("run/training.gif").exists()


# ---------------------------------------------------------------------------------------- full disk
FULL = """
import common, gan_mnist_mlp

def run(*flags):  # the exit status and the line on stderr
    import contextlib, io
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            common.launch(lambda: gan_mnist_mlp.main(list(flags)))
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, said.getvalue()

def files():
    return sorted(path.name for path in Path("disk/run").rglob("*") if path.is_file())

shuffled_batches = common.shuffled_batches

def fill_first(images, batch_size):  # before the first minibatch of an epoch
    if not Path("disk/filler").exists():
        fill(leave)
    return shuffled_batches(images, batch_size)

common.shuffled_batches = fill_first
small = "--dataset toy --limit 320 --sample-every 0 --out disk/run --epochs 1".split()
for leave in (0, 1 << 20):  # no room for a row of losses.csv; room for all but a checkpoint
    status, line = run(*small)
    assert status == 1 and line.count("\\n") == 1, line
    assert "disk is full" in line and "--resume disk/run goes on with epoch 1" in line, line
    assert free() <= leave and not [name for name in files() if name.endswith(".tmp")], files()
    before = common.load_checkpoint("disk/run/checkpoint.pt")
    assert before["epoch"] == 0
    if leave == 0:  # nobody has made room yet
        status, line = run("--resume", "disk/run")
    assert status == 1 and "disk is full" in line and "--resume disk/run" in line, line
    after = common.load_checkpoint("disk/run/checkpoint.pt")
    assert after["epoch"] == 0 and all((after["G"][name] == before["G"][name]).all()
                                       for name in before["G"])
    Path("disk/filler").unlink()
    common.shuffled_batches = shuffled_batches
    assert run("--resume", "disk/run") == (0, "")
    assert common.load_checkpoint("disk/run/checkpoint.pt")["epoch"] == 1
    assert len(Path("disk/run/losses.csv").read_text().splitlines()) == 21
    common.shuffled_batches = fill_first
    import shutil
    shutil.rmtree("disk/run")
print("all of it")
"""


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_the_last_checkpoint():
    """No pretence: a file system of 64 MB is filled."""
    assert on_a_small_disk(FULL).stdout.endswith("all of it\n")


# -------------------------------------------------------------------------------------- not finite
@pytest.mark.parametrize("value, every", [("nan", 0), ("inf", 5)])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(value, every, stops,
                                                                             monkeypatch):
    """At the end of its epoch, or earlier, when the rows are written for the pictures."""
    gan_mnist_mlp.main([*ZEROS, "--epochs", "1", "--out", "run"])
    before, step_G, calls = checkpoint("run"), gan_mnist_mlp.step_G, []

    def step(*inputs):
        loss = step_G(*inputs)
        calls.append(0)
        return torch.tensor(float(value)) if len(calls) == 3 else loss

    with monkeypatch.context() as patch:
        patch.setattr(gan_mnist_mlp, "step_G", step)
        flags = ["--resume", "run", "--epochs", "3", "--sample-every", str(every)]
        line = stops(launched(gan_mnist_mlp), flags, status=1)
    assert "step 43:" in line and "losses.csv" in line and "smaller learning rate" in line
    assert len(calls) == (5 if every else 40), "no minute longer than the rows wait"
    after = checkpoint("run")
    assert same_weights(before["G"], after["G"]) and same_weights(before["D"], after["D"])
    assert (after["epoch"], after["step"]) == (1, 40)
    gan_mnist_mlp.main(["--resume", "run", "--epochs", "2"])
    assert checkpoint("run")["epoch"] == 2
    assert numpy.isfinite(csv_rows("run/losses.csv")[1]).all()


@pytest.mark.parametrize("net", ["G", "D"])
def test_weights_that_are_not_finite_do_not_replace_the_last_checkpoint(net, stops, monkeypatch):
    """As after a loss that is finite and has a gradient that is not, in an epoch's last step."""
    gan_mnist_mlp.main([*ZEROS, "--epochs", "1", "--out", "run"])
    save = common.save_checkpoint

    def spoil(out, args, parts, **others):
        if others["epoch"] == 2:
            with torch.no_grad():
                list(parts[net].parameters())[-1][-1] = math.nan
        save(out, args, parts, **others)

    monkeypatch.setattr(common, "save_checkpoint", spoil)
    flags = ["--resume", "run", "--epochs", "2"]
    line = stops(launched(gan_mnist_mlp), flags, status=1)
    assert "weight is not finite" in line and str(Path("run/checkpoint.pt")) in line
    saved = checkpoint("run")
    assert saved["epoch"] == 1 and all(value.isfinite().all() for value in saved[net].values())


# ------------------------------------------------------------------------------- files, memory, code
def test_what_cannot_be_opened_or_made_is_named_in_one_line(stops):
    """As for a folder that is read-only, but permissions would not stop root: a folder in the
    file's place does."""
    gan_mnist_mlp.main([*ZEROS, "--epochs", "1", "--out", "run"])
    Path("run/config.json").unlink()
    Path("run/config.json").mkdir()
    line = stops(launched(gan_mnist_mlp), ["--resume", "run", "--epochs", "2"])
    assert "Is a directory; --resume run goes on with epoch 2" in line
    assert not list(Path("run").rglob("*.tmp"))


def raising(error):
    def main():
        common.set_how_to_go_on("run", 0, 5)
        raise error
    return lambda argv: common.launch(main)


def test_too_little_memory_and_a_full_quota_are_one_line(stops):
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has\nmore")
    for error in (cuda, MemoryError()):
        line = stops(raising(error), [], status=1)
        assert "out of memory" in line and "--batch-size" in line
        assert "--resume run goes on with epoch 1" in line
    for number in (errno.EDQUOT, errno.ENOSPC):
        line = stops(raising(OSError(number, os.strerror(number), "losses.csv")), [], status=1)
        assert "disk is full" in line and "--resume run goes on with epoch 1" in line
    line = stops(raising(PermissionError(errno.EACCES, "Permission denied", "mine.zip")), [])
    assert "mine.zip: Permission denied; --resume run" in line


def test_a_reader_that_leaves_is_one_line(stops, monkeypatch):
    """As with `| head`."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    line = stops(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")), [], status=1)
    assert "--resume run goes on with epoch 1" in line
    sys.stdout.close()


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 cannot be multiplied"), ValueError("mine"), IndexError(), KeyError(1),
    FileNotFoundError(2, "no such file", "x"), OSError("no number")], ids=lambda e: type(e).__name__)
def test_a_mistake_in_the_code_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught:
        raising(error)([])
    assert caught.value is error


# ------------------------------------------------------------------------------ how Python is started
@pytest.fixture
def closed(monkeypatch):
    """Run a main with no stdout and stderr, and then take away what it has put in their place."""
    def run(main, argv):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            patch.setattr(sys, "stderr", None)
            try:
                main(argv)
            finally:
                for stream in (sys.stdout, sys.stderr):
                    if stream is not None:
                        stream.close()
    return run


@each_script
def test_a_closed_stdout_and_stderr_do_not_end_a_run(script, closed):
    """`>&- 2>&-` on a shell, or pythonw on Windows: then Python has None in their place."""
    closed(launched(script), [*SCRIPTS[script], "--epochs", "1", "--out", "run"])
    with pytest.raises(SystemExit) as stop:
        closed(launched(script), ["--resume", "run", "--epochs", "0"])
    assert stop.value.code == 2 and checkpoint("run")["epoch"] == 1


@pytest.mark.slow  # a process of its own
@pytest.mark.skipif(os.name == "nt", reason="closes files as a Unix shell does")
def test_a_run_whose_shell_has_closed_stdout_and_stderr():
    code = ("import os, sys; os.close(1); os.close(2); "
            "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])")
    flags = [*ZEROS, "--limit", "160", "--epochs", "1", "--out", "run"]
    python("-c", code, ROOT / "gan_mnist_mlp.py", *flags)
    assert checkpoint("run")["epoch"] == 1 and Path("run/losses.png").exists()


def test_a_name_that_the_console_lacks_letters_for_is_printed_all_the_same(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    launched(gan_mnist_mlp)([*ZEROS, "--epochs", "1", "--out", "zwölf"])
    console.flush()
    assert rb"into zw\xf6lf" in console.buffer.getvalue() and checkpoint("zwölf")["epoch"] == 1


@each_script
def test_a_run_without_docstrings_and_asserts(script, monkeypatch, capsys):
    """As under python -OO."""
    modules = {}
    for name in ("common", script.__name__):
        path = ROOT / f"{name}.py"
        module = modules[name] = types.ModuleType(name)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(path.read_text("utf-8"), path, "exec", optimize=2), vars(module))
        assert module.__doc__ is None
    script = modules[script.__name__]
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0 and "usage: " in capsys.readouterr().out
    name = next(other for other in SCRIPTS if other.__name__ == script.__name__)
    script.main([*SCRIPTS[name], "--epochs", "1", "--out", "run"])
    assert checkpoint("run")["epoch"] == 1
