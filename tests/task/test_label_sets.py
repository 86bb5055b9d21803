"""Sets of labels as data write them: lists, texts with separators, columns of 0 and 1."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from peftsearch.errors import DataError, UsageError
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.task import Task

SETS = [["b"], [], ["a", "c"], ["a"], ["c", "b", "a"], ["b"], ["c"], ["a", "b"]]
"""Over and over: of 40 rows the set of row i is SETS[i % 8]."""


def sets_of(task: Task, split: Split | None = None) -> dict[str, set[str]]:
    """Text → its labels, by name."""
    split = task.train if split is None else split
    targets = np.asarray(split.targets)
    assert targets.dtype == np.int8
    return {
        text: {label for label, one in zip(task.labels, row, strict=True) if one}
        for text, row in zip(split.texts, targets, strict=True)
    }


EXPECTED = {f"text {i}": set(SETS[i % 8]) for i in range(40)}


def all_of(task: Task) -> dict[str, set[str]]:
    test = task.test()
    assert test is not None
    return sets_of(task) | sets_of(task, task.validation) | sets_of(task, test)


def jsonl(path: Path, cells: list[Any], column: str = "tags") -> str:
    rows = [{"text": f"text {i}", column: cell} for i, cell in enumerate(cells)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def csv(path: Path, cells: list[str]) -> str:
    table = pd.DataFrame({"text": [f"text {i}" for i in range(len(cells))], "tags": cells})
    table.to_csv(path, index=False)
    return str(path)


def cells(write: Any = lambda own: own) -> list[Any]:
    return [write(SETS[i % 8]) for i in range(40)]


def flags(zero: Any = 0, one: Any = 1) -> dict[str, list[Any]]:
    return {c: [one if c in own else zero for own in cells()] for c in "abc"}


# -- lists ------------------------------------------------------------------------------------


def test_a_column_of_lists_makes_the_task_multilabel_and_says_so(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", cells())))
    assert (task.kind.name, task.metric.name, task.outputs) == ("multilabel", "f1_micro", 3)
    assert "kind guessed: multilabel, as column 'tags' holds lists" in " ".join(task.notes)
    assert task.labels == ("a", "b", "c")
    assert all_of(task) == EXPECTED


def test_lists_of_parquet_are_lists(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), "labels": cells()})
    table.to_parquet(tmp_path / "d.parquet")
    assert all_of(load_task(TaskSpec(train=str(tmp_path / "d.parquet")))) == EXPECTED


def test_numbers_and_repeats_in_lists_are_labels(tmp_path: Path) -> None:
    numbers = [[10 * "abc".index(c) for c in own] * 2 for own in cells()]
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", numbers)))
    assert task.labels == ("0", "10", "20")
    assert all_of(task) == {t: {str(10 * "abc".index(c)) for c in s} for t, s in EXPECTED.items()}


def as_set(own: list[str]) -> str:
    return str(set(own))


def as_tuple(own: list[str]) -> str:
    return str(tuple(own))


@pytest.mark.parametrize("spelled", [json.dumps, str, as_set, as_tuple])
def test_lists_that_a_csv_spells_are_lists_where_multilabel_is_said(
    spelled: Any, tmp_path: Path
) -> None:
    spec = TaskSpec(train=csv(tmp_path / "d.csv", cells(spelled)), kind="multilabel")
    assert all_of(load_task(spec)) == EXPECTED


@pytest.mark.parametrize("one", [1, 1.0, True])
def test_lists_of_one_0_or_1_for_each_label_are_read_as_such(one: Any, tmp_path: Path) -> None:
    vectors = [[type(one)(c in own) for c in "abc"] for own in cells()]
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", vectors)))
    assert task.labels == ("0", "1", "2")
    assert "column 'tags' is read as 0 or 1 for each of the labels 0 to 2" in " ".join(task.notes)
    assert all_of(task) == {t: {str("abc".index(c)) for c in s} for t, s in EXPECTED.items()}


def test_the_labels_0_and_1_in_lists_of_any_length_are_labels(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", [[0], [1], [0, 1], []] * 10)))
    assert all_of(task)["text 2"] == {"0", "1"}
    held = jsonl(tmp_path / "e.jsonl", [[0, 1], [1, 0]])
    spec = TaskSpec(train=str(tmp_path / "d.jsonl"), eval=held)
    task = load_task(spec)
    assert sets_of(task, task.validation) == {"text 0": {"0", "1"}, "text 1": {"0", "1"}}


def test_half_characters_in_a_label_do_not_reach_the_study(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "\n".join(f'{{"text": "text {i}", "tags": ["\\ud83d", "a"]}}' for i in range(20))
        + '\n{"text": "none", "tags": []}'
    )
    assert load_task(TaskSpec(train=str(tmp_path / "d.jsonl"))).labels == ("?", "a")


# -- class names ------------------------------------------------------------------------------

NAMED = datasets.Features(
    {
        "text": datasets.Value("string"),
        "labels": datasets.Sequence(datasets.ClassLabel(names=["z", "b", "a", "c", "unused", "7"])),
    }
)


def saved(folder: Path, features: Any = NAMED, own: list[Any] | None = None) -> str:
    content = {"text": list(EXPECTED), "labels": cells() if own is None else own}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(content, features=features).save_to_disk(str(folder))
    return str(folder)


def test_lists_of_class_indices_are_read_by_name(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=saved(tmp_path / "d")))
    assert task.labels == ("z", "b", "a", "c", "unused", "7")
    assert all_of(task) == EXPECTED
    assert "training: labels that never occur: z, unused, 7" in task.notes


def test_parquet_files_name_the_classes_of_lists_too(tmp_path: Path) -> None:
    data = datasets.load_from_disk(saved(tmp_path / "d"))
    assert isinstance(data, datasets.Dataset)
    data.to_parquet(tmp_path / "d.parquet")
    assert all_of(load_task(TaskSpec(train=str(tmp_path / "d.parquet")))) == EXPECTED


def test_another_order_of_class_names_in_the_evaluation_file_is_no_matter(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["c", "b", "a"])),
        }
    )
    train, held = saved(tmp_path / "d"), saved(tmp_path / "e", features)
    task = load_task(TaskSpec(train=train, eval=held))
    assert sets_of(task, task.validation) == EXPECTED
    names = "z, b, a, c, unused and 1 more"
    assert f"e: labels matched with the training data's by name ({names})" in task.notes
    same = load_task(TaskSpec(train=train, eval=train))
    assert not any("by name" in note for note in same.notes)


@pytest.mark.parametrize("by", ["name", "index"])
def test_an_evaluation_file_without_class_names_is_read_by_name_or_index(
    by: str, tmp_path: Path
) -> None:
    order = NAMED["labels"].feature.names
    own = [[label if by == "name" else order.index(label) for label in one] for one in cells()]
    held = jsonl(tmp_path / "e.jsonl", own, "labels")
    task = load_task(TaskSpec(train=saved(tmp_path / "d"), eval=held))
    assert sets_of(task, task.validation) == EXPECTED
    assert any("by name" in note for note in task.notes) == (by == "name")


def test_class_names_of_the_evaluation_alone_are_names_or_leave_its_numbers(tmp_path: Path) -> None:
    held = saved(tmp_path / "e")
    named = jsonl(tmp_path / "d.jsonl", cells(), "labels")
    task = load_task(TaskSpec(train=named, eval=held))
    assert sets_of(task, task.validation) == EXPECTED
    assert any("matched with the training data's by name" in note for note in task.notes)
    order = NAMED["labels"].feature.names
    numbers = jsonl(tmp_path / "n.jsonl", [[order.index(c) for c in o] for o in cells()], "labels")
    task = load_task(TaskSpec(train=numbers, eval=held))
    assert any("matched by number" in note for note in task.notes)
    by_number = {text: {str(order.index(c)) for c in own} for text, own in EXPECTED.items()}
    assert sets_of(task, task.validation) == by_number


def test_an_index_beyond_the_class_names_is_named_with_its_row(tmp_path: Path) -> None:
    held = jsonl(tmp_path / "e.jsonl", [[1], [2, 6]], "labels")
    train = saved(tmp_path / "d")
    with pytest.raises(DataError, match=r"data row 2, column 'labels' holds class 6, and there"):
        load_task(TaskSpec(train=train, eval=held))
    held = jsonl(tmp_path / "e.jsonl", [["a"], ["b", "d"]], "labels")
    with pytest.raises(DataError, match=r"data row 2 has label 'd', unseen in training"):
        load_task(TaskSpec(train=train, eval=held))


def test_a_class_that_training_lacks_is_named(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["a", "b", "c", "d"])),
        }
    )
    held = saved(tmp_path / "e", features, [["a"], ["d"], *cells()[2:]])
    with pytest.raises(DataError, match="data row 2 has label 'd', unseen in training"):
        load_task(TaskSpec(train=saved(tmp_path / "d"), eval=held))


# -- texts with separators ----------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["|", ";", ",", ", ", " | "])
def test_labels_in_a_text_are_parted_by_the_separator_that_is_said(
    mark: str, tmp_path: Path
) -> None:
    path = csv(tmp_path / "d.csv", cells(mark.join))
    task = load_task(TaskSpec(train=path, kind="multilabel"))
    assert f"d.csv: column 'tags': labels are separated by '{mark.strip()}'" in task.notes
    assert all_of(task) == EXPECTED


def test_what_is_no_separator_stays_in_a_label(tmp_path: Path) -> None:
    path = csv(tmp_path / "d.csv", ["New York, NY|a b", "a b|", "New York, NY", ""] * 10)
    task = load_task(TaskSpec(train=path, kind="multilabel"))
    assert task.labels == ("New York, NY", "a b")


def test_texts_without_a_separator_are_single_labels_and_that_is_said(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=csv(tmp_path / "d.csv", ["a", "b"] * 20), kind="multilabel"))
    assert task.labels == ("a", "b")
    assert "no text has a separator (| ; ,): each is one label" in " ".join(task.notes)


def test_without_kind_a_text_is_one_label(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=csv(tmp_path / "d.csv", ["a|b", "b"] * 20), label="tags"))
    assert (task.kind.name, task.labels) == ("classification", ("a|b", "b"))


# -- columns of 0 and 1 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zero", "one"), [("0", "1"), ("0.0", "1.00"), ("False", "True"), (" 0", "1 ")]
)
def test_columns_of_0_and_1_are_labels_in_their_order(zero: str, one: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags(zero, one), "other": 1})
    table.to_csv(tmp_path / "d.csv", index=False)
    task = load_task(TaskSpec(train=str(tmp_path / "d.csv"), labels=("c", "a", "b")))
    assert (task.kind.name, task.labels) == ("multilabel", ("c", "a", "b"))
    assert "kind: multilabel, as several label columns are given" in task.notes
    assert all_of(task) == EXPECTED


@pytest.mark.parametrize(
    ("zero", "one"), [(0, 1), (0.0, 1.0), (False, True), (Decimal("0.00"), Decimal("1.00"))]
)
def test_columns_of_numbers_and_bools_in_parquet(zero: Any, one: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags(zero, one)})
    table.to_parquet(tmp_path / "d.parquet")
    task = load_task(TaskSpec(train=str(tmp_path / "d.parquet"), labels=("a", "b", "c")))
    assert all_of(task) == EXPECTED


def test_rows_that_hide_every_label_are_left_out_and_counted(tmp_path: Path) -> None:
    """As in the test file of Jigsaw's toxic comments."""
    table = pd.DataFrame({"text": list(EXPECTED), **flags()})
    table.to_csv(tmp_path / "d.csv", index=False)
    table.loc[[3, 7], ["a", "b", "c"]] = -1
    table.to_csv(tmp_path / "e.csv", index=False)
    train, held = (str(tmp_path / f"{name}.csv") for name in "de")
    task = load_task(TaskSpec(train=train, eval=held, labels=("a", "b", "c")))
    assert len(task.validation) == 38
    assert "e.csv: 2 rows with hidden labels (−1) left out" in task.notes


def test_a_test_file_that_hides_every_label_is_no_test_split(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags()})
    table.to_csv(tmp_path / "d.csv", index=False)
    table[["a", "b", "c"]] = -1
    table.to_csv(tmp_path / "t.csv", index=False)
    train, hidden = (str(tmp_path / f"{name}.csv") for name in "dt")
    labels = ("a", "b", "c")
    assert load_task(TaskSpec(train=train, test=hidden, labels=labels)).test() is None
    with pytest.raises(DataError, match=r"t\.csv: every row's labels are hidden \(−1\)"):
        load_task(TaskSpec(train=train, eval=hidden, labels=labels))


def test_only_the_columns_that_were_guessed_are_said_to_be(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags()})
    table.to_csv(tmp_path / "d.csv", index=False)
    task = load_task(TaskSpec(train=str(tmp_path / "d.csv"), labels=("a", "b", "c")))
    assert "columns guessed: text 'text' (set them with --text)" in task.notes


def test_columns_that_are_always_0_or_always_1_are_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags(), "all": 1, "none": 0})
    table.to_csv(tmp_path / "d.csv", index=False)
    labels = ("a", "all", "b", "none")
    task = load_task(TaskSpec(train=str(tmp_path / "d.csv"), labels=labels))
    assert "training: labels that never occur: none" in task.notes
    assert "training: labels that are those of every example: all" in task.notes
    assert "validation: labels that never occur: none" in task.notes


# -- splits --------------------------------------------------------------------------------------


def test_made_splits_hold_examples_of_rare_labels(tmp_path: Path) -> None:
    rare = [["a", "r"] if i % 50 == 0 else ["a"] for i in range(400)]
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", rare)))
    test = task.test()
    assert test is not None
    counts = [int(np.asarray(s.targets)[:, 1].sum()) for s in (task.train, task.validation, test)]
    assert counts == [6, 1, 1]


def test_made_splits_are_a_tenth_each_though_every_label_is_rare(tmp_path: Path) -> None:
    """Of 300 labels each occurs in 2 of 200 texts."""
    own = [[f"l{(3 * i + j) % 300}" for j in range(3)] for i in range(200)]
    task = load_task(TaskSpec(train=jsonl(tmp_path / "d.jsonl", own)))
    test = task.test()
    assert test is not None
    assert (len(task.train), len(task.validation), len(test)) == (160, 20, 20)


# -- what cannot be ------------------------------------------------------------------------------

BAD: list[tuple[list[Any], str]] = [
    ([["a"], None] * 20, "data row 2, column 'tags' holds no list of labels: write []"),
    ([["a"], "a"] * 20, "data row 2, column 'tags' is not a list: 'a'"),
    ([["a"], ["a", None]] * 20, "data row 2, column 'tags' holds a list with no label but None"),
    ([["a"], [["b"]]] * 20, "holds a list with no label but ['b']"),
    ([["a"], [""]] * 20, "holds a list with no label but ''"),
    ([["a"], [0.5]] * 20, "holds a list with no label but 0.5"),
    ([["a"], [{"b": 1}]] * 20, "holds a list with no label but {'b': 1}"),
    ([[]] * 20, "column 'tags' holds no label in any row"),
    ([["a", "b"]] * 40, "every example has every label: there is nothing to predict"),
    ([[f"only {i}", f"once {i}"] for i in range(40)], "labels that occur less than twice each"),
    ([[0, 1], [1, 0], [1, 1], [0, 2]] * 10, ""),  # labels 0, 1 and 2
]


@pytest.mark.parametrize(("own", "sentence"), BAD)
def test_what_is_no_list_of_labels_is_said_with_its_row(
    own: list[Any], sentence: str, tmp_path: Path
) -> None:
    spec = TaskSpec(train=jsonl(tmp_path / "d.jsonl", own))
    if not sentence:
        assert load_task(spec).labels == ("0", "1", "2")
        return
    with pytest.raises(DataError) as caught:
        load_task(spec)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (["['a' 'b']", "['a']"] * 20, """data row 1, column 'tags' is not a list as ["a", "b"]"""),
        (["[a, b]", "[a]"] * 20, "data row 1, column 'tags' is not a list as"),
        (["[" * 3000 + "]" * 3000, "[1]"] * 20, "is not a list as"),
        (["[__import__('os')]", "[1]"] * 20, "is not a list as"),
        (['{"a": 1}', '{"b": 1}'] * 20, "is not a list as"),
        (["", " "] * 20, "column 'tags' is empty"),
        (["0", "1"] * 20, "holds neither lists nor texts with separators"),
        (["|", "||"] * 20, "holds no label in any row"),
    ],
)
def test_what_a_csv_spells_wrongly_is_said(own: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_task(TaskSpec(train=csv(tmp_path / "d.csv", own), kind="multilabel"))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("2", "data row 3, column 'b' is not 0 or 1: '2'"),
        ("", "data row 3, column 'b' is empty: 0 or 1 is needed"),
        ("-1", "data row 3, column 'b' is not 0 or 1: '-1'"),
        ("nan", "data row 3, column 'b' is not 0 or 1: 'nan'"),
    ],
)
def test_a_cell_that_is_neither_0_nor_1_is_said(cell: str, sentence: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags()}).astype(object)
    table.loc[2, "b"] = cell
    table.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(DataError) as caught:
        load_task(TaskSpec(train=str(tmp_path / "d.csv"), labels=("a", "b")))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"labels": ("a", "bb")}, "no column 'bb'"),
        ({"labels": ("a", "a")}, "column 'a' cannot be used twice"),
        ({"labels": ("a", "text")}, "column 'text' cannot be used twice"),
        ({"labels": ("a", "b"), "kind": "classification"}, "--label is given 2 times"),
        ({"labels": ("a", "b"), "metric": "accuracy"}, "metric 'accuracy' does not fit multilabel"),
        ({"labels": ("a", "b"), "metric": "loss"}, "metric 'loss' does not fit multilabel"),
        ({"labels": ("a", "b"), "positive": "a"}, "--positive names the label of the metric f1"),
        ({"label": "a", "kind": "multilabel"}, "(--label for each)"),
        ({"label": "a", "positive": "1"}, "--positive names the label of the metric f1"),
        ({"label": "a", "positive": "x", "metric": "f1"}, "--positive x: the labels are 0, 1"),
        ({"labels": ("none", "all")}, "no example has any label"),
    ],
)
def test_what_is_said_of_columns_and_cannot_be_is_one_sentence(
    more: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags(), "none": 0, "all": 0})
    table.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises((DataError, UsageError)) as caught:
        load_task(TaskSpec(train=str(tmp_path / "d.csv"), **more))
    assert sentence in str(caught.value)


def test_evaluation_without_a_column_of_flags_is_said(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), **flags()})
    table.to_csv(tmp_path / "d.csv", index=False)
    table.drop(columns="b").to_csv(tmp_path / "e.csv", index=False)
    train, held = (str(tmp_path / f"{name}.csv") for name in "de")
    with pytest.raises(DataError, match=r"e.csv: no column 'b', which the training data have"):
        load_task(TaskSpec(train=train, eval=held, labels=("a", "b")))


def test_lists_under_classification_lead_to_multilabel(tmp_path: Path) -> None:
    spec = TaskSpec(train=jsonl(tmp_path / "d.jsonl", cells()), kind="classification", label="tags")
    with pytest.raises(DataError, match="sets of labels are predicted with --kind multilabel"):
        load_task(spec)


def test_specs_that_were_written_before_are_read_as_they_were() -> None:
    spec = TaskSpec.model_validate({"train": "a.csv", "label": "b", "kind": "classification"})
    assert (spec.label, spec.labels, spec.positive) == ("b", (), None)


# -- F1 of a label of several ------------------------------------------------------------------


def test_f1_of_one_of_three_labels_wants_its_name(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": list(EXPECTED), "label": ["x", "y", "z", "y"] * 10})
    table.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(UsageError, match="name it with --positive, or take macro_f1"):
        load_task(TaskSpec(train=str(tmp_path / "d.csv"), metric="f1"))
    task = load_task(TaskSpec(train=str(tmp_path / "d.csv"), metric="f1", positive="z"))
    references = np.array([0, 1, 2, 1, 2])
    predictions = np.array([2, 1, 2, 0, 1])
    # Label z: 1 right of 2 predicted and 2 there are.
    assert task.metric.value(references, predictions) == pytest.approx(0.5)
