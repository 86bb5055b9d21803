"""Ctrl-C is heard while a process computes, and a second one ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

COMPUTES = """
import hashlib, signal
{handler}
from peftsearch.cli.terminal.interrupt import acknowledge_interrupts, without_acknowledgement
with acknowledge_interrupts():
    print("begun", flush=True)
    try:
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})  # seconds in which Python hears nothing
    except KeyboardInterrupt:
        print("ended", flush=True)
"""
SAID = "stopping as soon as possible; Ctrl-C again ends at once\n"


def computing(rounds: int, handler: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COMPUTES.format(rounds=rounds, handler=handler)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.fixture
def forever() -> subprocess.Popen[str]:
    """Nothing is raised, even if the signal comes before the computation has begun."""
    return computing(2**31 - 1, "signal.signal(signal.SIGINT, lambda *_: None)")


def test_it_is_said_within_a_second_or_so_and_a_second_one_ends_the_process(
    forever: subprocess.Popen[str],
) -> None:
    assert forever.stderr is not None
    began = time.monotonic()
    forever.send_signal(signal.SIGINT)
    assert forever.stderr.readline() == SAID
    assert time.monotonic() - began < 5  # 0.5 s on a machine that has time
    assert forever.poll() is None
    forever.send_signal(signal.SIGINT)
    assert forever.wait(60) == 130
    for stream in (forever.stdout, forever.stderr):
        assert stream is not None
        stream.close()


def test_a_command_that_ends_soon_enough_says_so_itself() -> None:
    process = computing(1000)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.slow
def test_a_forked_child_is_not_heard_as_its_parent() -> None:
    script = COMPUTES.replace("hashlib.pbkdf2", "fork(); hashlib.pbkdf2").format(
        rounds=3_000_000, handler=""
    )
    script = script.replace(
        "import hashlib, signal",
        "import hashlib, os, signal, time\n"
        "def fork():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        signal.signal(signal.SIGINT, lambda *_: None)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n",
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")
