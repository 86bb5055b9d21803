"""The table of well-known data sets: complete, and what a user says wins over it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from peftsearch.errors import UsageError
from peftsearch.task.kinds.table import KINDS
from peftsearch.task.sources.known import KNOWN_DATASETS, KnownDataset, completed, known_dataset
from peftsearch.task.spec import TaskSpec

GLUE = {
    # columns of the text, metric (Wang et al. 2018, Table 1)
    "cola": (("sentence",), "matthews"),
    "sst2": (("sentence",), "accuracy"),
    "mrpc": (("sentence1", "sentence2"), "f1"),
    "qqp": (("question1", "question2"), "f1"),
    "stsb": (("sentence1", "sentence2"), "pearson"),
    "mnli": (("premise", "hypothesis"), "accuracy"),
    "qnli": (("question", "sentence"), "accuracy"),
    "rte": (("sentence1", "sentence2"), "accuracy"),
    "wnli": (("sentence1", "sentence2"), "accuracy"),
}


def row(name: str) -> KnownDataset:
    found = known_dataset(name)
    assert found is not None
    return found


@pytest.mark.parametrize("task", GLUE)
def test_every_task_of_glue_is_known(task: str) -> None:
    found = row(f"nyu-mll/glue:{task}")
    assert (found.text, found.metric) == GLUE[task]
    assert found.kind == ("regression" if task == "stsb" else "classification")
    assert found.splits.validation == ("validation_matched" if task == "mnli" else "validation")


def test_of_glue_only_the_test_labels_of_mrpc_are_given() -> None:
    assert [task for task in GLUE if row(f"glue:{task}").splits.test] == ["mrpc"]


@pytest.mark.parametrize(
    ("alias", "name", "columns", "metric"),
    [
        ("glue:sst2", "nyu-mll/glue:sst2", "sentence label", "accuracy"),
        ("xsum", "EdinburghNLP/xsum", "document summary", "rouge2"),
        ("cnn_dailymail", "abisee/cnn_dailymail:3.0.0", "article highlights", "rougeL"),
        ("wmt16:ro-en", "wmt/wmt16:ro-en", "translation.en translation.ro", "bleu"),
        ("imdb", "stanfordnlp/imdb", "text label", "accuracy"),
        ("ag_news", "fancyzhx/ag_news", "text label", "accuracy"),
        ("rotten_tomatoes", "cornell-movie-review-data/rotten_tomatoes", "text label", "accuracy"),
        (
            "go_emotions",
            "google-research-datasets/go_emotions:simplified",
            "text labels",
            "f1_macro",
        ),
        ("snli", "stanfordnlp/snli", "premise hypothesis label", "accuracy"),
    ],
)
def test_a_row_is_found_by_its_names(alias: str, name: str, columns: str, metric: str) -> None:
    found = row(alias)
    assert found is row(name)
    assert found.name == name
    assert " ".join((*found.text, found.label)) == columns
    assert found.metric == metric


@pytest.mark.parametrize(
    "name", ["", "glue", "nyu-mll/glue", "glue:ax", "owner/xsum", "wmt16:de-en"]
)
def test_another_name_is_not_known(name: str) -> None:
    assert known_dataset(name) is None


def test_no_name_is_there_twice() -> None:
    names = [name for known in KNOWN_DATASETS for name in (known.name, *known.aliases)]
    assert len(names) == len(set(names))


ROW = {
    "name": "owner/data",
    "kind": "classification",
    "text": ["text"],
    "label": "label",
    "splits": {"train": "train"},
    "metric": "accuracy",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "Extra inputs are not permitted"),
        ({"splits": {"train": "train", "dev": "dev"}}, "Extra inputs are not permitted"),
        ({"kind": "clasification"}, "did you mean 'classification'"),
        ({"metric": "bleu"}, "metric 'bleu' does not fit classification"),
        ({"text": []}, "at least 1 item"),
        ({"text": ["a", "b", "c"]}, "at most 2 items"),
        ({"name": "data"}, "String should match pattern"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    assert KnownDataset.model_validate(ROW)
    with pytest.raises(ValidationError, match=message):
        KnownDataset.model_validate({**ROW, **change})


def said(name: str, **more: object) -> tuple[object, ...]:
    spec = completed(TaskSpec.model_validate({"name": name, **more}), row(name))
    return spec.kind, spec.text, spec.label, spec.metric


def test_a_row_says_what_the_user_did_not() -> None:
    expected = ("regression", ("sentence1", "sentence2"), "label", "pearson")
    assert said("glue:stsb") == expected
    assert said("glue:stsb", metric="spearman") == (*expected[:3], "spearman")
    assert said("glue:stsb", text=["sentence1"])[1] == ("sentence1",)


def test_the_metric_of_a_row_stays_where_it_fits_the_kind_asked_for() -> None:
    assert said("xsum", kind="causal") == ("causal", ("document",), "summary", "rouge2")
    assert said("glue:stsb", kind="classification")[3] is None
    with pytest.raises(UsageError, match="kind of task 'casual' unknown"):
        said("xsum", kind="casual")


def test_a_target_of_the_users_own_leaves_kind_and_metric_open() -> None:
    assert said("glue:stsb", label="idx") == (None, ("sentence1", "sentence2"), "idx", None)


@pytest.mark.parametrize(
    "flags",
    [
        {"text": ["translation.ro"]},
        {"label": "translation.en"},
        {"text": ["translation.ro"], "label": "translation.en"},
    ],
)
def test_naming_a_side_turns_the_translation_round(flags: dict[str, object]) -> None:
    turned = ("seq2seq", ("translation.ro",), "translation.en", "bleu")
    assert said("wmt16:ro-en", **flags) == turned


@pytest.mark.parametrize("flags", [{"text": ["translation.en"]}, {"label": "translation.ro"}])
def test_naming_a_side_as_it_is_changes_nothing(flags: dict[str, object]) -> None:
    assert said("wmt16:ro-en", **flags) == said("wmt16:ro-en")


def test_every_row_completes_a_spec_that_its_kind_can_score() -> None:
    for known in KNOWN_DATASETS:
        spec = completed(TaskSpec(name=known.name), known)
        assert spec.metric in KINDS[str(spec.kind)].metrics
        assert known.name in known.note(spec)
