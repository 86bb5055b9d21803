"""What follows from a study's record, and a record that was damaged."""

from __future__ import annotations

import pytest

from peftsearch.errors import UsageError
from peftsearch.study.settings import task_of, tokenizers_of
from support.reports import info


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ({"tra}in": "x"}, "task.tra}in"),
        ({"generation": {"no_repeat_ngram": -1.5}}, "task.generation.no_repeat_ngram"),
        ({"languages": ["en"]}, "task.languages.1"),
        ({"languages": 5}, "task.languages"),
    ],
)
def test_a_damaged_task_is_named_by_its_key(task: dict[str, object], key: str) -> None:
    damaged = info().model_copy(update={"task": task})
    for read in (task_of, tokenizers_of):
        with pytest.raises(UsageError, match=f"study.json of study 'study': {key}: "):
            read(damaged)
