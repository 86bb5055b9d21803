"""Ctrl-C while a command loads or computes: acknowledged within a second, even inside native code.

Python raises KeyboardInterrupt only between two of its own instructions. Tokenising a data set or
multiplying large matrices is a single one and may take minutes, so a thread listens for the signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator

__all__ = ["acknowledge_interrupts", "without_acknowledgement"]

_SOON_S = 0.5
"""A command that ends sooner reports the interrupt itself."""
_END = b"\0"


@contextlib.contextmanager
def acknowledge_interrupts() -> Iterator[None]:
    """Acknowledge the first Ctrl-C; end the process at the second. Files are written whole or not
    at all, so nothing is left half done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reading,), daemon=True, name="Ctrl-C")
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writing, _END)
        listener.join()
        os.close(writing)
        os.close(reading)


@contextlib.contextmanager
def without_acknowledgement() -> Iterator[None]:
    """Suspend `acknowledge_interrupts` while the caller handles signals itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def _listen(reading: int) -> None:
    times = 0
    while True:
        byte = os.read(reading, 1)
        if byte in (_END, b""):
            return
        if byte[0] != signal.SIGINT:
            continue
        times += 1
        if times > 1:
            os._exit(130)
        if not select.select([reading], [], [], _SOON_S)[0]:
            # Past sys.stderr, whose lock the interrupted print may hold.
            os.write(2, b"stopping as soon as possible; Ctrl-C again ends at once\n")


def _forget_in_child() -> None:
    """In a forked child: stop writing its signals to the parent's pipe."""
    with contextlib.suppress(ValueError):
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)
