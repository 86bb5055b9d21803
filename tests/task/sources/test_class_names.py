"""Labels of splits that were made apart are matched by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import datasets
import pytest

from peftsearch.errors import DataError
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec

TRAIN = [0, 1] * 10


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)


def indices(name: str, names: list[str], labels: Sequence[int | None]) -> str:
    """A parquet file, or a folder, whose labels are indices into names."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    texts = [f"{name} {i}" for i in range(len(labels))]
    data = datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
    if name.endswith(".parquet"):
        data.to_parquet(name)
    else:
        data.save_to_disk(name)
    return name


def plain(name: str, labels: Sequence[object]) -> str:
    rows = [f"{name} {i},{label}\n" for i, label in enumerate(labels)]
    Path(name).write_text("text,label\n" + "".join(rows))
    return name


def read(train: str, other: str, **more: object) -> tuple[list[str], tuple[str, ...]]:
    """The names of the other file's labels in its order, as evaluation and as test data; notes."""
    files = {"train": train, "eval": other, "test": other}
    task = load_task(TaskSpec.model_validate({**files, **more}))
    test = task.test()
    assert test is not None
    found = []
    for split in (task.validation, test):
        pairs = zip(split.texts, split.targets, strict=True)
        by_row = {int(text.split()[-1]): int(label) for text, label in pairs}
        found.append([task.labels[by_row[row]] for row in sorted(by_row)])
    assert found[0] == found[1]
    return found[0], task.notes


BAD_GOOD = ["bad", "good"]
MATCHED = [
    # names and labels of the other file, what they are called
    (["good", "bad"], [0, 0, 1], ["good", "good", "bad"]),
    (["awful", "bad", "good"], [1, 2, 1], ["bad", "good", "bad"]),
    (["good"], [0, 0, 0], ["good", "good", "good"]),
    (["good", "bad"], [0, -1, 1], ["good", "bad"]),
    (None, ["good", "bad", " good "], ["good", "bad", "good"]),
    (None, [1, 0, 1], ["good", "bad", "good"]),
    (None, ["1.0", "0.0"], ["good", "bad"]),
    (None, ["good", "-1", "bad"], ["good", "bad"]),
]


@pytest.mark.parametrize(("names", "labels", "called"), MATCHED)
@pytest.mark.parametrize("suffix", [".parquet", ""])
def test_labels_of_another_split_are_those_of_their_names(
    names: list[str] | None, labels: list[int], called: list[str], suffix: str
) -> None:
    train = indices(f"train{suffix}", BAD_GOOD, TRAIN)
    other = plain("other.csv", labels) if names is None else indices(f"o{suffix}", names, labels)
    found, notes = read(train, other)
    assert [label for _, label in sorted(enumerate(found))] == called
    by_index = (names is None and isinstance(labels[0], int)) or labels[0] == "1.0"
    assert any("by name" in note for note in notes) == (not by_index)


def test_names_of_the_training_data_meet_indices_with_names() -> None:
    train = plain("train.csv", BAD_GOOD * 10)
    found, _ = read(train, indices("o.parquet", ["good", "bad"], [0, 1, 1]))
    assert found == ["good", "bad", "bad"]


def test_names_that_are_numbers_win_over_indices_unless_a_label_is_no_name() -> None:
    train = indices("train.parquet", ["1", "2", "3"], [0, 1, 2] * 7)
    assert read(train, plain("names.csv", [1, 2, 3]))[0] == ["1", "2", "3"]
    assert read(train, plain("indices.csv", [0, 1, 2]))[0] == ["1", "2", "3"]


def test_where_only_the_other_split_names_its_numbers_that_is_said() -> None:
    train = plain("train.csv", TRAIN)
    found, notes = read(train, indices("o.parquet", BAD_GOOD, [1, 0]))
    assert found == ["1", "0"]
    assert any("o.parquet: labels have names, the training data's none" in note for note in notes)


UNSEEN = [
    (["awful", *BAD_GOOD], [1, 2, 0], "data row 3 has label 'awful', unseen in training; known: b"),
    (["good", "bad", "odd"], [-1, -1, 0, 2], "data row 4 has label 'odd', unseen in training"),
    (None, ["bad", 1], "data row 2 has label '1', unseen in training; known: bad, good"),
    (None, [0, 1, 2], "data row 3 has label 'neutral', unseen in training; known: bad, good"),
    (None, ["Bad"], "data row 1 has label 'Bad', unseen in training; did you mean 'bad'?"),
    (["good", "bad"], [0, None], "data row 2 has no label"),
]


@pytest.mark.parametrize(("names", "labels", "sentence"), UNSEEN)
def test_a_label_that_training_lacks_is_named_with_its_row(
    names: list[str] | None, labels: list[int | None], sentence: str
) -> None:
    train = indices("train.parquet", [*BAD_GOOD, "neutral"], TRAIN)
    other = plain("o.csv", labels) if names is None else indices("o.parquet", names, labels)
    with pytest.raises(DataError) as caught:
        load_task(TaskSpec(train=train, eval=other))
    assert sentence in str(caught.value)


def test_a_test_file_that_hides_every_label_is_no_test_split() -> None:
    train = indices("train.parquet", BAD_GOOD, TRAIN)
    for hidden in (plain("t.csv", [-1, -1]), indices("t.parquet", BAD_GOOD, [-1, -1, -1])):
        assert load_task(TaskSpec(train=train, test=hidden)).test() is None


def test_numbers_to_be_predicted_are_those_of_the_same_names_too() -> None:
    train = indices("train.parquet", BAD_GOOD, TRAIN)
    other = indices("o.parquet", ["good", "bad"], [0, 0, 1])
    task = load_task(TaskSpec(train=train, eval=other, kind="regression"))
    values = dict(zip(task.validation.texts, task.validation.targets, strict=True))
    assert [values[f"o.parquet {row}"] for row in range(3)] == [1.0, 1.0, 0.0]


def test_names_inside_a_column_are_read_but_for_studies_begun_before() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "a": {"label": datasets.ClassLabel(names=BAD_GOOD)}}
    )
    content = {"text": [f"t {i}" for i in range(20)], "a": [{"label": i} for i in TRAIN]}
    datasets.Dataset.from_dict(content, features=features).to_parquet("d.parquet")
    assert load_task(TaskSpec(train="d.parquet", label="a.label")).labels == ("bad", "good")
    before = TaskSpec(train="d.parquet", label="a.label", guesses=1)
    assert load_task(before).labels == ("0", "1")


@pytest.mark.parametrize(
    ("train", "other", "labels"),
    [
        (["1.0", "0.0"], ["1", "0"], ("0.0", "1.0")),
        (["1", "0"], ["1.0", "0."], ("0", "1")),
        (["1.0", "0", "1", "0.0"], ["1", "0.0"], ("0", "1")),
    ],
)
def test_1_and_1_0_in_a_csv_are_one_label(
    train: list[str], other: list[str], labels: tuple[str, ...]
) -> None:
    found, _ = read(plain("t.csv", train * 10), plain("o.csv", other))
    assert found == [labels[1], labels[0]]


def test_1_and_1_0_are_two_labels_beside_one_that_is_no_number() -> None:
    task = load_task(TaskSpec(train=plain("t.csv", ["1", "1.0", "x", "01"] * 10)))
    assert set(task.labels) == {"1", "1.0", "x", "01"}
    task = load_task(TaskSpec(train=plain("t.csv", ["1", "1.0", "01"] * 10)))
    assert set(task.labels) == {"1", "1.0", "01"}


def test_labels_are_found_under_many_names() -> None:
    for column in ("type", "Class", "intent", "coarse_label", "Category"):
        rows = [{"text": f"t {i}", column: "ab"[i % 2]} for i in range(20)]
        Path("d.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert load_task(TaskSpec(train="d.jsonl")).labels == ("a", "b")


def test_a_type_beside_a_summary_is_no_target() -> None:
    rows = [{"text": f"t {i}", "summary": f"s {i}", "type": "ab"[i % 2]} for i in range(20)]
    Path("d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_task(TaskSpec(train="d.jsonl")).kind.name == "seq2seq"
