"""Batches of several as one: every text is what it was, and nothing is wanted of what was added."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from peftsearch.training.objectives.model_inputs import IGNORED, ModelInputs

PAD = 9


def read(*rows: list[int], targets: Tensor, places: list[list[int]] | None = None) -> ModelInputs:
    """Texts without padding; `places`: (text, token) of each target."""
    ids = torch.tensor(rows)
    where = None if places is None else torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T
    return ModelInputs(
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, PAD, targets, where
    )


def places(inputs: ModelInputs) -> list[list[int]]:
    assert inputs.predicting is not None
    return inputs.predicting.T.tolist()


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


EARLY = read([1, 2, 3, 4, 5], targets=torch.tensor([3, 4, 5]), places=[[0, 1], [0, 2], [0, 3]])
LATE = read(
    *([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7]),
    targets=torch.tensor([6, 7]),
    places=[[0, 4], [1, 4]],
)


def test_predicted_tokens_stay_at_their_places_in_a_longer_batch() -> None:
    whole = ModelInputs.concatenated([LATE, EARLY], multiple=4)
    assert whole.tensors["input_ids"].shape == (3, 8)
    assert whole.targets.tolist() == [6, 7, 3, 4, 5]
    assert places(whole) == [[0, 4], [1, 4], [2, 1], [2, 2], [2, 3]]


def test_each_configuration_gets_its_share_of_the_targets() -> None:
    whole = ModelInputs.concatenated([LATE, EARLY]).shared_among([2, 1])
    assert whole.outputs([2, 1]) == [2, 3]
    assert [own.targets.tolist() for own in whole.split([2, 1])] == [[6, 7], [3, 4, 5]]
    assert places(whole) == [[0, 4], [1, 4], [2, 1], [2, 2], [2, 3]]


def test_with_a_multiple_all_have_as_many_targets_a_text() -> None:
    """Three at most, of the second; in a multiple of two that is four for each of three texts."""
    whole = ModelInputs.concatenated([LATE, EARLY]).shared_among([2, 1], multiple=2)
    assert whole.outputs([2, 1]) == [8, 4]
    assert whole.targets.tolist() == [6, 7, *[IGNORED] * 6, 3, 4, 5, IGNORED]
    assert places(whole)[2:8] == [[0, 0]] * 6
    assert places(whole)[8:] == [[2, 1], [2, 2], [2, 3], [2, 0]]
    most = ModelInputs.concatenated([LATE, EARLY]).shared_among([2, 1], multiple=16)
    assert most.outputs([2, 1]) == [12, 6], "not more than the tokens of the texts"


def test_a_configuration_without_a_target_has_no_share() -> None:
    nothing = read([1, 2], targets=torch.zeros(0, dtype=torch.int64), places=[])
    whole = ModelInputs.concatenated([nothing, EARLY]).shared_among([1, 1])
    assert whole.outputs([1, 1]) == [0, 3]
    assert places(whole)[0] == [1, 1]


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
    texts = LATE.without_targets(np.array([True, False]))
    assert texts.targets.tolist() == [7]
    assert places(texts) == [[1, 4]]
