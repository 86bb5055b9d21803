"""Batches of several as one: every text is what it was, and nothing is wanted of what was added."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from peftsearch.training.objectives.batch import IGNORED, Given

PAD = 9


def read(*rows: list[int], wanted: Tensor, first: int = 0) -> Given:
    """Texts without padding."""
    ids = torch.tensor(rows)
    return Given({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, PAD, wanted, first)


def test_texts_are_padded_to_a_multiple_within_the_limit() -> None:
    short = read([1, 2], wanted=torch.tensor([0]))
    long = read([3, 4, 5], [6, 7, 8], wanted=torch.tensor([1, 0]))
    whole = Given.joined([short, long], multiple=4)
    assert whole.tensors["input_ids"].tolist() == [[1, 2, 9, 9], [3, 4, 5, 9], [6, 7, 8, 9]]
    assert whole.tensors["attention_mask"].sum(1).tolist() == [2, 3, 3]
    assert whole.wanted.tolist() == [0, 1, 0]
    assert Given.joined([short, long]).tensors["input_ids"].shape == (3, 3)
    assert Given.joined([short, long], 8, limit=5).tensors["input_ids"].shape == (3, 5)
    assert Given.joined([short, long], 8, limit=2).tensors["input_ids"].shape == (3, 3)


def test_wanted_tokens_stay_at_their_places() -> None:
    """A decoder's: wanted from place `first` on, and none at the last."""
    early = read([1, 2, 3, 4, 5], wanted=torch.tensor([[3, 4, 5]]), first=1)
    late = read([1, 2, 3, 4, 5, 6], wanted=torch.tensor([[6]]), first=4)
    whole = Given.joined([late, early], multiple=4)
    assert whole.first == 0
    assert whole.tensors["input_ids"].shape == (2, 8)
    assert whole.wanted.tolist() == [
        [IGNORED] * 4 + [6] + [IGNORED] * 2,
        [IGNORED, 3, 4, 5] + [IGNORED] * 3,
    ]
    assert Given.joined([late, late]).first == 4
    assert Given.joined([late, late]).wanted.tolist() == [[6], [6]]


def test_each_gets_its_own_texts_back() -> None:
    parts = [read([1, 2, 3], wanted=torch.tensor([5])), read([4, 5, 6], wanted=torch.tensor([7]))]
    again = Given.joined(parts).split([1, 1])
    for own, one in zip(again, parts, strict=True):
        assert own.tensors["input_ids"].tolist() == one.tensors["input_ids"].tolist()
        assert own.wanted.tolist() == one.wanted.tolist()


def test_nothing_is_wanted_of_texts_that_fill_up() -> None:
    labels = read([1], [2], [2], wanted=torch.tensor([0, 1, 1]))
    assert labels.ignoring(np.array([False, True, True])).wanted.tolist() == [0, IGNORED, IGNORED]
    numbers = read([1], [2], wanted=torch.tensor([0.5, 1.5]))
    assert numbers.ignoring(np.array([False, True])).wanted.isnan().tolist() == [False, True]
    assert labels.wanted.tolist() == [0, 1, 1], "the same as before"
