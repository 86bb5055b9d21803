"""What a trial keeps of its examples gives every metric of the table, for any sample of them."""

from __future__ import annotations

import numpy as np
import pytest

from peftsearch.task.metrics.classification import f1_of
from peftsearch.task.metrics.per_example import SCORE
from peftsearch.task.metrics.table import METRICS
from support.predictions import drawn, sample_of

N = 60
ROUNDING = {"chrf": 1e-12}
"""chrF is sacrebleu's from texts and our own from counts; of all others the same sums are taken."""
ALL = METRICS | {"f1 of label 0": f1_of("zero", 0), "f1 of label 2": f1_of("two", 2)}


@pytest.mark.parametrize("name", ALL)
def test_the_statistics_of_examples_give_the_metric(name: str) -> None:
    metric = ALL[name]
    references, predictions = drawn(metric, N)
    arrays = metric.per_example.of(references, predictions)
    assert {len(values) for values in arrays.values()} == {N}
    expected = metric.value(references, predictions)
    assert metric.per_example.value(arrays) == pytest.approx(expected, rel=ROUNDING.get(name, 0))


@pytest.mark.parametrize("name", ALL)
def test_so_do_those_of_a_sample_in_which_examples_repeat(name: str) -> None:
    metric = ALL[name]
    references, predictions = drawn(metric, N)
    at = np.random.default_rng(1).integers(0, N, N)
    arrays = metric.per_example.of(references, predictions)
    found = metric.per_example.value({key: values[at] for key, values in arrays.items()})
    expected = metric.value(sample_of(references, at), sample_of(predictions, at))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_scores_are_those_of_each_example_by_itself(name: str) -> None:
    metric = ALL[name]
    references, predictions = drawn(metric, N)
    scores = metric.per_example.of(references, predictions).get(SCORE)
    if scores is None:
        assert metric.name not in ("accuracy", "subset_accuracy", "bce", "mse", "exact_match")
        assert not metric.name.startswith("rouge")
        return
    each = [
        metric.value(*(sample_of(values, np.array([i])) for values in (references, predictions)))
        for i in range(N)
    ]
    assert scores.astype(np.float64) == pytest.approx(each)
