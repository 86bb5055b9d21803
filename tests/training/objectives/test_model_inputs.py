"""Batches of several as one: every text is what it was, and nothing is wanted of what was added."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from peftsearch.training.objectives.model_inputs import IGNORED, ModelInputs

PAD = 9


def read(*rows: list[int], targets: Tensor, first: int = 0) -> ModelInputs:
    """Texts without padding."""
    ids = torch.tensor(rows)
    return ModelInputs(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, PAD, targets, first
    )


def test_texts_are_padded_to_a_multiple_within_the_limit() -> None:
    short = read([1, 2], targets=torch.tensor([0]))
    long = read([3, 4, 5], [6, 7, 8], targets=torch.tensor([1, 0]))
    whole = ModelInputs.concatenated([short, long], multiple=4)
    assert whole.tensors["input_ids"].tolist() == [[1, 2, 9, 9], [3, 4, 5, 9], [6, 7, 8, 9]]
    assert whole.tensors["attention_mask"].sum(1).tolist() == [2, 3, 3]
    assert whole.targets.tolist() == [0, 1, 0]
    assert ModelInputs.concatenated([short, long]).tensors["input_ids"].shape == (3, 3)
    assert ModelInputs.concatenated([short, long], 8, limit=5).tensors["input_ids"].shape == (3, 5)
    assert ModelInputs.concatenated([short, long], 8, limit=2).tensors["input_ids"].shape == (3, 3)


def test_wanted_tokens_stay_at_their_places() -> None:
    """A decoder's: wanted from place `first` on, and none at the last."""
    early = read([1, 2, 3, 4, 5], targets=torch.tensor([[3, 4, 5]]), first=1)
    late = read([1, 2, 3, 4, 5, 6], targets=torch.tensor([[6]]), first=4)
    whole = ModelInputs.concatenated([late, early], multiple=4)
    assert whole.first_target == 0
    assert whole.tensors["input_ids"].shape == (2, 8)
    assert whole.targets.tolist() == [
        [IGNORED] * 4 + [6] + [IGNORED] * 2,
        [IGNORED, 3, 4, 5] + [IGNORED] * 3,
    ]
    assert ModelInputs.concatenated([late, late]).first_target == 4
    assert ModelInputs.concatenated([late, late]).targets.tolist() == [[6], [6]]


def test_each_gets_its_own_texts_back() -> None:
    parts = [read([1, 2, 3], targets=torch.tensor([5])), read([4, 5, 6], targets=torch.tensor([7]))]
    again = ModelInputs.concatenated(parts).split([1, 1])
    for own, one in zip(again, parts, strict=True):
        assert own.tensors["input_ids"].tolist() == one.tensors["input_ids"].tolist()
        assert own.targets.tolist() == one.targets.tolist()


def test_nothing_is_wanted_of_texts_that_fill_up() -> None:
    labels = read([1], [2], [2], targets=torch.tensor([0, 1, 1]))
    assert labels.without_targets(np.array([False, True, True])).targets.tolist() == [
        0,
        IGNORED,
        IGNORED,
    ]
    numbers = read([1], [2], targets=torch.tensor([0.5, 1.5]))
    assert numbers.without_targets(np.array([False, True])).targets.isnan().tolist() == [
        False,
        True,
    ]
    assert labels.targets.tolist() == [0, 1, 1], "the same as before"
