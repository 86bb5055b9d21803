"""The order of labels, which is that of the head's outputs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec
from support.tiny import write_csv


@pytest.mark.parametrize(
    "ordered",
    [("2", "10"), ("-1", "0", "1.5", "1e1"), ("b10", "b9"), ("9", "10", "b", "nan", "x")],
    ids=" ".join,
)
def test_labels_are_in_order_of_their_value_and_then_of_their_name(
    ordered: tuple[str, ...], tmp_path: Path
) -> None:
    labels = [label for label in ordered for _ in range(10)]
    random.Random(0).shuffle(labels)
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    task = load_task(TaskSpec(train=str(write_csv(tmp_path / "d.csv", rows))))
    assert task.labels == ordered
