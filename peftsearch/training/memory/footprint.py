"""Memory footprint: an upper bound on the bytes of a CPU worker, from a model's shapes.

Constants are measured (benchmarks/memory.py, docs/performance.md), rounded up.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from peftsearch.design.shapes import BackboneShapes
from peftsearch.training.positions import MAX_TRAINED_POSITIONS

__all__ = ["Footprint", "machine_bytes"]

_LIMIT = Path("/sys/fs/cgroup/memory.max")
_FLOAT = 4
_PROCESS = 640 << 20
"""Bytes of Python, torch, transformers and a small task, and of freed memory that malloc keeps."""
_STATES = 8
"""Vectors of the model's width that a layer keeps for each position until the backward pass, beside
two of the feed-forward layer's width.
"""
_FULL, _SPARSE = 8, 28
"""Copies of all weights in full fine-tuning (tuned, gradient, two moments, average, and a rung's
temporaries), and in diff-pruning, which trains two vectors of that size through several steps.
"""


@dataclass(frozen=True)
class Footprint:
    """Maximum bytes of a worker: with modifications alone (`modified`), with full fine-tuning in
    the space (`full`), with diff-pruning of all weights (`sparse`).
    """

    modified: int
    full: int
    sparse: int

    @classmethod
    def of(cls, shapes: BackboneShapes, batch: int, tokens: int) -> Footprint:
        """The bound for training in fp32, in batches of `batch` texts of `tokens` tokens."""
        weights = shapes.body_parameters * _FLOAT
        # A batch with a prompt is trained in parts of at most so many positions.
        positions = max(batch * tokens, MAX_TRAINED_POSITIONS["cpu"])
        modified = _PROCESS + weights + positions * _kept_floats(shapes) * _FLOAT
        return cls(modified, modified + _FULL * weights, modified + _SPARSE * weights)

    def workers(self, machine: int) -> tuple[int, int, int]:
        """Numbers of workers that fit into `machine` bytes: with modifications alone, with full
        fine-tuning, with diff-pruning.
        """
        modified, full, sparse = (
            machine // each for each in (self.modified, self.full, self.sparse)
        )
        return modified, full, sparse


def _kept_floats(shapes: BackboneShapes) -> int:
    """Numbers that all layers keep for one position until the backward pass."""
    attention = sum(_STATES * shape.d_in for shape in shapes.attention)
    return attention + sum(2 * shape.d_hidden for shape in shapes.ffn)


def machine_bytes() -> int:
    """Bytes of memory of this machine, or the container's limit if that is lower."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
