"""The versions and hardware that a study was made with (`env.json`)."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["environment"]

_PACKAGES = ("torch", "transformers", "datasets", "optuna", "safetensors", "numpy", "pandas")


def environment() -> dict[str, Any]:
    """Versions and hardware of this process, as recorded for reproducibility."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("peftsearch", *_PACKAGES)},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()
