"""Files and folders of a run: never half a file, never two runs in one folder."""
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SCRIPTS

import common
import gan_mnist_mlp

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def write(path, content):
    with common.whole_file(path) as file:
        file.write(content)


# ------------------------------------------------------------------------------------ whole files
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_file_that_cannot_be_finished_leaves_the_old_one(error):
    write("kept", b"old")
    with pytest.raises(error), common.whole_file("kept") as file:
        file.write(b"half of the new")
        file.flush()
        assert Path("kept").read_bytes() == b"old", "not even for a moment"
        raise error
    assert Path("kept").read_bytes() == b"old"
    assert [path.name for path in Path().iterdir()] == ["kept"], "and nothing else"
    write("kept", b"new")
    assert Path("kept").read_bytes() == b"new"


def test_a_save_that_fails_keeps_the_old_content():
    common.save_whole("kept.pt", "old")
    with pytest.raises(Exception, match="lambda|pickle"):
        common.save_whole("kept.pt", lambda: "cannot be saved")
    assert torch.load("kept.pt") == "old" and [path.name for path in Path().iterdir()] == ["kept.pt"]


def test_two_writers_of_the_same_file_do_not_meet():
    with common.whole_file("kept") as mine:
        mine.write(b"mine, ")
        write("kept", b"theirs")
        assert Path("kept").read_bytes() == b"theirs"
        mine.write(b"whole")
    assert Path("kept").read_bytes() == b"mine, whole"
    assert [path.name for path in Path().iterdir()] == ["kept"]


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_a_new_file_takes_the_old_ones_place_at_once():
    """Whoever reads the old one, such as a viewer or a score, reads all of it."""
    write("kept", b"old" * 10_000)
    with open("kept", "rb", buffering=0) as reader:
        first = reader.read(3)
        write("kept", b"new" * 10_000)
        assert first + reader.read() == b"old" * 10_000
    assert Path("kept").read_bytes() == b"new" * 10_000


def test_a_folder_that_was_removed_is_made_again():
    write("runs/mine/samples/a.png", b"picture")
    assert Path("runs/mine/samples/a.png").read_bytes() == b"picture"


def leftovers():
    names = {path.relative_to("run").as_posix() for path in Path("run").rglob("*")}
    return {name for name in names if "unfinished" in name or ".tmp" in name}


def killed_while_writing(path):
    """A child is killed while it writes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with common.whole_file(path) as file:
                file.write(b"half")
                file.flush()
                os.write(writer, b"writes")
                time.sleep(60)
        finally:
            os._exit(0)
    os.read(reader, 10)
    os.kill(child, 9)
    os.waitpid(child, 0)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork")
def test_what_a_kill_leaves_is_removed_by_a_resume_an_hour_later():
    """Some of it by an older version of these scripts, which left a folder."""
    gan_mnist_mlp.main([*SCRIPTS[gan_mnist_mlp], "--epochs", "1", "--out", "run"])
    assert not leftovers()
    killed_while_writing("run/checkpoint.pt")
    killed_while_writing("run/samples/step_000080.png")
    left = leftovers()
    assert len(left) == 2, "where nothing is left, this test can go"
    Path("run/unfinished-0a1b2c3d.tmp").mkdir()
    Path("run/unfinished-0a1b2c3d.tmp/whole.pt").touch()
    Path("run/unfinished-of-mine.txt").touch()
    gan_mnist_mlp.main(["--resume", "run", "--epochs", "1"])
    assert left < leftovers(), "somebody may be writing it"
    for name in leftovers():
        os.utime(Path("run", name), (time.time() - 7200,) * 2)
    gan_mnist_mlp.main(["--resume", "run", "--epochs", "1"])
    assert leftovers() == {"unfinished-of-mine.txt"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_files_permissions_follow_the_umask(umask, mode):
    """Others of a group may read a shared run; a temporary file's 0600 would lock them out."""
    before = os.umask(umask)
    try:
        write("shared", b"1")
        common.save_whole("shared.pt", "1")
    finally:
        os.umask(before)
    assert [Path(name).stat().st_mode & 0o777 for name in ("shared", "shared.pt")] == [mode] * 2


# -------------------------------------------------------------------------------- a run's folder
def at_once(function, processes=4, rounds=30):
    """Call function(round) in each of the processes, each round at the same moment; return the texts
    that it returned."""
    children, start = [], time.monotonic() + 0.3
    for _ in range(processes):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for i in range(rounds):
                    while time.monotonic() < start + i / 200:
                        pass
                    os.write(writer, f"{function(i)}\n".encode())
            finally:
                os._exit(0)  # no test goes on here
        os.close(writer)
        children.append((child, reader))
    answers = []
    for child, reader in children:
        with open(reader) as file:
            answers += file.read().splitlines()
        os.waitpid(child, 0)
    return answers


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork")
def test_runs_that_start_at_the_same_moment_get_a_folder_each():
    def start(i):
        return common.new_folder(SimpleNamespace(out=None, script=f"gan{i}")).as_posix()

    wanted = [f"runs/gan{i}{end}" for i in range(30) for end in ("", "-2", "-3", "-4")]
    assert sorted(at_once(start)) == sorted(wanted)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork")
def test_only_one_of_the_runs_that_start_at_the_same_moment_gets_the_folder_of_out():
    def start(i):
        try:
            return common.new_folder(SimpleNamespace(out=f"mine-{i}", script="gan"))
        except SystemExit:
            return "refused"

    wanted = [f"mine-{i}" for i in range(30)] + ["refused"] * 90
    assert sorted(map(str, at_once(start))) == sorted(wanted)
