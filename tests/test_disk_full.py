"""A disk that fills up at any moment: one line, and the next call goes on."""

import os
import re
import subprocess

import pytest
import torch

from dense_hn import cli
from dense_hn.train import recipe
from dense_hn.train.pipeline import Pipeline

COMPARED = ("table.test.txt", "star.test.txt", "adore.test.txt")


def test_what_says_that_a_disk_is_full():
    assert cli.full(OSError(28, "No space left on device"))
    assert cli.full(RuntimeError("write failed: No space left on device (os error 28)"))
    wrapped = ValueError("x")
    wrapped.__cause__ = OSError(122, "Disk quota exceeded")
    assert cli.full(wrapped)
    assert not cli.full(OSError(2, "No such file"))


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, and what makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")

    def resize(size: str) -> None:
        grow = ["mount", "-o", f"remount,size={size}", str(folder)]
        subprocess.run(grow, check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def test_a_recipe_goes_on_when_there_is_room_again(
    small_recipe, disk, train_command, tmp_path, pyserini_here
):
    """As a recipe ends that had room from the start, here."""
    folder, resize = disk

    def run() -> subprocess.CompletedProcess:
        return subprocess.run(
            [*train_command, str(small_recipe), "--output", folder],
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "DENSE_HN_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    stopped = []
    for size in ("64k", "400k", "1m", "64m"):
        resize(size)
        done = run()
        if done.returncode:
            assert done.returncode == 2, done.stderr
            # A progress bar may end after it, on the same line or the next.
            assert re.search("error: .*space", done.stderr), done.stderr
            assert "Traceback" not in done.stderr
            stopped.append(size)
    assert done.returncode == 0, done.stderr
    assert len(stopped) > 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Pipeline(recipe.read(str(small_recipe)), tmp_path / "roomy").run()
    torch.set_num_threads(threads)
    for name in COMPARED:
        ours = (folder / "runs" / "small" / name).read_bytes()
        assert ours == (tmp_path / "roomy" / "runs" / "small" / name).read_bytes()
