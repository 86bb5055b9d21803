"""Cached activations: states of frozen layers on disk, computed once and mapped by every trial.

An entry is named by everything that it depends on: weights and configuration of the model, tokens,
layers, dtype, device, threads and versions. States are 4·d bytes a token in fp32; the limit of all
entries is $PEFTSEARCH_ACTIVATIONS_GB, and what was not used for longest goes first.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.disk.cache import DiskCache
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.batches import evaluation_tokens

__all__ = ["CACHE", "Activations", "backbone_digest", "cached_activations"]

CACHE = DiskCache("activations", "PEFTSEARCH_ACTIVATIONS_GB", default_gb=10)

Indices = NDArray[np.int64]
Fill = Callable[["Activations"], None]
"""Writes every row of an empty entry."""


@dataclass(frozen=True)
class Activations:
    """States of all examples of a data set, one row a token, or one row a text once pooled."""

    flat: Tensor
    """[rows, hidden] in the backbone's dtype, mapped from a file."""
    offsets: NDArray[np.int64]
    """[examples + 1]: rows of example i are `flat[offsets[i]:offsets[i + 1]]`."""

    def padded(self, indices: Indices) -> Tensor:
        """States [batch, longest, hidden] of examples, with zeros as padding, on the CPU."""
        where, own = self._rows(indices)
        # Padding of the last example would read rows beyond the end.
        states = self.flat.index_select(0, where.clamp(max=len(self.flat) - 1).flatten())
        states = states.view(*where.shape, -1)
        return states if bool(own.all()) else states.masked_fill_(~own.unsqueeze(-1), 0)

    def write(self, indices: Indices, states: Tensor) -> None:
        """Store states [batch, longest, hidden] of these examples."""
        where, own = self._rows(indices)
        self.flat[where[own]] = states[own.to(states.device)].to(self.flat.device)

    def _rows(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """The row of each token of a padded batch, and a mask of what is no padding; [batch,
        longest] int64 and bool.
        """
        starts, ends = (torch.from_numpy(self.offsets[indices + i]) for i in (0, 1))
        columns = torch.arange(int((ends - starts).max()))
        where = starts[:, None] + columns
        return where, where < ends[:, None]


def cached_activations(
    backbone: Backbone,
    data: Encoded,
    what: str,
    offsets: NDArray[np.int64],
    fill: Fill | None,
) -> Activations | None:
    """The entry `what` of a data set, made by `fill` if there is none.

    `offsets` [examples + 1]: rows of each example. None if disk or limit have no room for the
    entry, or if there is none and `fill` is None.
    """
    rows, dtype = int(offsets[-1]), backbone.dtype
    shape = (rows, backbone.shapes.hidden)
    size = rows * backbone.shapes.hidden * dtype.itemsize
    if size == 0 or size > CACHE.limit:
        return None

    def read(folder: Path) -> Activations:
        path = folder / "states.bin"
        facts = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        if facts["bytes"] != size or path.stat().st_size != size:
            raise ValueError(f"{path}: not {size} bytes")
        return Activations(_mapped(path, shape, dtype, False), offsets)

    def make(folder: Path) -> None:
        path = folder / "states.bin"
        # A full disk raises OSError here; later it would be a fault (SIGBUS) in the mapping.
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        assert fill is not None
        fill(Activations(_mapped(path, shape, dtype, True), offsets))
        (folder / "entry.json").write_text(json.dumps({"bytes": size}), encoding="utf-8")

    return CACHE.get_or_make(_key(backbone, data, what), read, make if fill else None)


def _mapped(path: Path, shape: tuple[int, int], dtype: torch.dtype, shared: bool) -> Tensor:
    flat = torch.from_file(str(path), shared=shared, size=shape[0] * shape[1], dtype=dtype)
    return flat.view(shape)


def _key(backbone: Backbone, data: Encoded, what: str) -> dict[str, Any]:
    """All that any bit of the states could depend on."""
    return {
        "what": what,
        "backbone": backbone_digest(backbone),
        "data": data.digest,
        "dtype": str(backbone.dtype),
        **({"tf32": True} if backbone.tf32 else {}),
        "device": _device_name(backbone.device),
        # Sums are divided among threads, and kernels chosen by the shape of a batch.
        "threads": torch.get_num_threads(),
        "batch_tokens": evaluation_tokens(backbone.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    # Vector instructions decide which kernels compute.
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


_DIGESTS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 of every weight and of the model's configuration, computed once a process.

    The first call must come while nothing is attached: attaching can replace weights by tuned
    tensors.
    """
    model = backbone.model
    if model not in _DIGESTS:
        digest = hashlib.sha256()
        settings = model.config.to_dict()
        # These say where a model was loaded from and by what, not what it computes.
        for name in ("_name_or_path", "transformers_version", "architectures"):
            settings.pop(name, None)
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        _DIGESTS[model] = digest.hexdigest()
    return _DIGESTS[model]
