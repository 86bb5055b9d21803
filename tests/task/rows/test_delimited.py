"""Tables of text: their separator, blank lines, names that come twice, numbers of other types."""

from __future__ import annotations

import datetime
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from peftsearch.errors import DataError, UsageError
from peftsearch.task.rows.files import read_rows
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec


def read(tmp_path: Path, name: str, content: str, **more: Any) -> dict[str, list[str]]:
    path = tmp_path / name
    path.write_bytes(content.encode())
    found: dict[str, list[str]] = read_rows(str(path), **more).table.to_dict("list")
    return found


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.txt"])
def test_every_line_is_a_row_blank_ones_too(name: str, tmp_path: Path) -> None:
    _, found = read(tmp_path, name, "text\ngood\n\nbad\n\n").popitem()
    assert found[-4:] == ["good", "", "bad", ""]
    without = read(tmp_path, name, "\ngood\n\nbad\n", header=False)
    assert without == {"1": ["", "good", "", "bad"]}


def test_blank_lines_above_the_names_are_no_names(tmp_path: Path) -> None:
    found = read(tmp_path, "d.csv", "\r\n \r\ntext,label\r\na,1\r\n\r\nb,2\r\n")
    assert found == {"text": ["a", "", "b"], "label": ["1", "", "2"]}


def test_a_line_that_is_blank_within_quotes_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "d.csv", 'text\n"a\n\nb"\n') == {"text": ["a\n\nb"]}


def test_rows_are_counted_with_the_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("text,label\na,1\n\nb,2\nc,\n" + "d,1\ne,2\n" * 5)
    with pytest.raises(DataError, match=r"d\.csv: data row 4 has no label"):
        load_task(TaskSpec(train=str(tmp_path / "d.csv")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", "text,label,label\na,1,0\n"),
        ("d.csv", '"label",text," label "\n1,a,0\n'),
        ("d.tsv", "label\ttext\tlabel\n1\ta\t0\n"),
        ("d.json", '[{"text": "a", "label": 1, "label": 0}]'),
        ("d.jsonl", '{"text": "a", "label": 1, "label": 0}\n'),
    ],
)
def test_two_columns_of_one_name_are_refused(name: str, content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns are called 'label'; rename one"):
        read(tmp_path, name, content)


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    found = read(tmp_path, "d.csv", ",text,label,,\n0,a,1,,\n")
    assert (found["text"], found["label"]) == (["a"], ["1"])


@pytest.mark.parametrize("said", [";", "semicolon"])
@pytest.mark.parametrize("name", ["d.csv", "d.txt", "d.data", "data"])
def test_a_separator_makes_a_table_of_any_file(said: str, name: str, tmp_path: Path) -> None:
    separator = TaskSpec(separator=said).separator
    found = read(tmp_path, name, 'text;label\n"a; b, c";1\n', separator=separator)
    assert found == {"text": ["a; b, c"], "label": ["1"]}


def test_tabs_have_names(tmp_path: Path) -> None:
    for said in ("tab", "\\t", "\t"):
        separator = TaskSpec(separator=said).separator
        assert read(tmp_path, "d.csv", 'a\tb\n"x\ty\n', separator=separator) == {
            "a": ['"x'],
            "b": ["y"],
        }


def test_a_space_takes_the_first_word_apart(tmp_path: Path) -> None:
    """Lines of TREC, in Latin-1, and of fastText."""
    lines = "DESC:manner How did it develop : at all ?\n\nNUM:date When  is p\xe2t\xe9 due ?\n"
    path = tmp_path / "train.label"
    path.write_bytes(lines.encode("latin-1"))
    rows = read_rows(str(path), header=False, separator=" ")
    assert rows.table["1"].tolist() == ["DESC:manner", "", "NUM:date"]
    assert rows.table["2"].tolist()[0] == "How did it develop : at all ?"
    assert "2 invalid UTF-8 sequences replaced" in rows.notes[0]


@pytest.mark.parametrize("said", ["", ";;", '"', "\n", "x", "§"])
def test_a_separator_is_one_character(said: str) -> None:
    with pytest.raises(ValidationError, match="one character that is no letter or digit"):
        TaskSpec(separator=said)


@pytest.mark.parametrize(
    ("more", "flag"), [({"separator": ";"}, "--separator"), ({"header": False}, "--no-header")]
)
@pytest.mark.parametrize(
    "name", ["d.json", "d.jsonl", "d.jsonl.gz", "d.parquet", "folder", "d.en,d.ro"]
)
def test_options_of_tables_are_refused_of_everything_else(
    name: str, more: dict[str, Any], flag: str, tmp_path: Path
) -> None:
    table = pa.table({"text": ["a", "b"]})
    pq.write_table(table, tmp_path / "d.parquet")
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(str(tmp_path / "folder"))
    (tmp_path / "d.json").write_text('[{"text": "a"}]')
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    (tmp_path / "d.en").write_text("a\n")
    (tmp_path / "d.ro").write_text("b\n")
    path = ",".join(str(tmp_path / one) for one in name.split(","))
    assert len(read_rows(path).table)
    with pytest.raises(DataError, match=f"{flag} is for csv, tsv and txt: leave it out"):
        read_rows(path, **more)
    with pytest.raises(UsageError, match=f"{flag} applies only to your own files"):
        load_task(TaskSpec(name="demo:tweets", **more))


def test_a_separator_is_for_tables_of_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--separator is for csv, tsv and txt"):
        read(tmp_path, "d.json", "[]", separator=";")
    with pytest.raises(UsageError, match="leave it out with --task"):
        load_task(TaskSpec(name="demo:tweets", separator=";"))
    with pytest.raises(DataError, match="first word of a line is a column, give --separator space"):
        read(tmp_path, "d.csv", "a:b\nc:d:e\n", separator=":")


def test_texts_alone_say_what_they_are_good_for(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("".join(f"line {i}\n" for i in range(20)))
    with pytest.raises(DataError, match=r"texts alone, in column 'text'.* --kind causal"):
        load_task(TaskSpec(train=str(path)))
    assert load_task(TaskSpec(train=str(path), kind="causal")).train.targets[0].startswith("line")


BIG = 2**53 + 1
LABELS: list[tuple[str, pa.Array, tuple[str, ...]]] = [
    ("decimal", pa.array([Decimal(1), Decimal(2)], pa.decimal128(21, 2)), ("1", "2")),
    ("decimal256", pa.array([Decimal(1), Decimal(2)], pa.decimal256(50, 3)), ("1", "2")),
    ("large_string", pa.array(["a", "b"], pa.large_string()), ("a", "b")),
    ("dictionary", pa.array(["a", "b"]).dictionary_encode(), ("a", "b")),
    ("uint64", pa.array([0, 2**64 - 1], pa.uint64()), ("0", str(2**64 - 1))),
    ("bool", pa.array([True, False]), ("False", "True")),
    ("float32", pa.array([1.0, 2.0], pa.float32()), ("1", "2")),
]


@pytest.mark.parametrize(("name", "labels", "called"), LABELS)
def test_labels_of_every_type_of_arrow(
    name: str, labels: pa.Array, called: tuple[str, ...], tmp_path: Path
) -> None:
    many = pa.concat_arrays([labels] * 10)
    texts = pa.array([f"{name} {i}" for i in range(len(many))])
    pq.write_table(pa.table({"text": texts, "label": many}), tmp_path / "d.parquet")
    assert load_task(TaskSpec(train=str(tmp_path / "d.parquet"))).labels == called


def test_a_decimal_is_a_number(tmp_path: Path) -> None:
    scores = pa.array([Decimal(i) / 4 for i in range(20)], pa.decimal128(21, 2))
    texts = pa.array([f"text {i}" for i in range(20)])
    pq.write_table(pa.table({"text": texts, "score": scores}), tmp_path / "d.parquet")
    found = load_task(TaskSpec(train=str(tmp_path / "d.parquet"), kind="regression")).train
    values = dict(zip(found.texts, found.targets, strict=True))
    assert all(value == int(text.split()[1]) / 4 for text, value in values.items())
    with pytest.raises(DataError, match=r"is not a label: Decimal\('0.25'\) .*--kind regression"):
        load_task(TaskSpec(train=str(tmp_path / "d.parquet"), label="score"))


def test_whole_numbers_with_a_gap_stay_whole(tmp_path: Path) -> None:
    """A float has no room for both of these."""
    ids = pa.array([BIG, BIG - 1, None], pa.int64())
    pq.write_table(pa.table({"id": ids}), tmp_path / "d.parquet")
    assert read_rows(str(tmp_path / "d.parquet")).table["id"].tolist()[:2] == [BIG, BIG - 1]


@pytest.mark.parametrize(
    "strange",
    [
        pa.array([2**31 - 1] * 20, pa.date32()),
        pa.array([datetime.datetime(2020, 1, 1)] * 20, pa.timestamp("ns", tz="Nowhere/No")),
    ],
)
def test_a_column_beyond_python_does_no_harm_unread(strange: pa.Array, tmp_path: Path) -> None:
    texts, labels = pa.array([f"t {i}" for i in range(20)]), pa.array([0, 1] * 10)
    table = pa.table({"text": texts, "label": labels, "when": strange})
    pq.write_table(table, tmp_path / "d.parquet")
    assert load_task(TaskSpec(train=str(tmp_path / "d.parquet"))).labels == ("0", "1")
    with pytest.raises(DataError, match="column 'when' is not a label: a value of"):
        load_task(TaskSpec(train=str(tmp_path / "d.parquet"), label="when"))
