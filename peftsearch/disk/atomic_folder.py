"""Creating a folder with its content atomically."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from peftsearch.disk.atomic import sync_folder
from peftsearch.disk.temporary import new_folder, remove_abandoned_folders

__all__ = ["atomic_folder"]


@contextlib.contextmanager
def atomic_folder(root: Path) -> Iterator[Path]:
    """Yield a folder beside `root` that becomes `root` at the end, or is removed on an error.

    Remains of killed makers of `root` are removed. OSError if there is no room or no access, or if
    another process has created `root` meanwhile.
    """
    remove_abandoned_folders(root)
    partial, descriptor = new_folder(root)
    try:
        yield partial
        os.rename(partial, root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)
    sync_folder(root.parent)
