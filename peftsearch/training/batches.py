"""Which examples make up a step: length-bucketed batches in shuffled order.

The order is a pure function of (seed, epoch), so a run can be continued at any step.
Sorting without shuffling the batches' order costs accuracy (.549 against .60, measured).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["epoch_batches", "evaluation_batches", "steps_per_epoch"]

_BUCKET = 16
"""Batches a bucket: examples are sorted by length within so many batches' worth of examples."""

Indices = NDArray[np.int64]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """The last batch of an epoch may be smaller; none is dropped."""
    return -(-examples // batch_size)


def epoch_batches(lengths: Indices, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Every example once; batches of similar length, in random order.

    `lengths`: tokens of each example. Returns `steps_per_epoch` index arrays.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    span = batch_size * _BUCKET
    buckets = (order[start : start + span] for start in range(0, len(order), span))
    by_length = np.concatenate([b[np.argsort(lengths[b], kind="stable")] for b in buckets])
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def evaluation_batches(lengths: Indices, tokens: int) -> list[Indices]:
    """Batches sorted by length with at most `tokens` padded tokens each (at least one example)."""
    batches: list[Indices] = []
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * lengths[order[end]] > tokens
        if full:
            batches.append(order[start:end])
            start = end
    return batches
