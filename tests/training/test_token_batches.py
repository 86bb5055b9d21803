"""Batches of so many tokens: within the limit, every example once an epoch, continued exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.configuration import Training
from peftsearch.training.batches import BatchOrder, token_batches
from support.texts import (
    TRAINING,
    furthest,
    run_of,
    tuned,
    writer,
)

STEPS = 10

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=200).map(
    lambda values: np.array(values, np.int64)
)


@given(lengths=LENGTHS, tokens=st.integers(1, 900), seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_an_epoch_by_tokens_holds_every_example_once_within_the_limit(
    lengths: np.ndarray, tokens: int, seed: int, epoch: int
) -> None:
    batches = token_batches(lengths, tokens, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(b) == 1 or lengths[b].max() * len(b) <= tokens for b in batches)


@pytest.mark.slow
@given(lengths=LENGTHS, tokens=st.integers(30, 500), steps=st.lists(st.integers(0, 60), max_size=8))
def test_the_batch_of_a_step_does_not_depend_on_the_steps_before_it(
    lengths: np.ndarray, tokens: int, steps: list[int]
) -> None:
    training = Training(batch_tokens=tokens)
    order = BatchOrder(lengths, training, 3)
    for step in steps:
        fresh = BatchOrder(lengths, training, 3).batch(step)
        assert np.array_equal(order.batch(step), fresh)


def test_batches_by_tokens_are_near_full_and_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 100, 2000)
    batches, again = (token_batches(lengths, 1000, 0, epoch) for epoch in (0, 1))
    assert lengths.sum() / (1000 * len(batches)) > 0.85
    longest = [lengths[b].max() for b in batches]
    assert abs(np.corrcoef(np.arange(len(longest)), longest)[0, 1]) < 0.2
    assert any(not np.array_equal(*pair) for pair in zip(batches, again, strict=False))


def test_a_decoder_reads_no_more_tokens_a_step_than_were_asked_for() -> None:
    backbone = writer("llama")
    seen: list[int] = []
    hook = backbone.lm.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given["input_ids"].numel()), with_kwargs=True
    )
    with run_of(backbone, replace(TRAINING, batch_tokens=50)) as run:
        run.train_to(STEPS)
        per_epoch = run.order.per_epoch
    hook.remove()
    assert len(seen) == STEPS
    assert 25 < max(seen) <= 50
    assert per_epoch > 3


@pytest.mark.parametrize("cut", [1, 7])
def test_a_killed_run_by_tokens_goes_on_bit_for_bit(cut: int, tmp_path: Path) -> None:
    """Over more than one epoch, each of its own number of batches."""
    training = replace(TRAINING, batch_tokens=60)
    with run_of(writer("llama", torch.float32), training, 12) as run:
        assert run.order.per_epoch < 12
        run.train_to(12)
        whole = tuned(run)
    with run_of(writer("llama", torch.float32), training, 12) as first:
        first.train_to(cut)
        first.save(tmp_path / "checkpoint.safetensors")
    with run_of(writer("llama", torch.float32), training, 12) as second:
        second.restore(tmp_path / "checkpoint.safetensors")
        second.train_to(12)
        assert furthest(whole, tuned(second)) == 0
