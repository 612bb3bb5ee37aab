"""A disk that fills up at any moment: one line, and the next call goes on."""

import os
import re
import subprocess
import sys

import pytest

from dense_hn import cli

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


def test_a_recipe_goes_on_when_there_is_room_again(small_recipe, disk, tmp_path):
    folder, resize = disk

    def run(output) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "dense_hn.train",
                str(small_recipe),
                "--output",
                output,
            ],
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "DENSE_HN_CACHE": str(output / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    stopped = []
    for size in ("64k", "400k", "1m", "64m"):
        resize(size)
        done = run(folder)
        if done.returncode:
            assert done.returncode == 2, done.stderr
            # A progress bar may end after it, on the same line or the next.
            assert re.search("error: .*space", done.stderr), done.stderr
            assert "Traceback" not in done.stderr
            stopped.append(size)
    assert done.returncode == 0, done.stderr
    assert len(stopped) > 1
    assert run(tmp_path / "roomy").returncode == 0
    for name in COMPARED:
        ours = (folder / "runs" / "small" / name).read_bytes()
        assert ours == (tmp_path / "roomy" / "runs" / "small" / name).read_bytes()
