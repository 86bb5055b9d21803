"""Cost model: whether caching the states of frozen layers costs less than computing them again.

A function of configuration and data alone, never of a clock, so that the same trial is always
computed in the same way.
"""

from __future__ import annotations

import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.cost.trial import SHARED_BY

__all__ = ["SHARED_BY", "caching_pays", "token_bytes"]

_FLOPS = {"cpu": 5e10, "cuda": 5e13}
"""Floating-point operations a second that a forward of frozen layers reaches, roughly."""
_WRITTEN = 1e9
"""Bytes a second written to a disk."""
_READ = {"cpu": 4e9, "cuda": 1e9}
"""Bytes a second read from the page cache and gathered into a batch; for a GPU, transferred too."""


def token_bytes(backbone: Backbone) -> int:
    """Bytes of one token's states."""
    dtype: torch.dtype = backbone.dtype
    return backbone.shapes.hidden * dtype.itemsize


def caching_pays(backbone: Backbone, layers: int, passes: float, shared_by: int) -> bool:
    """Whether computing the states after the lowest `layers` once, writing and reading them costs
    less than computing them in each of the `passes` over the data of `shared_by` trials.

    In seconds a token; a forward takes 2 operations a parameter.
    """
    kind = "cuda" if backbone.device.type == "cuda" else "cpu"
    body = backbone.shapes.parameters_below(layers)
    forward_s = 2 * body / _FLOPS[kind]
    size = token_bytes(backbone)
    uses = passes * shared_by
    return uses * forward_s > forward_s + size / _WRITTEN + uses * size / _READ[kind]
