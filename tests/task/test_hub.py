"""Hub names, through the real `datasets` code: a local folder stands in for a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.errors import DataError
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


def test_an_unknown_configuration_is_named(repository: Path) -> None:
    with pytest.raises(DataError, match="owner/sentiment:plian"):
        load_task(TaskSpec(name="owner/sentiment:plian"))
