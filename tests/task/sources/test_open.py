"""Opening a task: what is wrong without data is said before data are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.errors import DataError, UsageError
from peftsearch.task.sources import load
from peftsearch.task.sources.open import open_task
from peftsearch.task.spec import TaskSpec


def test_what_shows_without_data_is_refused_before_they_are_read(
    tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    monkeypatch.setattr(load, "load_task", lambda spec: pytest.fail("data were read"))
    with pytest.raises(UsageError, match="metric 'rouge2'"):
        open_task(spec.model_copy(update={"kind": "classification", "metric": "rouge2"}))
    with pytest.raises(DataError):
        open_task(spec.model_copy(update={"train": "nowhere.csv"}))


def test_the_data_come_with_the_test_split_closed(tiny_sentiment_csv: Path) -> None:
    task = open_task(TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label"))
    assert len(task.train.texts) > len(task.validation.texts) > 0
    assert task.labels == ("negative", "positive")
