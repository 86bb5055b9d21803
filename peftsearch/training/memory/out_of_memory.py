"""Out-of-memory errors: all forms in which torch raises them, as OutOfMemory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from peftsearch.errors import OutOfMemory

__all__ = ["memory_errors"]


@contextmanager
def memory_errors() -> Iterator[None]:
    """Context that raises OutOfMemory in place of torch's errors for want of memory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(_sentence(error)) from error
    except RuntimeError as error:
        # torch's CPU allocator raises a plain RuntimeError, "can't allocate memory".
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise OutOfMemory(_sentence(error)) from error
        raise


def _sentence(error: BaseException) -> str:
    """One sentence of torch's message, which on a CPU begins with torch's own source lines."""
    wanted = re.search(r"tried to allocate (\d+) bytes", str(error))
    if wanted is not None:
        return f"out of memory: {int(wanted[1]) / 2**30:,.1f} GiB more were needed"
    return str(error).split("\n")[0] or "out of memory"
