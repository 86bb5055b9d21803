"""Scores of written texts. References and predictions are sequences of n texts.

ROUGE is a mean over texts. BLEU and chrF are computed from counts summed over all texts, and
their errors by resampling those counts (Koehn 2004, Statistical Significance Tests for Machine
Translation Evaluation).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from peftsearch.task.metrics.base import Metric, library
from peftsearch.task.metrics.per_example import PerExample, mean_of
from peftsearch.task.metrics.resampling import bootstrap_error, mean_error

__all__ = [
    "ROWS",
    "bleu",
    "bleu_error",
    "chrf",
    "chrf_error",
    "exact_match",
    "exact_match_error",
    "rouge1",
    "rouge1_error",
    "rouge2",
    "rouge2_error",
    "rouge_l",
    "rouge_l_error",
]

Texts = Sequence[str]
Counts = NDArray[np.int64]

CHRF_ORDERS = 6
CHRF_BETA = 2
"""chrF2, sacrebleu's default (Popović 2015)."""


def exact_match(references: Texts, predictions: Texts) -> float:
    """Share of predictions equal to the reference but for white space around them, 0 to 1.

    >>> exact_match(["a sonata", "a fugue"], ["a sonata ", "a waltz"])
    0.5
    """
    return _mean(_exact(references, predictions).astype(np.float64))


def exact_match_error(references: Texts, predictions: Texts) -> float:
    return mean_error(_exact(references, predictions).astype(np.float64))


def rouge1(references: Texts, predictions: Texts) -> float:
    """Mean F1 × 100 of words, stemmed (Lin 2004).

    >>> round(rouge1(["the cat sat"], ["a cat sat"]), 2)
    66.67
    """
    return _mean(_rouge("rouge1", references, predictions))


def rouge1_error(references: Texts, predictions: Texts) -> float:
    return mean_error(_rouge("rouge1", references, predictions))


def rouge2(references: Texts, predictions: Texts) -> float:
    """Mean F1 × 100 of pairs of adjacent words, stemmed (Lin 2004); 0 for a text of one word.

    >>> rouge2(["the cat sat"], ["a cat sat"])
    50.0
    """
    return _mean(_rouge("rouge2", references, predictions))


def rouge2_error(references: Texts, predictions: Texts) -> float:
    return mean_error(_rouge("rouge2", references, predictions))


def rouge_l(references: Texts, predictions: Texts) -> float:
    """Mean F1 × 100 of the longest common subsequence of stemmed words, a text being one sequence
    whatever its lines (Lin 2004).

    >>> round(rouge_l(["the cat sat"], ["the dog sat"]), 2)
    66.67
    """
    return _mean(_rouge("rougeL", references, predictions))


def rouge_l_error(references: Texts, predictions: Texts) -> float:
    return mean_error(_rouge("rougeL", references, predictions))


def bleu(references: Texts, predictions: Texts) -> float:
    """BLEU of the whole corpus, 0–100: sacrebleu's defaults (Post 2018): 13a tokens, mixed case,
    exponential smoothing.

    >>> round(bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
    53.73
    """
    if len(references) == 0:
        return math.nan
    # force only silences a warning, at every evaluation, about texts that end in " .".
    scored = library("sacrebleu").corpus_bleu(list(predictions), [list(references)], force=True)
    return float(scored.score)


def bleu_error(references: Texts, predictions: Texts) -> float:
    if len(references) == 0:
        return math.nan
    counts = _bleu_counts(references, predictions)
    return bootstrap_error(len(counts), lambda at: _bleu_of(counts[at].sum(axis=0)))


def chrf(references: Texts, predictions: Texts) -> float:
    """chrF2 of the whole corpus, 0–100: sacrebleu's defaults (Popović 2015).

    >>> round(chrf(["the cat sat"], ["a cat sat"]), 2)
    53.61
    """
    if len(references) == 0:
        return math.nan
    scored = library("sacrebleu").corpus_chrf(list(predictions), [list(references)])
    return float(scored.score)


def chrf_error(references: Texts, predictions: Texts) -> float:
    if len(references) == 0:
        return math.nan
    counts = _chrf_counts(references, predictions)
    return bootstrap_error(len(counts), lambda at: _chrf_of(counts[at].sum(axis=0)))


def _mean(each: NDArray[np.float64]) -> float:
    return float(each.mean()) if len(each) else math.nan


def _exact(references: Texts, predictions: Texts) -> NDArray[np.bool_]:
    pairs = zip(references, predictions, strict=True)
    return np.array([a.strip() == b.strip() for a, b in pairs], np.bool_)


def _rouge(name: str, references: Texts, predictions: Texts) -> NDArray[np.float64]:
    return _rouge_each(name, tuple(references), tuple(predictions))


@lru_cache(maxsize=1)
def _rouge_each(
    name: str, references: tuple[str, ...], predictions: tuple[str, ...]
) -> NDArray[np.float64]:
    """F1 × 100 of every text (n,)."""
    # Cached until other texts come: the stemmer takes half a second for 1,000 sentences, and the
    # error is asked for after the value.
    scorer = library("rouge_score.rouge_scorer").RougeScorer([name], use_stemmer=True)
    pairs = zip(references, predictions, strict=True)
    each = np.array([100 * scorer.score(a, b)[name].fmeasure for a, b in pairs], np.float64)
    each.setflags(write=False)
    return each


def _bleu_counts(references: Texts, predictions: Texts) -> Counts:
    return _bleu_counts_each(tuple(references), tuple(predictions))


@lru_cache(maxsize=1)  # the error's are those that a trial keeps
def _bleu_counts_each(references: tuple[str, ...], predictions: tuple[str, ...]) -> Counts:
    """Counts of every text (n, 10): length, reference's length, and for n from 1 to 4 the n-grams
    that match, then all n-grams.
    """
    metric = library("sacrebleu").BLEU(force=True)
    rows = []
    for reference, prediction in zip(references, predictions, strict=True):
        one = metric.corpus_score([prediction], [[reference]])
        rows.append([one.sys_len, one.ref_len, *one.counts, *one.totals])
    counts = np.array(rows, np.int64)
    counts.setflags(write=False)
    return counts


def _bleu_of(sums: Counts) -> float:
    """BLEU of a corpus with these counts (10,)."""
    found, wanted, *grams = sums.tolist()
    compute = library("sacrebleu").BLEU.compute_bleu
    return float(compute(grams[:4], grams[4:], found, wanted, smooth_method="exp").score)


def _chrf_counts(references: Texts, predictions: Texts) -> Counts:
    return _chrf_counts_each(tuple(references), tuple(predictions))


@lru_cache(maxsize=1)
def _chrf_counts_each(references: tuple[str, ...], predictions: tuple[str, ...]) -> Counts:
    """Counts of every text (n, 18): see `_chrf_counts_of`."""
    pairs = zip(references, predictions, strict=True)
    counts = np.array([_chrf_counts_of(*pair) for pair in pairs], np.int64)
    counts.setflags(write=False)
    return counts


def _chrf_counts_of(reference: str, prediction: str) -> list[int]:
    """Counts of one text (18,): for n from 1 to 6 the n-grams of the prediction, of the reference,
    and in both.
    """
    one, other = "".join(prediction.split()), "".join(reference.split())
    counts: list[int] = []
    for n in range(1, CHRF_ORDERS + 1):
        found, wanted = _ngrams(one, n), _ngrams(other, n)
        # sacrebleu counts no n-grams of a prediction whose reference is too short to have any.
        total = sum(found.values()) if wanted else 0
        counts += [total, sum(wanted.values()), sum((found & wanted).values())]
    return counts


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _chrf_of(sums: Counts) -> float:
    """F2 of precision and recall averaged over the n that occur in both (sacrebleu ≥ 2)."""
    found, wanted, both = sums.reshape(CHRF_ORDERS, 3).T
    seen = (found > 0) & (wanted > 0)
    if not both.any():
        return 0.0
    precision = (both[seen] / found[seen]).mean()
    recall = (both[seen] / wanted[seen]).mean()
    factor = CHRF_BETA**2
    return float(100 * (1 + factor) * precision * recall / (factor * precision + recall))


def _from_counts(
    each: Callable[[Texts, Texts], Counts], score: Callable[[Counts], float]
) -> PerExample:
    """For a corpus's score, computed from sums of counts: those of every text (n, counts)."""
    return PerExample(
        lambda references, predictions: {"counts": each(references, predictions)},
        lambda arrays: score(arrays["counts"].sum(axis=0)),
    )


ROUGE = "rouge_score.rouge_scorer"
SACREBLEU = "sacrebleu"

ROWS = (
    Metric(
        "rouge2",
        "texts",
        rouge2,
        rouge2_error,
        title="ROUGE-2 F1 × 100",
        per_example=mean_of(partial(_rouge, "rouge2")),
        best=100.0,
        decimals=2,
        needs=ROUGE,
    ),
    Metric(
        "rouge1",
        "texts",
        rouge1,
        rouge1_error,
        title="ROUGE-1 F1 × 100",
        per_example=mean_of(partial(_rouge, "rouge1")),
        best=100.0,
        decimals=2,
        needs=ROUGE,
    ),
    Metric(
        "rougeL",
        "texts",
        rouge_l,
        rouge_l_error,
        title="ROUGE-L F1 × 100",
        per_example=mean_of(partial(_rouge, "rougeL")),
        best=100.0,
        decimals=2,
        needs=ROUGE,
    ),
    Metric(
        "bleu",
        "texts",
        bleu,
        bleu_error,
        title="BLEU",
        per_example=_from_counts(_bleu_counts, _bleu_of),
        best=100.0,
        decimals=2,
        needs=SACREBLEU,
    ),
    Metric(
        "chrf",
        "texts",
        chrf,
        chrf_error,
        title="chrF2",
        per_example=_from_counts(_chrf_counts, _chrf_of),
        best=100.0,
        decimals=2,
        needs=SACREBLEU,
    ),
    Metric(
        "exact_match",
        "texts",
        exact_match,
        exact_match_error,
        title="exact match",
        per_example=mean_of(_exact),
    ),
)
