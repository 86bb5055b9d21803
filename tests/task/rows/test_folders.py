"""Folders of `save_to_disk`, written by the real `datasets` library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from peftsearch.errors import DataError
from peftsearch.task.rows import files
from peftsearch.task.rows.files import read_rows
from peftsearch.task.rows.folders import splits_in
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec

FEATURES = datasets.Features(
    {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])}
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    datasets.disable_progress_bars()


def rows(count: int, start: int = 0, label: int | None = None) -> datasets.Dataset:
    numbers = range(start, start + count)
    labels = [i % 2 if label is None else label for i in numbers]
    content = {"text": [f"text {i}" for i in numbers], "label": labels}
    return datasets.Dataset.from_dict(content, features=FEATURES)


def saved(folder: Path, data: datasets.Dataset, **more: Any) -> str:
    data.save_to_disk(str(folder), **more)
    return str(folder)


def saved_splits(folder: Path, **splits: datasets.Dataset) -> str:
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return str(folder)


def test_a_saved_data_set_is_a_file_like_any_other(tmp_path: Path) -> None:
    task = load_task(TaskSpec(train=saved(tmp_path / "d", rows(60))))
    assert task.name == "d"
    assert task.labels == ("neg", "pos")
    assert any("split by seed 0" in note for note in task.notes)


def test_several_files_are_read_in_their_order(tmp_path: Path) -> None:
    found = read_rows(saved(tmp_path / "d", rows(30), num_shards=3))
    assert found.table["text"].tolist() == [f"text {i}" for i in range(30)]


def test_chosen_and_shuffled_rows_are_those_that_were_saved(tmp_path: Path) -> None:
    chosen = rows(30).shuffle(seed=0).select(range(7))
    assert read_rows(saved(tmp_path / "d", chosen)).table["text"].tolist() == list(chosen["text"])


def test_a_translation_is_two_columns(tmp_path: Path) -> None:
    features = datasets.Features({"translation": datasets.Translation(["en", "ro"])})
    pairs = [{"en": f"text {i}", "ro": f"textul {i}"} for i in range(40)]
    data = datasets.Dataset.from_dict({"translation": pairs}, features=features)
    path = saved(tmp_path / "d", data)
    assert list(read_rows(path).table.columns) == ["translation.en", "translation.ro"]
    spec = TaskSpec(train=path, kind="seq2seq", text=("translation.en",), label="translation.ro")
    assert load_task(spec).train.targets[0].startswith("textul")


def test_a_folder_of_splits_alone_gives_all_three(tmp_path: Path) -> None:
    splits = {"train": rows(40), "validation": rows(20, 100), "test": rows(10, 200)}
    folder = saved_splits(tmp_path / "d", **splits)
    assert splits_in(folder) == {name: f"{folder}/{name}" for name in splits}
    task = load_task(TaskSpec(train=folder))
    test = task.test()
    assert test is not None
    assert (len(task.train), len(task.validation), len(test)) == (40, 20, 10)
    assert task.labels == ("neg", "pos")
    assert task.name == "d/train"


def test_the_test_split_is_not_read_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved_splits(
        tmp_path / "d", train=rows(40), validation=rows(20, 100), test=rows(10, 200)
    )
    read: list[str] = []
    plain = files.read_folder
    monkeypatch.setattr(files, "read_folder", lambda path: read.append(path) or plain(path))
    task = load_task(TaskSpec(train=folder))
    assert read == [f"{folder}/train", f"{folder}/validation"]
    task.test()
    assert read[2:] == [f"{folder}/test"]


def test_what_is_said_wins_over_what_is_found(tmp_path: Path) -> None:
    folder = saved_splits(tmp_path / "d", train=rows(40), validation=rows(20, 100))
    other = saved(tmp_path / "other", rows(8, 300))
    assert len(load_task(TaskSpec(train=folder, eval=other)).validation) == 8


def test_a_folder_without_validation_has_it_made_from_training(tmp_path: Path) -> None:
    task = load_task(
        TaskSpec(train=saved_splits(tmp_path / "d", train=rows(40), test=rows(10, 200)))
    )
    test = task.test()
    assert test is not None
    assert (len(task.train) + len(task.validation), len(test)) == (40, 10)


def test_a_found_test_split_with_hidden_labels_is_none(tmp_path: Path) -> None:
    hidden = rows(10, 200, label=-1)
    folder = saved_splits(tmp_path / "d", train=rows(40), validation=rows(20, 100), test=hidden)
    assert load_task(TaskSpec(train=folder)).test() is None


def test_names_of_labels_are_those_of_the_column(tmp_path: Path) -> None:
    names = {"label": ("neg", "pos")}
    assert read_rows(saved(tmp_path / "d", rows(4))).classes == names
    rows(4).to_parquet(str(tmp_path / "d.parquet"))
    assert read_rows(str(tmp_path / "d.parquet")).classes == names
    (tmp_path / "d.csv").write_text("text,label\na,1\n")
    assert read_rows(str(tmp_path / "d.csv")).classes == {}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "a folder that holds nothing; give a file, or a folder written by save_to_disk"),
        (("a.csv", "b.tsv"), "a folder that holds a.csv, b.tsv; give a file"),
        (tuple(f"{i}.txt" for i in range(9)), "holds 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 4 more"),
    ],
)
def test_any_other_folder_says_what_it_holds(
    files: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=sentence):
        read_rows(str(tmp_path))


def test_a_folder_of_splits_is_no_evaluation_split(tmp_path: Path) -> None:
    folder = saved_splits(tmp_path / "d", train=rows(40), test=rows(8))
    with pytest.raises(
        DataError, match=r"a folder of splits \(train, test\); give one, as .*/train"
    ):
        load_task(TaskSpec(train=folder, eval=folder))


def test_a_folder_without_a_train_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no train split in this folder; it has: all"):
        load_task(TaskSpec(train=saved_splits(tmp_path / "d", all=rows(40))))


ARROW = "data-00000-of-00001.arrow"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        (ARROW, None, f"{ARROW}: missing, though state.json names it"),
        (ARROW, "", f"{ARROW}: not a readable Arrow file"),
        (ARROW, "nonsense, and more of it", f"{ARROW}: not a readable Arrow file"),
        ("state.json", "{", "state.json: not readable as JSON"),
        ("state.json", "[]", "state.json: an object was expected, not list"),
        ("state.json", "{}", "state.json: it names no Arrow files"),
        ("state.json", '{"_data_files": [{"filename": "../x.arrow"}]}', "it names no Arrow files"),
        ("state.json", '{"_indices_files": [{"filename": "i"}]}', "an index, of an old version"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(
    file: str, content: str | None, sentence: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "d", rows(40))
    (tmp_path / "d" / file).unlink()
    if content is not None:
        (tmp_path / "d" / file).write_text(content)
    with pytest.raises(DataError, match=sentence) as caught:
        load_task(TaskSpec(train=folder))
    assert "\n" not in str(caught.value)


def test_an_arrow_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", rows(40))
    path = tmp_path / "d" / ARROW
    whole = path.read_bytes()
    for kept in range(0, len(whole), 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"not a readable Arrow file|cut off"):
            read_rows(folder)


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder has no rows"):
        read_rows(saved(tmp_path / "d", rows(0)))


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", rows(40))
    saved(tmp_path / "other", rows(4).rename_column("text", "sentence"))
    (tmp_path / "other" / ARROW).rename(tmp_path / "d" / "more.arrow")
    files = [{"filename": ARROW}, {"filename": "more.arrow"}]
    (tmp_path / "d" / "state.json").write_text(json.dumps({"_data_files": files}))
    with pytest.raises(DataError, match="its Arrow files have different columns"):
        read_rows(folder)


@pytest.mark.parametrize(
    "content", ['{"splits": ["../x"]}', '{"splits": "train"}', "{}", "[]", "{"]
)
def test_a_damaged_list_of_splits_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(DataError, match=r"dataset_dict\.json: (not|an object)"):
        load_task(TaskSpec(train=str(tmp_path)))


def test_text_damaged_inside_an_arrow_file_is_one_sentence(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path / "d", rows(4)))
    path = next(folder.glob("*.arrow"))
    path.write_bytes(path.read_bytes().replace(b"text 2", b"te\xff\xfe 2"))
    with pytest.raises(DataError, match="its columns are damaged"):
        read_rows(str(folder))
