"""Batches: every example once, similar lengths together, in an order that only the seed decides."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.training.batches import epoch_batches, evaluation_batches, steps_per_epoch

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=300).map(
    lambda values: np.array(values, np.int64)
)


@given(lengths=LENGTHS, size=st.integers(1, 40), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_epoch_holds_every_example_once(
    lengths: np.ndarray, size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == steps_per_epoch(len(lengths), size)
    assert max(map(len, batches)) <= size


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_the_order_is_a_function_of_seed_and_epoch(lengths: np.ndarray, seed: int) -> None:
    first, again = (epoch_batches(lengths, 8, seed, 1) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_another_epoch_has_another_order() -> None:
    lengths = np.arange(1, 201)
    first, second = (np.concatenate(epoch_batches(lengths, 8, 0, e)) for e in (0, 1))
    assert not np.array_equal(first, second)


def test_bucketing_pads_little_and_shuffles_the_order_of_batches() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 2000)
    batches = epoch_batches(lengths, 16, 0, 0)
    padded = sum(lengths[b].max() * len(b) for b in batches)
    random = lengths.max() * len(lengths)
    assert padded < 1.1 * lengths.sum() < random
    longest = [lengths[b].max() for b in batches]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2


@given(lengths=LENGTHS, tokens=st.integers(50, 2000))
def test_evaluation_batches_cover_everything_within_the_budget(
    lengths: np.ndarray, tokens: int
) -> None:
    batches = evaluation_batches(lengths, tokens)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(b) == 1 or lengths[b].max() * len(b) <= tokens for b in batches)
