"""Local files: every format reads alike, and bad rows are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.errors import DataError, MissingError, UsageError
from peftsearch.task.rows.columns import is_nothing
from peftsearch.task.rows.files import read_rows
from peftsearch.task.sources.load import load_task
from peftsearch.task.sources.splitting import split_off
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.task import Task

ROWS = [
    {"text": f"text {i}, it's “{'good' if i % 3 else 'bad'}”", "label": i % 3} for i in range(60)
]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    table = pd.DataFrame(rows)
    writers = {
        ".csv": lambda: table.to_csv(path, index=False),
        ".tsv": lambda: table.to_csv(path, index=False, sep="\t"),
        ".json": lambda: path.write_text(json.dumps(rows)),
        ".jsonl": lambda: path.write_text("".join(json.dumps(r) + "\n" for r in rows)),
        ".parquet": lambda: table.to_parquet(path),
    }
    writers[path.suffix]()
    return str(path)


def task(train: str, **more: object) -> Task:
    return load_task(TaskSpec.model_validate({"train": train, **more}))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_task(suffix: str, tmp_path: Path) -> None:
    reference = task(write(tmp_path / "r.json", ROWS))
    found = task(write(tmp_path / f"d{suffix}", ROWS))
    assert found.labels == ("0", "1", "2")
    assert found.fingerprint == reference.fingerprint
    assert found.train.texts == reference.train.texts


def test_one_file_is_split_once_and_for_all_without_leaks(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [*ROWS, *ROWS[:20]])
    first, again, other = task(path), task(path), task(path, split_seed=5)
    test = first.test()
    assert test is not None
    parts = [set(first.train.texts), set(first.validation.texts), set(test.texts)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert set.union(*parts) == {row["text"] for row in ROWS}
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert any("split by seed 0" in note for note in first.notes)


def test_given_splits_are_left_as_they_are_and_the_test_file_is_read_last(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    validation = write(tmp_path / "dev.csv", ROWS[:12])
    missing = str(tmp_path / "later.csv")
    found = task(train, eval=validation, test=missing)
    assert (len(found.train), len(found.validation)) == (60, 12)
    with pytest.raises(DataError, match="no such file"):
        found.test()
    write(tmp_path / "later.csv", ROWS[:9])
    test = found.test()
    assert test is not None
    assert len(test) == 9


def test_pairs_are_two_columns(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"premise": f"p{i}", "hypothesis": f"h{i}", "gold": "yes" if i % 2 else "no"}
        for i in range(40)
    ]
    path = write(tmp_path / "pairs.csv", rows)
    found = task(path, text=("premise", "hypothesis"), label="gold")
    assert found.labels == ("no", "yes")
    assert found.train.pairs is not None
    assert all(a[1:] == b[1:] for a, b in zip(found.train.texts, found.train.pairs, strict=True))
    assert task(path).train.pairs is not None  # guessed from the names


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "text,label\n,x\n,y\n", "every text in column 'text' is empty"),
        ("a.csv", "text,label\na,x\nb,\nc,y\nd,y\ne,x\n", "row 2 has no label"),
        ("a.csv", "text,label\na,x\n", "two labels are needed"),
        ("a.csv", "text,label\na,x\nb,y\n", "2 labels in 2 rows"),
        ("a.csv", "text,label\na,x\na,x\nb,y\nb,y\n", "no label has enough different texts"),
        ("a.csv", "text,label\n,x\na,y\nb,y\n", "holds only 'y'"),
        ("a.csv", "text,label\na,x,more\nb,y,more\n", "more fields than the header names"),
        ("a.csv", "text;label\na;x\n", "are they separated by ';'?"),
        (
            "a.json",
            '[\n{"text": "a", "label": 1},\n{"text": "b" "label": 2}]',
            "a.json:3: not JSON",
        ),
        ("a.json", '[{"text": 1, "label": 1}]', "data row 1, column 'text' is not text but int"),
        ("a.json", '[{"text": "a", "label": [1]}]', "labels that occur less than twice each"),
        ("a.json", '[{"text": "a", "label": 0.5}]', "is not a label: 0.5"),
        ("a.json", '{"text": ["a"], "label": [1], "more": [2]}', "is not text but list"),
        ("a.json", "null", "a list of objects was expected"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.csv", "text,label\na,x\nb,y,z,w\n", "not a readable table"),
        ("a.csv", "one,two\na,b\n", "name the text column (--text); columns are: one, two"),
        ("a.csv", "text,two\na,b\n", "name the label column (--label)"),
        ("a.json", '{"text": ', "not JSON"),
        ("a.json", "[1, 2]", "row 1 is not an object"),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n{"text": "b", "label": 2}\n', "is not text"),
        ("a.jsonl", '{"text": "a", "label": 1}\nnonsense\n', "a.jsonl:2: not JSON"),
        ("a.parquet", "nonsense", "not a readable parquet file"),
        ("a.txt", "text", "texts alone, in column 'text', and nothing that is predicted of them"),
        ("a.cnf", "text", "'.cnf'; known: .csv, .json, .jsonl, .parquet, .tsv, .txt, these comp"),
        ("a.cvs", "text", "unknown kind of file '.cvs'; did you mean '.csv'?"),
        ("a.json", '[{"a": {"b": "x"}, "a.b": "y"}]', "two columns are called 'a.b'; rename one"),
        ("a.csv", " \n", "the file is empty"),
        ("a.csv", "text,label\n", "the file has no rows"),
    ],
)
def test_what_cannot_be_used_is_named(
    name: str, content: str, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        task(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("~nobody-of-this-name/a.csv", "cannot be read"),
        ("a" * 5000 + ".csv", "cannot be read"),
        ("a\0.csv", "cannot be read"),
        ("nowhere/a.csv", "no such file"),
        ("nowhere", "no such file or folder"),
        ("", "a folder"),
    ],
)
def test_a_path_that_cannot_be_opened_is_refused(path: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        task(path)
    assert len(str(caught.value)) < 200


def test_utf16_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_bytes("text,label\na,x\n".encode("utf-16"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        task(str(path))


def test_bytes_in_a_parquet_file_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pd.DataFrame({"text": [b"a", b"b"], "label": [0, 1]}).to_parquet(path)
    with pytest.raises(DataError, match="not text but bytes"):
        task(str(path))


def test_a_parquet_index_is_a_column(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pd.DataFrame(ROWS).set_index("text").to_parquet(path)
    assert set(task(str(path)).train.texts) < {row["text"] for row in ROWS}


def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pd.DataFrame(ROWS).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"d\.parquet: not a readable parquet file"):
        task(str(path))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table([["a"], ["b"]], names=["text", "text"])
    pq.write_table(table, path)
    with pytest.raises(DataError, match="two columns are called 'text'"):
        read_rows(str(path))


def test_a_json_object_may_hold_rows_by_id_or_columns_by_number(tmp_path: Path) -> None:
    expected = write(tmp_path / "d.csv", ROWS)
    table = pd.DataFrame(ROWS)
    for orient in ("index", "columns"):
        path = tmp_path / f"{orient}.json"
        path.write_text(str(table.to_json(orient=orient)))
        found = read_rows(str(path)).table
        assert list(found.columns) == ["text", "label"]
        assert found["text"].tolist() == read_rows(expected).table["text"].tolist()


NESTED = [
    {"id": i, "translation": {"en": f"text {i}", "ro": None if i == 1 else f"textul {i}"}}
    for i in range(3)
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_columns_inside_a_column_are_columns(suffix: str, tmp_path: Path) -> None:
    table = read_rows(write(tmp_path / f"d{suffix}", NESTED)).table
    assert list(table.columns) == ["id", "translation.en", "translation.ro"]
    assert table["translation.en"].tolist() == ["text 0", "text 1", "text 2"]
    assert [is_nothing(cell) for cell in table["translation.ro"]] == [False, True, False]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_columns_may_lie_deeper(suffix: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"a": {"b": {"c": "x"}, "d": 1}}, {"a": None}]
    table = read_rows(write(tmp_path / f"d{suffix}", rows)).table
    assert list(table.columns) == ["a.b.c", "a.d"]
    assert table["a.b.c"].tolist()[0] == "x"


def test_a_column_of_maps_is_left_alone(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": "x", "counts": {f"w{i}": i}} for i in range(100)]
    assert list(read_rows(write(tmp_path / "d.json", rows)).table.columns) == ["text", "counts"]


def test_half_a_surrogate_pair_inside_a_column_is_replaced_too(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", [{"a": {"b": "x\ud800"}}])
    rows = read_rows(path)
    assert rows.table["a.b"].tolist() == ["x�"]
    assert any("1 incomplete characters replaced" in note for note in rows.notes)


@pytest.mark.parametrize(("suffix", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_without_a_header_columns_are_numbered(suffix: str, mark: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    path.write_text("".join(f"text {i}{mark}{'yn'[i % 2]}\n" for i in range(40)))
    table = read_rows(str(path), header=False).table
    assert list(table.columns) == ["1", "2"]
    assert len(table) == 40
    found = task(str(path), text=("1",), label="2", header=False)
    assert found.labels == ("n", "y")
    assert len(task(str(path), text=("text 0",), label="y").train) < len(found.train)


def test_without_a_header_one_column_may_hold_commas(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text("a, b\nc, d\n")
    assert read_rows(str(tmp_path / "d.tsv"), header=False).table["1"].tolist() == ["a, b", "c, d"]


def test_json_lines_end_at_newlines_only(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    lines = [
        json.dumps({"text": f"a\u2028{i}", "label": i % 2}, ensure_ascii=False) for i in range(40)
    ]
    path.write_text("\n".join(lines))
    assert all("\u2028" in text for text in task(str(path)).train.texts)


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path: Path) -> None:
    rows = [{"text": f"a{i}" + "\ud800" * (i == 3), "label": i % 2} for i in range(40)]
    (tmp_path / "d.json").write_text(json.dumps(rows))  # spelt as an escape
    found = task(str(tmp_path / "d.json"))
    assert any("1 incomplete characters replaced" in note for note in found.notes)
    for text in found.train.texts:
        text.encode()


def test_columns_are_guessed_whatever_their_capitals(tmp_path: Path) -> None:
    rows = [{"Text": row["text"], "Label": row["label"]} for row in ROWS]
    found = task(write(tmp_path / "d.csv", rows))
    assert any("text 'Text', label 'Label'" in note for note in found.notes)


def test_a_split_that_names_its_columns_otherwise_gets_a_guess_of_its_own(tmp_path: Path) -> None:
    """As the published files of SST-2 do."""
    train = write(tmp_path / "train.csv", ROWS)
    renamed: list[dict[str, object]] = [
        {"content": f"other {row['text']}", "label": row["label"]} for row in ROWS[:12]
    ]
    validation = write(tmp_path / "dev.csv", renamed)
    found = task(train, eval=validation, test=validation)
    assert sorted(found.validation.texts) == sorted(str(row["content"]) for row in renamed)
    assert "dev.csv: columns guessed: text 'content'" in " ".join(found.notes)
    test = found.test()
    assert test is not None
    assert len(test) == 12
    with pytest.raises(DataError, match="no column 'text', which the training data have"):
        task(train, eval=validation, text=("text",), label="label")


def test_one_file_gives_eight_tenths_to_training(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(2000)]
    found = task(write(tmp_path / "d.csv", rows))
    test = found.test()
    assert test is not None
    assert (len(found.train), len(found.validation), len(test)) == (1600, 200, 200)
    assert np.bincount(found.validation.targets).tolist() == [100, 100]


def test_a_label_too_rare_to_split_stays_in_training(tmp_path: Path) -> None:
    found = task(write(tmp_path / "d.csv", [*ROWS, {"text": "alone", "label": 9}]))
    assert found.labels == ("0", "1", "2", "9")
    assert "alone" in found.train.texts


def test_texts_that_given_splits_share_are_counted(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    found = task(train, eval=write(tmp_path / "dev.csv", [*ROWS[:5], {"text": "new", "label": 1}]))
    assert "dev.csv: 5 texts are also training texts" in found.notes
    assert len(found.train) == 60


def test_evaluation_files_need_a_training_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --train FILE"):
        load_task(TaskSpec(eval=str(tmp_path / "dev.csv")))


def test_a_label_unseen_in_training_is_named_with_its_row(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    validation = write(tmp_path / "dev.csv", [*ROWS[:3], {"text": "new", "label": 7}])
    with pytest.raises(DataError, match="row 4 has label '7', unseen in training"):
        task(train, eval=validation)


def test_invalid_utf8_is_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    lines = [f"text {i},{'x' if i % 2 else 'y'}".encode() for i in range(30)]
    path.write_bytes(b"text,label\n" + b"\n".join(lines) + b"\nbad \xff\xfe,x\n")
    found = task(str(path))
    assert any("2 invalid UTF-8 sequences replaced" in note for note in found.notes)


def test_rows_with_an_empty_text_are_left_out_and_counted(tmp_path: Path) -> None:
    found = task(write(tmp_path / "d.csv", [*ROWS, {"text": " ", "label": 1}]))
    assert any("1 row with an empty text left out" in note for note in found.notes)


def test_a_task_is_named_or_made_of_files_but_not_both() -> None:
    with pytest.raises(UsageError, match="not both"):
        load_task(TaskSpec(name="demo:tweets", train="x.csv"))
    with pytest.raises(UsageError, match="no data"):
        load_task(TaskSpec())


def test_a_hub_name_offline_says_what_to_do() -> None:
    with pytest.raises(MissingError, match="give local files with --train, --text and --label"):
        load_task(TaskSpec(name="nyu-mll/glue:sst2"))


SPLITS = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 2)), min_size=30, max_size=80
)


@given(rows=SPLITS, seed=st.integers(0, 99))
def test_splitting_loses_nothing_and_keeps_equal_texts_together(
    rows: list[tuple[str, int]], seed: int
) -> None:
    # A text has one label here, so that the two conditions can both be met.
    texts = tuple(f"{text}{label}" for text, label in rows)
    split = Split(texts, None, np.array([label for _, label in rows], np.int64))
    by_label = {
        label: {t for t, (_, have) in zip(texts, rows, strict=True) if have == label}
        for label in {0, 1, 2}
    }
    if any(0 < len(found) < 2 for found in by_label.values()):
        return
    rest, part = split_off(split, split.targets, 0.2, seed)
    assert sorted(rest.texts + part.texts) == sorted(texts)
    assert not set(rest.texts) & set(part.texts)
    assert set(part.targets) == set(rest.targets) == set(split.targets)


@pytest.mark.slow
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)), min_size=20, max_size=60
    ),
    seed=st.integers(0, 99),
)
def test_a_text_with_two_labels_still_lies_on_one_side(
    rows: list[tuple[str, int]], seed: int
) -> None:
    split = Split(tuple(t for t, _ in rows), None, np.array([n for _, n in rows], np.int64))
    try:
        rest, part = split_off(split, split.targets, 0.3, seed)
    except DataError:
        first = dict(reversed(rows))
        assert len(set(first.values())) == len(first)  # each text alone under its label
        return
    assert not set(rest.texts) & set(part.texts)
    assert sorted(rest.texts + part.texts) == sorted(split.texts)
