"""Kills a recipe at random moments, starts it again, and compares what it ends with.

    python tests/soak.py --output soak --kills 50

runs a reduced quickstart once without a stop, and then, in new folders, as often as it takes
to kill it so many times: with SIGKILL, at moments drawn from ``--seed``, each time going on by
the same command. Runs, weights, vectors and indexes of every folder must be the first one's,
byte for byte. All processes have one thread, so that sums are taken in one order.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from dense_hn import DenseHNError, cli, files

# A minute on one core; a checkpoint at every step.
CHANGES = (
    *("collection.pydoc=[json,email,http]", "star.max_steps=4", "adore.max_steps=8"),
    *("star.save_minutes=1e-9", "adore.save_minutes=1e-9"),
)
COMMAND = (sys.executable, "-m", "dense_hn.train")
# What must be the same; the rest tells of times, or is Lucene's.
COMPARED = (
    *("runs/*/*.txt", "qrels/*/*.txt", "work/*/collection/**/*"),
    *("work/*/models/*/*.safetensors", "work/*/vectors/*/*.npy"),
    *("work/*/indexes/*/index", "work/*/indexes/*/docid"),
)


def soak(
    recipe: str, changes: Sequence[str], output: Path, kills: int, seed: int
) -> int:
    """Kill so often, and compare; how many runs came to their end meanwhile.

    Raises:
        DenseHNError: the recipe fails, or ends with something else after a kill.
    """
    draw = random.Random(seed)
    started = time.monotonic()
    with started_in(output / "whole", recipe, changes) as process:
        process.wait()
    took = time.monotonic() - started
    require_ended(process, output / "whole")
    wanted = digests(output / "whole")
    killed, ended = 0, 0
    with tqdm(total=kills, desc="Killing", unit=" kills") as progress:
        while killed < kills:
            folder = output / f"killed-{ended}"
            with started_in(folder, recipe, changes) as process:
                # All processes are dead, or the recipe has ended, when this is left.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0, took))
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    killed += 1
                    progress.update()
                    continue
            require_same(process, folder, wanted)
            ended += 1
    folder = output / f"killed-{ended}"
    with started_in(folder, recipe, changes) as process:
        process.wait()
    require_same(process, folder, wanted)
    return ended + 1


def started_in(folder: Path, recipe: str, changes: Sequence[str]) -> subprocess.Popen:
    """The recipe's command, in a process group of its own; what it says goes to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [*COMMAND, recipe, "--output", str(folder)]
    command += ["--set", *changes] if changes else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, start_new_session=True
        )


def require_ended(process: subprocess.Popen, folder: Path) -> None:
    """Raise a DenseHNError where a recipe failed."""
    if process.returncode:
        raise DenseHNError(f"{folder / 'said.txt'}: ended with {process.returncode}")


def require_same(process: subprocess.Popen, folder: Path, wanted: dict) -> None:
    """Compare a folder with the first, and remove it.

    Raises:
        DenseHNError: the recipe failed, or made something else.
    """
    require_ended(process, folder)
    found = digests(folder)
    other = [name for name in wanted | found if wanted.get(name) != found.get(name)]
    if other:
        raise DenseHNError(f"{folder}: another {', '.join(other)}")
    shutil.rmtree(folder)


def digests(folder: Path) -> dict[str, str]:
    """What is compared, by its place in the folder."""
    found = sorted(path for glob in COMPARED for path in folder.glob(glob))
    return {
        str(path.relative_to(folder)): files.digest(path)
        for path in found
        if path.is_file()
    }


def main() -> None:
    """Soak from the command line."""
    parser = cli.parser("soak.py", __doc__)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--set", nargs="+", default=CHANGES, help="of the recipe")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    ended = soak(args.recipe, args.set, args.output, args.kills, args.seed)
    print(f"{args.kills} kills, {ended} runs to the end, each as without a kill")


if __name__ == "__main__":
    cli.run(main)
