"""Parameter-efficient fine-tuning, searched: the frontier of quality against tuned parameters.

`load` is imported when it is first used, so that the command line starts without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftsearch.errors import PeftsearchError
from peftsearch.version import __version__

if TYPE_CHECKING:
    from peftsearch.export.native import load

__all__ = ["PeftsearchError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from peftsearch.export.native import load

        return load
    raise AttributeError(f"module 'peftsearch' has no attribute '{name}'")
