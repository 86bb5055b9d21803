"""Hub names, through the real `datasets` code: a local folder stands in for a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from peftsearch.errors import DataError, MissingError, UsageError
from peftsearch.task.load import load_task
from peftsearch.task.spec import TaskSpec

CARD = """---
configs:
- config_name: plain
  data_files:
  - {{split: train, path: train.csv}}
  - {{split: validation, path: dev.csv}}
  - {{split: test, path: {test}.csv}}
  default: true
- config_name: only_train
  data_files:
  - {{split: train, path: train.csv}}
- config_name: named
  data_files:
  - {{split: train, path: some_hidden.csv}}
  - {{split: validation, path: dev.csv}}
- config_name: broken
  data_files:
  - {{split: train, path: ragged.csv}}
dataset_info:
- config_name: named
  features:
  - {{name: sentence, dtype: string}}
  - {{name: label, dtype: {{class_label: {{names: {{'0': bad, '1': good}}}}}}}}
---
"""


def rows(count: int, start: int = 0, label: int | None = None) -> str:
    lines = [
        f"sentence {i},{i % 2 if label is None else label}" for i in range(start, start + count)
    ]
    return "sentence,label\n" + "\n".join(lines) + "\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`owner/sentiment`, found from the working folder as the Hub's would be from anywhere."""
    folder = tmp_path / "owner" / "sentiment"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(test="test"))
    (folder / "train.csv").write_text(rows(60))
    (folder / "dev.csv").write_text(rows(20, 100))
    (folder / "test.csv").write_text(rows(10, 200))
    (folder / "some_hidden.csv").write_text(rows(60) + "undecided,-1\n")
    (folder / "ragged.csv").write_text("sentence,label\na,0\nb,1,2,3\n")
    (folder / "hidden.csv").write_text(rows(10, 200, label=-1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_named_data_set_has_the_splits_of_its_repository(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:plain"))
    test = task.test()
    assert test is not None
    assert (len(task.train), len(task.validation), len(test)) == (60, 20, 10)
    assert task.labels == ("0", "1")
    assert task.name == "owner/sentiment:plain"


def test_a_missing_validation_split_is_made_from_training(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:only_train"))
    test = task.test()
    assert test is not None
    assert len(task.train) + len(task.validation) + len(test) == 60


def test_a_test_split_with_hidden_labels_is_none(repository: Path) -> None:
    (repository / "README.md").write_text(CARD.format(test="hidden"))
    assert load_task(TaskSpec(name="owner/sentiment:plain")).test() is None


def test_no_test_row_is_read_before_the_test_is_opened(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def recorded(self: Any, key: str) -> Any:
        read.append(key)
        return dict.__getitem__(self, key)

    monkeypatch.setattr("datasets.DatasetDict.__getitem__", recorded)
    task = load_task(TaskSpec(name="owner/sentiment:plain"))
    assert "train" in read
    assert "test" not in read
    task.test()
    assert "test" in read


def test_class_names_are_labels_and_undecided_rows_are_left_out(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:named"))
    assert task.labels == ("bad", "good")
    assert (len(task.train), task.test()) == (60, None)
    assert any("1 rows without a label (−1) left out" in note for note in task.notes)


def test_files_that_cannot_be_read_are_an_error_of_the_data(repository: Path) -> None:
    with pytest.raises(DataError, match=r"owner/sentiment:broken.*cannot be read"):
        load_task(TaskSpec(name="owner/sentiment:broken"))


def test_loading_prints_nothing(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_task(TaskSpec(name="owner/sentiment:plain"))
    with pytest.raises(DataError):
        load_task(TaskSpec(name="owner/sentiment:broken"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["", ":", " :x"])
def test_a_name_without_a_data_set_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="owner/dataset"):
        load_task(TaskSpec(name=name))


@pytest.mark.parametrize("name", ["glue:sst2", "a/b/c", "../x", "no such/name", "x" * 300])
def test_a_name_that_is_not_here_is_missing(name: str) -> None:
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE"):
        load_task(TaskSpec(name=name))


def test_an_unknown_configuration_is_named(repository: Path) -> None:
    with pytest.raises(DataError, match="owner/sentiment:plian"):
        load_task(TaskSpec(name="owner/sentiment:plian"))
