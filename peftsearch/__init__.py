"""peftsearch: search the PEFT design space for the best quality at every number of parameters.

Everything but the errors is imported when it is first used, so that the command line starts
without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from peftsearch.errors import (
    ConfigurationError,
    DataError,
    Interrupted,
    MissingError,
    NothingFeasible,
    PeftsearchError,
    SpaceError,
    UsageError,
)
from peftsearch.version import __version__

if TYPE_CHECKING:
    from peftsearch.api.attach import Attached, attach
    from peftsearch.api.search import search
    from peftsearch.api.study import FrontierPoint, Study, open_study
    from peftsearch.design.configuration import Configuration
    from peftsearch.design.methods import METHODS
    from peftsearch.export.native import load
    from peftsearch.space.space import Space, load_space

__all__ = [
    "METHODS",
    "Attached",
    "Configuration",
    "ConfigurationError",
    "DataError",
    "FrontierPoint",
    "Interrupted",
    "MissingError",
    "NothingFeasible",
    "PeftsearchError",
    "Space",
    "SpaceError",
    "Study",
    "UsageError",
    "__version__",
    "attach",
    "load",
    "load_space",
    "open_study",
    "search",
]

_LAZY = {
    "METHODS": "peftsearch.design.methods",
    "Attached": "peftsearch.api.attach",
    "Configuration": "peftsearch.design.configuration",
    "FrontierPoint": "peftsearch.api.study",
    "Space": "peftsearch.space.space",
    "Study": "peftsearch.api.study",
    "attach": "peftsearch.api.attach",
    "load": "peftsearch.export.native",
    "load_space": "peftsearch.space.space",
    "open_study": "peftsearch.api.study",
    "search": "peftsearch.api.search",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'peftsearch' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
