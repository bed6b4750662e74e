"""A run that is killed at any moment goes on with --resume, and ends as if nothing had happened, byte for byte."""
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_common import SCRIPTS, same_run

EPOCHS = ["--epochs", "12"]


def start(script, flags):
    """The script as a process of its own, with the one thread that the tests use: other sums would give other bytes."""
    return subprocess.Popen([sys.executable, str(ROOT / f"{script.__name__}.py"), *flags], env={**os.environ, "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill_and_resume(script, small, kills, seed):
    chance = random.Random(seed)
    script.main([*small, *EPOCHS, "--out", "straight"])
    checkpoint, killed = Path("killed/checkpoint.pt"), 0
    while killed < kills:
        process = start(script, ["--resume", "--out", "killed"] if checkpoint.exists() else [*small, *EPOCHS, "--out", "killed"])
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        error = process.communicate()[1]
        assert process.returncode in (-9, 0), error
        killed += 1
        if checkpoint.exists():
            assert torch.load(checkpoint, weights_only=True)["step"] >= 0, "a checkpoint that is there can be loaded"
        if process.returncode == 0:
            break
    process = start(script, ["--resume", "--out", "killed"])
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert same_run("straight", "killed")
    assert {path.name for path in Path("straight/samples").iterdir()} == {path.name for path in Path("killed/samples").iterdir()}


@pytest.mark.parametrize("script, small", SCRIPTS.items(), ids=[script.__name__ for script in SCRIPTS])
def test_a_killed_run_ends_like_one_never_stopped(script, small):
    kill_and_resume(script, small, kills=2 if script.__name__ == "wgan_celeba" else 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("script, small", SCRIPTS.items(), ids=[script.__name__ for script in SCRIPTS])
def test_a_run_killed_eight_times_ends_like_one_never_stopped(script, small):
    kill_and_resume(script, small, kills=8, seed=1)
