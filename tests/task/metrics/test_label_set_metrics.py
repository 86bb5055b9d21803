"""Metrics of sets of labels against scikit-learn, torch, hand-computed values and brute force."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss

from peftsearch.task.metrics.resampling import RESAMPLES, SEED
from peftsearch.task.metrics.table import METRICS, metrics_for

SETS = metrics_for("label sets")
shapes = st.tuples(st.integers(1, 12), st.integers(1, 5))


@st.composite
def pairs(draw: Any) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    shape = draw(shapes)
    references = draw(arrays(np.int8, shape, elements=st.integers(0, 1)))
    return references, draw(arrays(np.float64, shape, elements=st.floats(-30, 30)))


def drawn(n: int, labels: int, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    draws = np.random.default_rng(seed)
    references = (draws.random((n, labels)) < draws.uniform(0.1, 0.6, labels)).astype(np.int8)
    return references, draws.normal(size=(n, labels)) + references - 0.5


def test_kinds_of_metrics() -> None:
    assert SETS == ("f1_micro", "f1_macro", "subset_accuracy", "bce")


@pytest.mark.parametrize("average", ["micro", "macro"])
@given(pairs())
@settings(max_examples=60)
def test_f1_is_sklearns(average: str, pair: Any) -> None:
    references, logits = pair
    # A single column is one of two labels for scikit-learn, not a set.
    average_of = "binary" if references.shape[1] == 1 else average
    expected = f1_score(references, logits > 0, average=average_of, zero_division=0)
    assert METRICS[f"f1_{average}"].value(references, logits) == pytest.approx(expected)


@pytest.mark.slow
@given(pairs())
@settings(max_examples=100)
def test_subset_accuracy_is_sklearns(pair: Any) -> None:
    references, logits = pair
    expected = accuracy_score(references, (logits > 0).astype(np.int8))
    assert METRICS["subset_accuracy"].value(references, logits) == pytest.approx(expected)


@pytest.mark.slow
@given(pairs())
@settings(max_examples=50)
def test_bce_is_torchs_and_sklearns(pair: Any) -> None:
    references, logits = pair
    losses = torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), torch.tensor(references).double())
    assert METRICS["bce"].value(references, logits) == pytest.approx(losses.item(), abs=1e-12)
    logits = np.clip(logits, -8, 8)  # beyond, 1 - share has few digits left
    shares = 1 / (1 + np.exp(-logits))
    each = [log_loss(references[:, k], shares[:, k], labels=[0, 1]) for k in range(logits.shape[1])]
    assert METRICS["bce"].value(references, logits) == pytest.approx(np.mean(each), abs=1e-9)


def test_by_hand() -> None:
    references = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], np.int8)
    logits = np.array([[2.0, -1, -1], [-3, -1, 0.5], [1, 1, -2]])
    # Right: 1 + 0 + 2; predicted 1 + 1 + 2 = 4; references 2 + 0 + 2 = 4. By label: 1, 1, 0.
    values = {name: METRICS[name].value(references, logits) for name in SETS[:3]}
    assert values == pytest.approx({"f1_micro": 6 / 8, "f1_macro": 2 / 3, "subset_accuracy": 1 / 3})


def test_a_logit_of_exactly_0_is_no_label() -> None:
    zero = np.zeros((1, 1))
    assert METRICS["subset_accuracy"].value(np.array([[0]], np.int8), zero) == 1
    assert METRICS["subset_accuracy"].value(np.array([[1]], np.int8), zero) == 0


def test_nothing_predicted_where_nothing_is_a_reference_is_f1_of_0() -> None:
    references, logits = np.zeros((4, 2), np.int8), -np.ones((4, 2))
    assert [METRICS[name].value(references, logits) for name in SETS[:3]] == [0, 0, 1]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_scores_nan(name: str, wrong: float) -> None:
    references, logits = drawn(5, 3)
    logits[2, 1] = wrong
    assert math.isnan(METRICS[name].value(references, logits))
    assert math.isnan(METRICS[name].standard_error(references, logits))


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS[:2])
def test_errors_of_f1_are_the_textbooks_bootstrap(name: str) -> None:
    references, logits = drawn(60, 4)
    indices = np.random.default_rng(SEED).integers(0, 60, size=(RESAMPLES, 60))
    average = name.removeprefix("f1_")
    scores = [
        f1_score(references[at], logits[at] > 0, average=average, zero_division=0) for at in indices
    ]
    expected = float(np.std(scores, ddof=1))
    assert METRICS[name].standard_error(references, logits) == pytest.approx(expected)


@pytest.mark.parametrize("name", SETS[2:])
def test_errors_of_means_are_their_examples(name: str) -> None:
    references, logits = drawn(60, 4)
    each = [METRICS[name].value(references[i : i + 1], logits[i : i + 1]) for i in range(60)]
    expected = np.std(each) / math.sqrt(60)
    assert METRICS[name].standard_error(references, logits) == pytest.approx(expected)


def test_errors_with_many_labels_take_no_time() -> None:
    references, logits = drawn(5_000, 300)
    began = time.process_time()
    METRICS["f1_macro"].standard_error(references, logits - 3)
    assert time.process_time() - began < 10


def test_a_constant_predictor_says_the_labels_of_the_majority() -> None:
    references = np.array([[1, 0, 0], [1, 0, 1], [1, 1, 0], [0, 0, 1]], np.int8)
    # It says label 0, of 3 in 4; label 2, of 2 in 4, is not of more than half.
    # Micro: 2 · 3/(4 + 6); macro: (6/7 + 0 + 0)/3; one set of four is {0}.
    # Entropies of 3/4, 1/4 and 1/2.
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    expected = {
        "f1_micro": 0.6,
        "f1_macro": 2 / 7,
        "subset_accuracy": 0.25,
        "bce": (2 * quarter + math.log(2)) / 3,
    }
    values = {name: METRICS[name].constant_value(references) for name in SETS}
    assert values == pytest.approx(expected)


def test_where_no_reference_has_a_label_f1_has_no_constant_to_begin_at() -> None:
    none = np.zeros((4, 2), np.int8)
    assert math.isnan(METRICS["f1_micro"].constant_value(none) or 0)
    assert math.isnan(METRICS["f1_macro"].constant_value(none) or 0)
    assert METRICS["subset_accuracy"].constant_value(none) == 1


def test_the_constant_of_bce_is_the_best_constant_there_is() -> None:
    references, _ = drawn(50, 3)
    shares = references.mean(0)
    logits = np.broadcast_to(np.log(shares / (1 - shares)), references.shape)
    best = METRICS["bce"].value(references, logits)
    assert METRICS["bce"].constant_value(references) == pytest.approx(best)


def test_labels_that_are_always_or_never_there_have_no_entropy() -> None:
    assert METRICS["bce"].constant_value(np.array([[1, 0], [1, 0]], np.int8)) == 0
