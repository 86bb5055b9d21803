"""When keeping activations pays: a function of configuration and data alone, never of a clock, so
that the same trial is always computed the same way.
"""

from __future__ import annotations

import torch

from peftsearch.backbone.loading.load import Backbone

__all__ = ["SHARED_BY", "caching_pays", "token_bytes"]

SHARED_BY = 8
"""Trials of a search that are expected to leave the same layers alone."""

_FLOPS = {"cpu": 5e10, "cuda": 5e13}
"""Floating-point operations a second that a forward of frozen layers reaches, roughly."""
_WRITTEN = 1e9
"""Bytes a second to a disk."""
_READ = {"cpu": 4e9, "cuda": 1e9}
"""Bytes a second from the page cache, gathered into a batch; and from there to a GPU."""


def token_bytes(backbone: Backbone) -> int:
    """Bytes that the states of one token take."""
    dtype: torch.dtype = backbone.dtype
    return backbone.shapes.hidden * dtype.itemsize


def caching_pays(backbone: Backbone, layers: int, passes: float, shared_by: int) -> bool:
    """Whether states after the lowest `layers`, computed once, cost less than computing them in
    each of a trial's `passes` over the data, for so many trials.

    Seconds a token: a forward of the layers is 2 operations a parameter.
    """
    kind = "cuda" if backbone.device.type == "cuda" else "cpu"
    body = backbone.shapes.parameters_below(layers)
    forward_s = 2 * body / _FLOPS[kind]
    size = token_bytes(backbone)
    uses = passes * shared_by
    return uses * forward_s > forward_s + size / _WRITTEN + uses * size / _READ[kind]
