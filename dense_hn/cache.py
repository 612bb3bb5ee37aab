"""What is made once of an input and kept for the next command: corpora and tokens.

It lies under ``DENSE_HN_CACHE`` (else ``~/.cache/dense_hn``), named by a digest of
everything that it was made from, so that nothing there is ever out of date. It can be
removed at any time.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from dense_hn import DenseHNError, __version__
from dense_hn.files import whole_folder

VARIABLE = "DENSE_HN_CACHE"


def folder(kind: str, made_from: Any, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made if it is not there.

    Args:
        kind: what is in it, the name of its parent.
        made_from: all that its content depends on, as JSON, besides this version.
        make: writes its files into the folder that it is given. Of several processes
            that ask for the same, one does; the others wait.

    Raises:
        DenseHNError: nothing can be written there.
    """
    home = Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "dense_hn")
    facts = json.dumps([__version__, made_from], sort_keys=True)
    path = home / kind / hashlib.sha256(facts.encode()).hexdigest()[:32]
    if path.is_dir():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock")
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise DenseHNError(
            f"{path.parent}: nothing can be kept there ({error}); name another folder "
            f"in the environment variable {VARIABLE}"
        ) from None
    try:
        if not path.is_dir():
            with whole_folder(path) as partial:
                make(partial)
    finally:
        lock.release()
    return path
