"""The same seed proposes, stops and tells the same trials as when this was recorded.

The real worker and study search; trials are not trained. Their metrics are a function of the
configuration, and the space offers whole numbers, so that the record holds on every processor.
After a change that is meant to propose other trials, `PYTHONPATH=tests python
tests/study/test_golden.py` writes the record anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftsearch.records.folder import StudyFolder
from peftsearch.workers.events import Event, TrialEnded, TrialEvaluated
from peftsearch.workers.limits import Limits
from support.standin import create
from support.standin_worker import search_without_training

pytestmark = pytest.mark.internals

RECORD = Path(__file__).with_name("golden.json")
TRIALS = 60


def searched(folder: StudyFolder) -> list[dict[str, Any]]:
    """Each trial of one worker's search: its configuration, its verdicts and its end."""
    heard: list[Event] = []
    search_without_training(folder, Limits(trials=TRIALS), heard.append)
    decisions: dict[int, list[str]] = {}
    for event in heard:
        if isinstance(event, TrialEvaluated):
            decisions.setdefault(event.number, []).append(event.decision)
    results = [event.result for event in heard if isinstance(event, TrialEnded)]
    return [
        {
            "number": result.number,
            "origin": result.origin,
            "method": result.method,
            "configuration": result.description,
            "hash": result.configuration_hash,
            "decisions": decisions[result.number],
            "state": result.state,
        }
        for result in results
        if result.state in ("full", "stopped")
    ]


def test_sixty_trials_are_those_that_were_recorded(tmp_path: Path, tiny_bert: Path) -> None:
    found = searched(create(tiny_bert, tmp_path))
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    for one, other in zip(found, recorded, strict=True):
        assert one == other


def test_the_record_has_something_of_everything() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    reasons = {reason for trial in recorded for reason in trial["decisions"]}
    assert len(recorded) == TRIALS
    assert {trial["state"] for trial in recorded} == {"full", "stopped"}
    assert {trial["origin"] for trial in recorded} == {"seed", "sampled", "landmark"}
    assert len({trial["hash"] for trial in recorded}) == TRIALS
    assert {"a landmark", "full length", "on the rung's own frontier"} < reasons


if __name__ == "__main__":
    import tempfile

    from support.tiny import build_tiny_bert

    with tempfile.TemporaryDirectory() as place:
        model = build_tiny_bert(Path(place) / "model")
        record = searched(create(model, Path(place)))
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
