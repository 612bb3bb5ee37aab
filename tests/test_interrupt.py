"""Ctrl-C reaches Python, also after Java was started in the process."""

import signal
import subprocess
import sys

PROGRAM = """
import signal
import time
import torch
from dense_hn import java
# What a shell starts in the background is told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
java.start_jvm()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", float(torch.ones(3).sum()), flush=True)
"""


def test_interrupt_after_java_was_started():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted 3.0\n"
    assert process.returncode == 0
