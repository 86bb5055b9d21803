"""Parallel text: line by line, whatever the lines hold; two files that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.errors import DataError, UsageError
from peftsearch.task.rows.files import read_rows
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec


def pair(folder: Path, en: str | bytes, ro: str | bytes, names: str = "news.en news.ro") -> str:
    paths = [folder / name for name in names.split()]
    for path, content in zip(paths, (en, ro), strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ",".join(map(str, paths))


def columns(path: str) -> tuple[list[str], list[str]]:
    table = read_rows(path).table
    assert list(table.columns) == ["text", "target"]
    return table["text"].tolist(), table["target"].tolist()


def test_lines_of_one_number_are_a_row(tmp_path: Path) -> None:
    path = pair(tmp_path, "one\ntwo\n", "unu\ndoi\n")
    assert columns(path) == (["one", "two"], ["unu", "doi"])
    assert read_rows(path).name == "news.en,news.ro"


def test_empty_lines_are_rows_and_left_out_later(tmp_path: Path) -> None:
    lines = [f"text {i}" for i in range(40)]
    path = pair(tmp_path, "\n".join([*lines, "", "x\n"]), "\n".join([*lines, "y", "\n"]))
    assert len(read_rows(path).table) == 42
    task = load_task(TaskSpec(train=path))
    assert any("2 rows with an empty text left out" in note for note in task.notes)


def test_parallel_text_is_a_task_of_writing_texts(tmp_path: Path) -> None:
    lines = "\n".join(f"text {i}" for i in range(40))
    path = pair(tmp_path, lines, lines.upper())
    task = load_task(TaskSpec(train=path))
    assert task.kind.name == "seq2seq"
    assert "kind: seq2seq, as the data are parallel text" in task.notes
    assert all(
        text.upper() == target
        for text, target in zip(task.train.texts, task.train.targets, strict=True)
    )
    assert load_task(TaskSpec(train=path, kind="causal")).kind.name == "causal"


def test_columns_of_0_and_1_are_refused_of_parallel_text_by_what_was_said(tmp_path: Path) -> None:
    lines = "\n".join(f"text {i}" for i in range(40))
    path = pair(tmp_path, lines, lines.upper())
    with pytest.raises(UsageError) as caught:
        load_task(TaskSpec(train=path, labels=("a", "b")))
    assert str(caught.value) == (
        "--label is given 2 times, for columns of 0 and 1, and parallel text (news.en,news.ro) has "
        "one target column: leave --label out"
    )


def test_splits_of_parallel_text_are_given_as_pairs(tmp_path: Path) -> None:
    train = pair(tmp_path, "a\nb\nc", "A\nB\nC")
    later = pair(tmp_path, "d\ne", "D\nE", "dev.en dev.ro")
    task = load_task(TaskSpec(train=train, eval=later, test=later))
    test = task.test()
    assert test is not None
    assert sorted(task.validation.targets) == sorted(test.targets) == ["D", "E"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("a\r\nb\r\n", ["a", "b"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("a\u2028a\x0ca\x85a\nb\n", ["a\u2028a\x0ca\x85a", "b"]),
        ("a\n\n", ["a", ""]),
        ('"a\nb, c', ['"a', "b, c"]),
    ],
)
def test_a_line_ends_at_a_newline_only(content: str, lines: list[str], tmp_path: Path) -> None:
    assert columns(pair(tmp_path, content, "1\n2\n"))[0] == lines


def test_invalid_utf8_is_replaced_and_counted_on_each_side(tmp_path: Path) -> None:
    rows = read_rows(pair(tmp_path, b"a\xff\nb\n", b"c\nd\xfe\xfe\n"))
    assert rows.table["text"].tolist() == ["a�", "b"]
    assert [note.split(": ")[1] for note in rows.notes] == [
        "1 invalid UTF-8 sequences replaced",
        "2 invalid UTF-8 sequences replaced",
    ]


def test_a_file_that_really_has_this_name_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.en,b.csv"
    path.write_text("text,label\nx,1\n")
    assert list(read_rows(str(path)).table.columns) == ["text", "label"]


def test_of_several_commas_the_one_between_two_files_counts(tmp_path: Path) -> None:
    path = pair(tmp_path, "a\n", "b\n", "x,y.en z,w.ro")
    assert columns(path) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("en", "ro", "names", "sentence"),
    [
        (
            "a\nb\n",
            "c\n",
            "a.en a.ro",
            "a.en has 2 lines and .*a.ro 1: parallel text has one sentence a line, and as many",
        ),
        ("a\n", " \n\n", "a.en a.ro", "a.ro: the file is empty"),
        ("", "a\n", "a.en a.ro", "a.en: the file is empty"),
        ("a\n", "b\0\n", "a.en a.ro", r"a.ro: not plain text \(compressed\?\)"),
        ("a\n", "b\n", "a.csv a.ro", "a.csv: parallel text is two plain text files, and '.csv'"),
        ("a\n", "b\n".encode("utf-16"), "a.en a.ro", "a.ro: UTF-16 or UTF-32 text; save it as"),
    ],
)
def test_files_that_are_no_parallel_text_are_refused(
    en: str, ro: str | bytes, names: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=sentence):
        read_rows(pair(tmp_path, en, ro, names))


def test_the_one_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "news.en").write_text("a\n")
    with pytest.raises(DataError, match=r"nwes\.ro: no such file") as caught:
        read_rows(f"{tmp_path}/news.en,{tmp_path}/nwes.ro")
    assert "," not in str(caught.value)
    with pytest.raises(DataError, match=r"news\.ne: no such file; did you mean 'news\.en'\?"):
        read_rows(f"{tmp_path}/news.ne,{tmp_path}/news.en")


def test_a_folder_beside_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "news.en").write_text("a\n")
    with pytest.raises(DataError, match="a folder; parallel text is two plain text files"):
        read_rows(f"{tmp_path}/news.en,{tmp_path}")


@pytest.mark.parametrize("path", [",", "a,", ",a", "a,b"])
def test_commas_alone_name_no_files(path: str) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(path)


@given(
    rows=st.lists(
        st.tuples(*(st.text(st.characters(exclude_characters="\n\r\0\ufeff")),) * 2), min_size=1
    )
)
def test_what_was_written_is_what_is_read(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sides = [[row[side] for row in rows] for side in (0, 1)]
    if not all("".join(side).strip() for side in sides):
        return
    folder = tmp_path_factory.mktemp("pair")
    content = ["\n".join(side) + "\n" for side in sides]
    assert columns(pair(folder, *content)) == (sides[0], sides[1])
