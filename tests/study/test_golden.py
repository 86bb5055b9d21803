"""The same seed proposes, stops and tells the same trials as when this was recorded.

Trials are not trained: their metrics are a function of the configuration, and the space offers
numbers that are whole, so that the record holds on every processor. After a change that is meant
to propose other trials, `python tests/study/test_golden.py` writes the record anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftsearch.policy.stopping import RungPoint, decide
from peftsearch.study.study import Assignment, Study
from support.standin import create, finish, metric_of, open_study, rung_value, take

pytestmark = pytest.mark.internals

RECORD = Path(__file__).with_name("golden.json")
TRIALS = 60


def searched(study: Study) -> list[dict[str, Any]]:
    """What one worker is given and makes of it, trial by trial."""
    return [told(study, take(study)) for _ in range(TRIALS)]


def told(study: Study, assignment: Assignment) -> dict[str, Any]:
    """A trial as the scheduler would have it: its first rung, and the second if it may go on."""
    final = metric_of(assignment)
    early = 0.5 + 0.8 * (final - 0.5)
    study.record_rung(assignment.number, rung_value(0, early))
    point = RungPoint(assignment.number, assignment.configuration.tuned_pct(study.shapes), early)
    decision = decide(point, study.peers(assignment.number, 0))
    goes_on = decision.go_on or assignment.origin == "landmark"
    if goes_on:
        study.record_rung(assignment.number, rung_value(1, final))
    results = study.tell(finish(assignment, study.shapes, "full" if goes_on else "stopped"))
    return {
        "number": assignment.number,
        "origin": assignment.origin,
        "method": assignment.method,
        "configuration": assignment.configuration.describe(),
        "hash": assignment.configuration.hash,
        "decision": decision.reason,
        "told": [[r.number, r.state, r.same_as] for r in results],
    }


def test_sixty_trials_are_those_that_were_recorded(tmp_path: Path, tiny_bert: Path) -> None:
    found = searched(open_study(create(tiny_bert, tmp_path)))
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    for one, other in zip(found, recorded, strict=True):
        assert one == other


def test_the_record_has_something_of_everything() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    states = {state for trial in recorded for _, state, _ in trial["told"]}
    assert len(recorded) == TRIALS
    assert {"full", "stopped"} <= states
    assert {trial["origin"] for trial in recorded} == {"seed", "sampled", "landmark"}
    assert len({trial["hash"] for trial in recorded}) == TRIALS


if __name__ == "__main__":
    import sys
    import tempfile

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from support.tiny import build_tiny_bert

    with tempfile.TemporaryDirectory() as place:
        model = build_tiny_bert(Path(place) / "model")
        record = searched(open_study(create(model, Path(place))))
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
