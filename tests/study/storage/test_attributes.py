"""A search writes exactly the attributes of the schema: keys, types, and the order stated there."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter

import peftsearch.study as study_package
from peftsearch.records.folder import StudyFolder
from peftsearch.study.storage import attributes
from peftsearch.study.storage.artifacts import open_artifacts
from peftsearch.study.storage.attributes import Attribute, AttributeFamily
from peftsearch.study.storage.base import StudyStorage
from peftsearch.study.storage.database.heartbeat import CountingHeartbeat, HeartbeatTiming
from peftsearch.study.storage.database.registration import register
from peftsearch.study.storage.database.trial_store import DatabaseTrialStore
from peftsearch.study.storage.retry import Retry
from peftsearch.study.storage.trial_table import TrialTable
from peftsearch.study.study import Study
from support import standin

SPACE = """schema: 1
budgets: {tuned_pct: {log: [9, 9.01]}, epochs: 1}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [linear, relu, gelu]}}
train: {lr: 0.001}
seed_with: [head-only-mean, lora]
"""

IN_FOLDERS = {
    *("worker", "seed", "method", "origin", "budget_pct", "tuned_pct", "same_as", "hash"),
    *("rung:", "requeued", "rung", "cause", "trials"),
}
IN_DATABASES = {
    *("configuration", "curve:", "checkpoint", "adapter", "examples", "result"),
    *("lock", "space", "info", "alive:"),
}
"""Studies of earlier versions have these keys, too, but for `examples`."""


@dataclass
class Written:
    """Keys and values in the order of writing, of the study and by trial."""

    study: list[tuple[str, Any]] = field(default_factory=list)
    trials: dict[int, list[tuple[str, Any]]] = field(default_factory=dict)

    def of(self, number: int) -> list[str]:
        return [key for key, _ in self.trials[number]]

    def all(self) -> Iterator[tuple[str, Any]]:
        yield from self.study
        for of_trial in self.trials.values():
            yield from of_trial

    def note(self, number: int, key: str, value: Any) -> None:
        self.trials.setdefault(number, []).append((key, json.loads(json.dumps(value))))


class Recording(InMemoryStorage):
    """Optuna's storage in memory, which notes what is written. Trials' ids are their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.written = Written()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = super().create_new_trial(study_id, template_trial)
        for key, value in (template_trial.user_attrs if template_trial else {}).items():
            self.written.note(number, key, value)
        return number

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.written.note(trial_id, key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state.is_finished():
            self.written.note(trial_id, "told", None)
        return super().set_trial_state_values(trial_id, state, values)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.written.study.append((key, value))
        super().set_study_user_attr(study_id, key, value)


@dataclass(frozen=True)
class Searched:
    """Numbers of trials that came to something, and what was written."""

    written: Written
    trained: int
    continued: int
    failed: int
    duplicates: list[int]


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return standin.create(tiny_bert, tmp_path, SPACE)


@pytest.fixture
def in_folder(folder: StudyFolder) -> Searched:
    found = search(standin.open_study(folder))
    written = Written()
    for line in folder.journal_path.read_text().splitlines():
        log = json.loads(line)
        if "trial_id" not in log:
            written.study += log.get("user_attr", {}).items()
        for key, value in (log.get("user_attr", {}) if "trial_id" in log else {}).items():
            written.note(log["trial_id"], key, value)
    return Searched(written, *found)


@pytest.fixture
def in_database(folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    """As in a database, without its statements: the store and the heartbeat are those of one."""
    storage, info = Recording(), folder.read_info()
    register(storage, info, SPACE)
    study = optuna.load_study(study_name=info.name, storage=storage)
    table = TrialTable(study)
    shared = StudyStorage(
        table=table,
        lock=contextlib.nullcontext(),
        heartbeat=CountingHeartbeat(storage, study._study_id, HeartbeatTiming()),
        store=DatabaseTrialStore(folder, table, open_artifacts(str(tmp_path / "files"), info.id)),
        retry=Retry("memory"),
        close=lambda: None,
    )
    monkeypatch.setattr("peftsearch.study.study.open_storage", lambda *_: shared)
    return Searched(storage.written, *search(standin.open_study(folder)))


def search(study: Study) -> tuple[int, int, int, list[int]]:
    """One trial trained to its end, one that is interrupted, one that fails, then duplicates."""
    study.join()
    study.set_target(9)
    trained, continued, failed = (standin.take(study) for _ in range(3))
    folder = study.folder.trial(trained.number)
    metric = standin.metric_of(trained)
    study.record_rung(trained.number, standin.rung_value(0, metric))
    folder.checkpoint_path.write_bytes(b"at rung 0")
    study.publish_checkpoint(trained.number)
    study.record_rung(trained.number, standin.rung_value(1, metric))
    folder.adapter_path.write_bytes(b"tuned")
    folder.examples_path.write_bytes(b"examples")
    study.tell(standin.finish(trained, study.shapes))
    study.requeue(continued.number)
    assert standin.take(study).number == continued.number
    study.tell(standin.finish(failed, study.shapes, "failed", "diverged"))
    standin.train_for_nothing(study, continued)
    asked = [study.ask() for _ in range(12)]
    for one in asked:
        if isinstance(one, standin.Assignment):
            standin.train_for_nothing(study, one)
    study.leave()
    duplicates = [r.number for r in study.folder.read().results if r.state == "duplicate"]
    return trained.number, continued.number, failed.number, duplicates


def schema() -> dict[str, Any]:
    """The types of all attributes, by key or prefix."""
    found = {}
    for name, kind in get_type_hints(attributes).items():
        if get_origin(kind) in (Attribute, AttributeFamily):
            one = getattr(attributes, name)
            found[one.key if isinstance(one, Attribute) else one.prefix] = get_args(kind)[0]
    return found


def fits(value: Any, kind: Any) -> bool:
    if is_typeddict(kind):
        kinds = get_type_hints(kind)
        return value.keys() == kinds.keys() and all(fits(value[k], kinds[k]) for k in kinds)
    TypeAdapter(kind).validate_python(value, strict=True)
    return True


def stated(key: str) -> str:
    """A key as the schema has it: with one of a family, its prefix."""
    return key.partition(":")[0] + ":" if ":" in key else key


def test_the_schema_has_the_keys_that_were_always_written() -> None:
    assert schema().keys() == IN_FOLDERS | IN_DATABASES | {"fixed_params"}


def test_a_search_in_a_folder_writes_the_schema_but_what_the_folder_holds(
    in_folder: Searched,
) -> None:
    assert {stated(key) for key, _ in in_folder.written.all()} == IN_FOLDERS
    for key, value in in_folder.written.all():
        assert fits(value, schema()[stated(key)]), key


def test_a_search_in_a_database_writes_all_of_the_schema(in_database: Searched) -> None:
    written = [(key, value) for key, value in in_database.written.all() if key != "told"]
    assert {stated(key) for key, _ in written} == IN_FOLDERS | IN_DATABASES
    for key, value in written:
        assert fits(value, schema()[stated(key)]), key


GIVEN_OUT = ["worker", "seed", "method", "origin", "budget_pct", "tuned_pct", "configuration"]


def test_recovery_may_rely_on_the_order_of_writing(in_database: Searched) -> None:
    written = in_database.written
    assert written.of(in_database.trained) == [
        *(*GIVEN_OUT, "hash", "curve:0", "rung:0", "checkpoint", "curve:1", "rung:1"),
        *("adapter", "examples", "result", "rung", "told"),
    ]
    assert written.of(in_database.failed)[-3:] == ["result", "cause", "told"]
    assert in_database.duplicates
    for number in in_database.duplicates:
        keys = written.of(number)
        assert keys[keys.index("configuration") :] == [
            *("configuration", "same_as", "hash", "result", "rung", "told"),
        ]
    continued = dict(written.trials[in_database.continued])
    keys = written.of(in_database.continued)
    again = keys.index("requeued")
    assert keys[again : again + 3] == ["requeued", "worker", "requeued"]
    assert written.trials[in_database.continued][again][1]["taken"] is False
    assert continued["requeued"]["taken"] is True
    assert [key for key, _ in written.study][:3] == ["lock", "space", "info"]


def test_the_journal_has_the_same_order(in_folder: Searched) -> None:
    database_only = {"configuration"}
    assert in_folder.written.of(in_folder.trained) == [
        *(key for key in GIVEN_OUT if key not in database_only),
        *("hash", "rung:0", "rung:1", "rung"),
    ]
    continued = in_folder.written.of(in_folder.continued)
    again = continued.index("requeued")
    assert continued[again : again + 3] == ["requeued", "worker", "requeued"]


LITERAL = re.compile(
    r"""(attrs|attributes)(\.get\(|\[)f?"|set_user_attr\(f?"|"""  # a["hash"], a.get("hash")
    r"""" (not )?in \w*\.?\w*(attrs|attributes)\b"""  # "hash" in a
)


def test_keys_stand_in_the_schema_alone() -> None:
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(study_package.__file__).parent.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if LITERAL.search(line)
    ]
    assert found == []


def test_optuna_keeps_enqueued_parameters_under_the_key_of_the_schema() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"a": 1})
    kept = study.get_trials()[0].system_attrs
    assert attributes.FIXED_PARAMS.of(kept) == {"a": 1}
