"""Values of metrics against the libraries that define them, and by hand where there is none."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftsearch.errors import MissingError
from peftsearch.task.kinds.table import KINDS
from peftsearch.task.metrics.classification import f1_of
from peftsearch.task.metrics.table import METRICS, metrics_for

LABELS = tuple(METRICS[name] for name in metrics_for("labels"))
CORRELATIONS = (METRICS["pearson"], METRICS["spearman"])
OF_TEXTS = tuple(m for m in METRICS.values() if m.of == "texts")

REFERENCES = (
    "The committee has decided to postpone its yearly meeting until October.",
    "Running costs were falling; profits, however, rose by 3.5% (to $12m).",
    "Ein Straßenfest in Köln – mit Musik und Tanz.",
    "東京は日本の首都です。",
    "yes",
)
PREDICTIONS = (
    "The committee decided to postpone the meeting until late October .",
    "Costs fell, and profits rose 3.5%.",
    "Ein Fest in Köln mit Tanz und Musik.",
    "東京は日本の都市です。",
    "",
)

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40).map(
    lambda pairs: np.array(pairs, np.int64).T
)
numbers = st.lists(
    st.tuples(*[st.floats(-1e6, 1e6).map(lambda x: round(x, 3))] * 2), min_size=2, max_size=30
).map(lambda pairs: np.array(pairs, np.float64).T)
words = st.sampled_from("the cat sat on a mat . Ümlaut 東 3.5%".split())
sentence = st.lists(words).map(" ".join)
sentences = st.lists(st.tuples(sentence, sentence), min_size=1, max_size=6)


@given(labels)
@settings(max_examples=40, deadline=None)
def test_accuracy_is_sklearns(pair: Any) -> None:
    from sklearn.metrics import accuracy_score

    assert METRICS["accuracy"].value(*pair) == pytest.approx(accuracy_score(*pair))


@given(labels)
@settings(max_examples=40, deadline=None)
def test_macro_f1_is_the_mean_over_labels_that_occur(pair: Any) -> None:
    references, predictions = pair.tolist()
    each = []
    for label in {*references, *predictions}:
        right = sum(a == b == label for a, b in zip(references, predictions, strict=True))
        each.append(2 * right / (references.count(label) + predictions.count(label)))

    assert METRICS["macro_f1"].value(*pair) == pytest.approx(sum(each) / len(each))


@given(labels)
@settings(max_examples=40, deadline=None)
def test_f1_is_sklearns_of_the_second_label(pair: Any) -> None:
    from sklearn.metrics import f1_score

    references, predictions = np.minimum(pair, 1)

    expected = f1_score(references, predictions, pos_label=1, zero_division=0)
    assert METRICS["f1"].value(references, predictions) == pytest.approx(expected)


@given(labels)
@settings(max_examples=40, deadline=None)
def test_f1_is_sklearns_of_any_label_that_is_named(pair: Any) -> None:
    from sklearn.metrics import f1_score

    references, predictions = pair
    for index in range(4):
        metric = f1_of("spam", index)
        of_all = f1_score(*pair, labels=[0, 1, 2, 3], average=None, zero_division=0)
        assert metric.value(*pair) == pytest.approx(of_all[index])
        one, other = (references == index).astype(int), (predictions == index).astype(int)
        assert metric.standard_error(*pair) == METRICS["f1"].standard_error(one, other)
    assert f1_of("spam", 2).title == "F1 of 'spam'"


@given(labels)
@settings(max_examples=40, deadline=None)
def test_matthews_is_the_correlation_of_one_hot_labels(pair: Any) -> None:
    one, other = np.eye(4)[pair[0]], np.eye(4)[pair[1]]
    one, other = one - one.mean(0), other - other.mean(0)
    spread = math.sqrt((one**2).sum() * (other**2).sum())

    expected = (one * other).sum() / spread if spread > 1e-9 else 0.0
    assert METRICS["matthews"].value(*pair) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_correlations_are_scipys(name: str) -> None:
    from scipy import stats

    draws = np.random.default_rng(3)
    references = draws.integers(0, 6, 200).astype(np.float64)
    predictions = references + draws.normal(size=200)

    expected = getattr(stats, f"{name}r")(references, predictions).statistic
    assert METRICS[name].value(references, predictions) == pytest.approx(expected, abs=1e-12)


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_correlations_stay_between_minus_one_and_one_without_a_warning(pair: Any) -> None:
    for metric in CORRELATIONS:
        assert -1 <= metric.value(*pair) <= 1


@pytest.mark.parametrize("metric", CORRELATIONS, ids=lambda m: m.name)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e300, 5e-324])
def test_a_constant_prediction_correlates_with_nothing(metric: Any, constant: float) -> None:
    references = np.array([1.0, 2.0, 5.0])

    assert metric.value(references, np.full(3, constant)) == 0
    assert metric.value(np.full(3, constant), references) == 0
    assert metric.standard_error(references, np.full(3, constant)) == 0


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_pearson_does_not_depend_on_the_scale(scale: float) -> None:
    values = np.array([1.0, 2.0, 5.0])

    assert METRICS["pearson"].value(values, values * scale) == pytest.approx(1.0)


@given(numbers)
@settings(max_examples=30, deadline=None)
def test_mse_is_sklearns(pair: Any) -> None:
    from sklearn.metrics import mean_squared_error

    assert METRICS["mse"].value(*pair) == pytest.approx(mean_squared_error(*pair))


@pytest.mark.parametrize("name", metrics_for("values"))
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_prediction_that_is_no_finite_number_scores_nan(name: str, wrong: float) -> None:
    pair = np.array([1.0, 2.0, 3.0]), np.array([1.0, wrong, 2.0])

    assert math.isnan(METRICS[name].value(*pair))
    assert math.isnan(METRICS[name].standard_error(*pair))


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_mean_of_rouge_scores_f1(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    pairs = zip(REFERENCES, PREDICTIONS, strict=True)
    each = [scorer.score(target=a, prediction=b)[name].fmeasure for a, b in pairs]

    assert METRICS[name].value(REFERENCES, PREDICTIONS) == pytest.approx(100 * sum(each) / 5)


def test_rouge_2_by_hand() -> None:
    # 2 of 3 pairs of the prediction are among the 4 of the reference; "cats" is stemmed.
    value = METRICS["rouge2"].value(["the two black cats sleep"], ["Two black cat sat"])

    assert value == pytest.approx(100 * 2 * (2 / 3 * 2 / 4) / (2 / 3 + 2 / 4))


@given(sentences)
@settings(max_examples=40, deadline=None)
def test_bleu_and_chrf_are_sacrebleus_of_the_corpus(pairs: list[tuple[str, str]]) -> None:
    from sacrebleu.metrics import BLEU, CHRF

    references, predictions = ([pair[i] for pair in pairs] for i in (0, 1))

    bleu = BLEU().corpus_score(predictions, [references]).score
    chrf = CHRF().corpus_score(predictions, [references]).score
    assert METRICS["bleu"].value(references, predictions) == bleu
    assert METRICS["chrf"].value(references, predictions) == chrf


def test_bleu_says_nothing_of_texts_that_end_in_a_separate_full_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = [f"the cat {i} sat on the mat ." for i in range(120)]

    assert METRICS["bleu"].value(texts, texts) == pytest.approx(100.0)
    assert METRICS["bleu"].standard_error(texts, texts) == pytest.approx(0.0, abs=1e-9)
    assert not caplog.records


def test_exact_match_strips_white_space_and_nothing_else() -> None:
    value = METRICS["exact_match"].value(["yes", "no", "ja", ""], [" yes\n", "No", "ja", "x"])

    assert value == 0.5


def test_loss_weighs_tokens_not_examples() -> None:
    tokens, nats = np.array([1, 9]), np.array([5.0, 15.0])

    assert METRICS["loss"].value(tokens, nats) == 2.0
    assert METRICS["perplexity"].value(tokens, nats) == pytest.approx(math.exp(2.0))


def test_perplexity_beyond_a_float_is_infinite() -> None:
    assert METRICS["perplexity"].value(np.array([1]), np.array([1e4])) == math.inf


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_finite_number_stays_one(wrong: float) -> None:
    pair = np.array([3, 4]), np.array([1.0, wrong])

    for name in ("loss", "perplexity"):
        assert not math.isfinite(METRICS[name].value(*pair))
        assert not math.isfinite(METRICS[name].standard_error(*pair))


@pytest.mark.parametrize("metric", LABELS, ids=lambda m: m.name)
def test_right_labels_have_the_best_value(metric: Any) -> None:
    # So many that no resample is of one label alone, of which F1 and MCC are 0.
    references = np.array([0, 1] * 20)

    assert metric.value(references, references) == pytest.approx(metric.best)
    assert metric.standard_error(references, references) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("metric", OF_TEXTS, ids=lambda m: m.name)
def test_identical_texts_have_the_best_value(metric: Any) -> None:
    texts = ["a cat sat on a mat", "two dogs ran very far away"]

    assert metric.value(texts, texts) == pytest.approx(metric.best)
    assert metric.standard_error(texts, texts) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("metric", OF_TEXTS, ids=lambda m: m.name)
def test_empty_predictions_score_nothing(metric: Any) -> None:
    assert metric.value(REFERENCES, [""] * 5) == 0
    assert metric.standard_error(REFERENCES, [""] * 5) == 0


@pytest.mark.parametrize("metric", OF_TEXTS, ids=lambda m: m.name)
def test_one_text_is_scored_with_error_zero(metric: Any) -> None:
    assert 0 <= metric.value(REFERENCES[:1], PREDICTIONS[:1]) <= metric.best
    assert metric.standard_error(REFERENCES[:1], PREDICTIONS[:1]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.name)
def test_no_examples_score_nan(metric: Any) -> None:
    none: dict[str, Any] = {
        "labels": np.zeros(0, np.int64),
        "label sets": np.zeros((0, 2)),
        "values": np.zeros(0),
        "texts": [],
        "loss": np.zeros(0, np.int64),
    }

    assert math.isnan(metric.value(none[metric.of], none[metric.of]))
    assert math.isnan(metric.standard_error(none[metric.of], none[metric.of]))


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.name)
def test_references_and_predictions_are_equally_many(metric: Any) -> None:
    with pytest.raises(ValueError, match=f"{metric.name}: 2 references and 1 predictions"):
        metric.value(np.ones(2, np.int64), np.ones(1, np.int64))


def test_a_constant_predictor_of_labels_says_the_most_frequent() -> None:
    references = np.array([2, 1, 1, 0])

    values = {m.name: m.constant_value(references) for m in LABELS}
    # Label 1 has F1 2 · 2/(2 + 4) = 2/3; labels 0 and 2 have 0.
    expected = {"accuracy": 0.5, "macro_f1": 2 / 9, "f1": 2 / 3, "matthews": 0.0}
    assert values == pytest.approx(expected)


def test_a_constant_predictor_of_numbers_says_the_mean() -> None:
    references = np.array([1.0, 2.0, 6.0])

    at_mean = METRICS["mse"].value(references, np.full(3, 3.0))
    assert METRICS["mse"].constant_value(references) == pytest.approx(at_mean)
    assert [m.constant_value(references) for m in CORRELATIONS] == [0.0, 0.0]


def test_a_constant_text_scores_nothing_and_has_no_loss() -> None:
    values = {name: METRICS[name].constant_value(REFERENCES) for name in metrics_for("texts")}

    assert values == {m.name: 0.0 for m in OF_TEXTS} | {"loss": None, "perplexity": None}


def test_values_are_written_with_the_decimals_papers_use() -> None:
    assert METRICS["accuracy"].format(0.753, 0.01361) == "0.7530 ± 0.0136"
    assert METRICS["rouge2"].format(21.9, 0.449) == "21.90 ± 0.45"
    assert METRICS["perplexity"].format(18.316) == "18.32"
    assert METRICS["matthews"].format(-1e-9, math.nan) == "0.0000"
    assert METRICS["loss"].format(math.nan, 0.1) == "–"


@pytest.mark.parametrize(
    ("kind", "default", "scored"),
    [
        ("classification", "accuracy", {"labels"}),
        ("multilabel", "f1_micro", {"label sets"}),
        ("regression", "pearson", {"values"}),
        ("seq2seq", "rouge2", {"texts", "loss"}),
        ("causal", "perplexity", {"texts", "loss"}),
    ],
)
def test_a_kind_offers_every_metric_of_its_output_its_default_first(
    kind: str, default: str, scored: set[str]
) -> None:
    offered = KINDS[kind].metrics
    assert offered[0] == default
    assert sorted(offered) == sorted(m.name for m in METRICS.values() if m.of in scored)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda m: m.name)
def test_a_metric_has_a_title_of_one_line(metric: Any) -> None:
    assert metric.title
    assert "\n" not in metric.title
    assert metric.decimals == (2 if metric.best == 100 or metric.name == "perplexity" else 4)


@pytest.mark.parametrize(
    ("name", "package"),
    [("rougeL", "rouge-score"), ("bleu", "sacrebleu"), ("chrf", "sacrebleu")],
)
def test_a_missing_library_is_named_with_how_to_install_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    METRICS[name].refuse_if_missing()
    monkeypatch.setitem(sys.modules, METRICS[name].needs or "", None)

    wanted = rf"'{package}'.*pip install 'peftsearch\[text\]'"
    with pytest.raises(MissingError, match=wanted):
        METRICS[name].refuse_if_missing()
    with pytest.raises(MissingError, match=wanted):
        METRICS[name].value(["asked of no cache"], [f"for {name}"])


def test_metrics_that_need_no_library_are_never_missing() -> None:
    for name in ("accuracy", "exact_match", "loss"):
        METRICS[name].refuse_if_missing()


OFFLINE = """
import socket, sys

def refused(*args, **kwargs):
    raise AssertionError("a connection was tried")

socket.socket.connect = refused
from peftsearch.task.metrics.table import METRICS
assert not {"sklearn", "scipy", "rouge_score", "sacrebleu", "nltk"} & set(sys.modules)
print(METRICS["rouge1"].value(["running far"], ["it ran far"]), METRICS["bleu"].value(["a"], ["a"]))
"""


@pytest.mark.slow
def test_libraries_are_imported_when_asked_for_without_network_or_warnings() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", OFFLINE], capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    assert done.stdout.startswith("40.0")
