"""A run that is killed at any moment goes on with --resume, and ends as if nothing had happened,
byte for byte."""
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS, assert_same_run, checkpoint, name_of

import dcgan_celeba
import dcgan_mnist
import gan_mnist_mlp
import wgan_celeba


def start(script, *flags):
    """The script as a process of its own, with the one thread that the tests use: other sums would
    give other bytes."""
    return subprocess.Popen([sys.executable, script.__file__, *flags], text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_and_resume(script, kills, epochs):
    """Kill the run `kills` times, each at a random moment after its first new checkpoint, and let it
    end. It saves rows and pictures within its epochs, too."""
    path, killed = Path("killed/checkpoint.pt"), 0
    recipe = [*SCRIPTS[script], "--epochs", str(epochs), "--sample-every", "25"]
    flags = [*recipe, "--out", "killed"]
    while killed < kills:
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = start(script, *flags)
        while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.3))
        process.kill()
        error = process.communicate()[1]
        wanted = 1 if sys.platform == "win32" else -9
        assert process.returncode == wanted, f"it ended by itself: {error}"  # more epochs?
        killed += 1
        assert 0 <= checkpoint("killed")["epoch"] < epochs, "a checkpoint that is there can be loaded"
        flags = ["--resume", "killed"]
    script.main(["--resume", "killed"])
    script.main([*recipe, "--out", "straight"])
    for unfinished in Path("killed").rglob("*.tmp"):  # which a run removes an hour later
        unfinished.unlink()
    assert_same_run("straight", "killed")


def test_a_killed_run_ends_like_one_never_stopped():
    kill_and_resume(gan_mnist_mlp, kills=1, epochs=8)


@pytest.mark.slow
@pytest.mark.parametrize("script, kills", [
    (gan_mnist_mlp, 8), (dcgan_mnist, 7), (dcgan_celeba, 7), (wgan_celeba, 8)], ids=name_of)
def test_a_run_killed_many_times_ends_like_one_never_stopped(script, kills):
    kill_and_resume(script, kills, epochs=150)
