"""Standard errors of metrics against closed forms and brute-force resampling."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from peftsearch.task.metrics.metric import METRICS, metrics_for
from peftsearch.task.metrics.resampling import (
    RESAMPLES,
    SEED,
    bootstrap_error,
    mean_error,
    ratio_error,
)

WORDS = "the a cat dog sat ran on under mat tree and then it was very cold . , ! Straße".split()


def corpus(n: int, seed: int = 1) -> tuple[list[str], list[str]]:
    """n references, and predictions that keep a third to all of their words."""
    draws = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(n):
        words = draws.choice(WORDS, size=draws.integers(4, 30))
        noise = draws.choice(WORDS, size=len(words))
        kept = draws.random(len(words)) < draws.uniform(0.3, 1)
        references.append(" ".join(words))
        predictions.append(" ".join(np.where(kept, words, noise)))
    return references, predictions


def brute_force(n: int, score: Callable[[NDArray[np.int64]], float]) -> float:
    """The bootstrap as a textbook has it, each sample scored from its examples."""
    draws = np.random.default_rng(SEED)
    indices = draws.integers(0, n, size=(RESAMPLES, n))
    return float(np.std([score(row) for row in indices], ddof=1))


def test_accuracys_error_is_the_binomials() -> None:
    references = np.array([1] * 100)
    predictions = np.array([1] * 80 + [0] * 20)

    error = METRICS["accuracy"].standard_error(references, predictions)
    assert error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))


def test_exact_matches_error_is_the_binomials() -> None:
    error = METRICS["exact_match"].standard_error(["a"] * 50, ["a"] * 10 + ["b"] * 40)

    assert error == pytest.approx(math.sqrt(0.2 * 0.8 / 50))


def test_the_bootstrap_agrees_with_the_binomial() -> None:
    right = (np.arange(400) % 4 > 0).astype(np.float64)

    error = bootstrap_error(400, lambda at: float(right[at].mean()))
    assert error == pytest.approx(math.sqrt(0.75 * 0.25 / 400), rel=0.15)
    assert error == pytest.approx(mean_error(right), rel=0.15)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouges_error_is_its_spread_over_root_n(name: str) -> None:
    references, predictions = corpus(40)
    pairs = zip(references, predictions, strict=True)
    each = [METRICS[name].value([a], [b]) for a, b in pairs]

    error = METRICS[name].standard_error(references, predictions)
    assert error == pytest.approx(np.std(each) / math.sqrt(40))


def test_mses_error_is_its_spread_over_root_n() -> None:
    draws = np.random.default_rng(0)
    references, predictions = draws.normal(size=(2, 60))

    squares = (references - predictions) ** 2
    error = METRICS["mse"].standard_error(references, predictions)
    assert error == pytest.approx(np.std(squares) / math.sqrt(60))


def losses(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    draws = np.random.default_rng(2)
    tokens = draws.integers(1, 60, n)
    return tokens, tokens * draws.gamma(4.0, 0.5, n)


def test_a_losss_error_agrees_with_the_jackknife() -> None:
    tokens, nats = losses(300)
    without = (nats.sum() - nats) / (tokens.sum() - tokens)
    jackknife = math.sqrt(299 / 300 * ((without - without.mean()) ** 2).sum())

    assert METRICS["loss"].standard_error(tokens, nats) == pytest.approx(jackknife, rel=0.02)


def test_a_perplexitys_error_agrees_with_the_bootstrap() -> None:
    tokens, nats = losses(300)
    expected = brute_force(300, lambda at: math.exp(nats[at].sum() / tokens[at].sum()))

    assert METRICS["perplexity"].standard_error(tokens, nats) == pytest.approx(expected, rel=0.15)


def test_a_ratio_to_ones_has_the_error_of_a_mean() -> None:
    values = np.array([1.0, 4.0, 2.0, 7.0])

    assert ratio_error(values, np.ones(4, np.int64)) == pytest.approx(mean_error(values))


@pytest.mark.slow
@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("name", ["macro_f1", "f1", "matthews"])
def test_errors_from_counts_of_labels_are_those_of_resampled_labels(name: str, labels: int) -> None:
    draws = np.random.default_rng(labels)
    references = draws.integers(0, labels, 60)
    predictions = np.where(draws.random(60) < 0.6, references, draws.integers(0, labels, 60))
    metric = METRICS[name]

    expected = brute_force(60, lambda at: metric.value(references[at], predictions[at]))
    assert metric.standard_error(references, predictions) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_errors_of_correlations_are_those_of_resampled_pairs(name: str) -> None:
    from scipy import stats

    draws = np.random.default_rng(4)
    references = draws.normal(size=80)
    predictions = references + draws.normal(size=80)
    score = getattr(stats, f"{name}r")

    expected = brute_force(80, lambda at: score(references[at], predictions[at]).statistic)
    error = METRICS[name].standard_error(references, predictions)
    assert error == pytest.approx(expected, rel=1e-9)


def test_pearsons_error_agrees_with_its_closed_form() -> None:
    draws = np.random.default_rng(5)
    references = draws.normal(size=1000)
    predictions = references + draws.normal(size=1000)
    value = METRICS["pearson"].value(references, predictions)

    # Of a normal pair: (1 − ρ²)/√n.
    error = METRICS["pearson"].standard_error(references, predictions)
    assert error == pytest.approx((1 - value**2) / math.sqrt(1000), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_errors_from_counts_of_n_grams_are_those_of_resampled_texts(name: str) -> None:
    import sacrebleu

    references, predictions = corpus(12)
    # Also texts too short for n-grams of every length, with none of their own, and in no alphabet.
    references += ["", "東京は", "yes", "a b"]
    predictions += ["a cat", "東京", "", "x y z"]
    metric = {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF()}[name]

    def score(at: NDArray[np.int64]) -> float:
        chosen = [predictions[i] for i in at], [[references[i] for i in at]]
        return float(metric.corpus_score(*chosen).score)

    error = METRICS[name].standard_error(references, predictions)
    assert error == pytest.approx(brute_force(16, score), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bleu", "chrf", "rougeL"])
def test_the_error_of_1000_sentences_costs_below_two_seconds(name: str) -> None:
    references, predictions = corpus(1000)
    METRICS[name].refuse_if_missing()

    begun = time.process_time()
    METRICS[name].standard_error(references, predictions)
    assert time.process_time() - begun < 2


def test_rouge_computed_for_a_value_serves_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    references, predictions = corpus(20, seed=9)
    METRICS["rouge2"].value(references, predictions)
    monkeypatch.setattr(RougeScorer, "score", None)

    assert METRICS["rouge2"].standard_error(references, predictions) > 0


@pytest.mark.parametrize("name", metrics_for("labels"))
def test_errors_are_the_same_whenever_they_are_asked_for(name: str) -> None:
    pair: Any = np.random.default_rng(6).integers(0, 2, (2, 50))

    assert METRICS[name].standard_error(*pair) == METRICS[name].standard_error(*pair)
