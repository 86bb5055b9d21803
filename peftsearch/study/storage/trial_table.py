"""Batched access to the Optuna trials of a study: read and written together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from peftsearch.errors import UsageError
from peftsearch.records.records import StudyInfo
from peftsearch.study.storage.attributes import Attribute

__all__ = ["BatchingDatabase", "TrialTable", "directions_of", "refuse_other_directions"]

T = TypeVar("T")


class BatchingDatabase(Protocol):
    """A database with fewer round trips than Optuna's own access."""

    def batched(self, new_trial_attributes: Mapping[str, Any] = {}) -> AbstractContextManager[None]:
        """In this context Optuna uses the trials read last; trials created in it have the
        attributes `new_trial_attributes`.
        """

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        """Write all of the attributes or none. `trial_id` is Optuna's."""


class TrialTable:
    """Trials by number, and their attributes. Every call but `cached` sees what other workers
    wrote.

    `database`: where the study is kept, if in one.
    """

    def __init__(self, study: optuna.Study, database: BatchingDatabase | None = None) -> None:
        self.study, self._database = study, database
        self._ids: dict[int, int] = {}
        self._in_snapshot = False
        self._read: list[FrozenTrial] | None = None
        self._cached: list[FrozenTrial] | None = None
        self._pending: list[tuple[int, str, Any]] | None = None
        self._on_commit: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the trials once in this block: a database is slow, and while the study's lock is
        held, others decide nothing.

        Attributes that are set show at once; that trials have ended meanwhile does not.
        """
        self._in_snapshot, self._read = True, None
        try:
            yield
        finally:
            self._in_snapshot, self._read = False, None

    @contextlib.contextmanager
    def batched(self, new_trial_attributes: Mapping[str, Any] = {}) -> Iterator[None]:
        """Optuna, too, uses the trials read last in this block: proposals may be based on trials
        that are a moment old. In a database, trials begun in it have the attributes
        `new_trial_attributes`.
        """
        if self._database is None:
            yield
        else:
            with self._database.batched(new_trial_attributes):
                yield

    def cached(self) -> list[FrozenTrial]:
        """Trials as read last, where a moment's delay does no harm; not to be changed."""
        return self.all() if self._cached is None else self._cached

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials of some states, or all, by number; not to be changed."""
        read = self._read
        if read is None:
            read = self._cached = self.study.get_trials(deepcopy=False)
            if self._in_snapshot:
                self._read = read
        return [trial for trial in read if trial.state in states] if states else read

    def running(self) -> list[FrozenTrial]:
        return self.all(TrialState.RUNNING)

    def get(self, number: int) -> FrozenTrial:
        return self.all()[number]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Write the attributes set in this block at its end, in order; in a database all of a
        trial's or none, in one transaction.
        """
        self._pending, self._on_commit = [], []
        try:
            yield
            pending, self._pending = self._pending, None
            for number, attributes in _by_number(pending).items():
                self._write(number, attributes)
            for do in self._on_commit:
                do()
        finally:
            self._pending = None

    def on_commit(self, do: Callable[[], object]) -> None:
        """Call `do` once the attributes are written: now, or at the end of a `transaction`."""
        if self._pending is None:
            do()
        else:
            self._on_commit.append(do)

    def set(self, number: int, attribute: Attribute[T], value: T) -> None:
        """Set an attribute of a trial that has not ended."""
        if self._pending is None:
            self._write(number, {attribute.key: value})
        else:
            self._pending.append((number, attribute.key, value))

    def _write(self, number: int, attributes: Mapping[str, Any]) -> None:
        if number not in self._ids:
            self._ids[number] = self.get(number)._trial_id
        if self._database is not None:
            self._database.set_trial_user_attrs(self._ids[number], attributes)
        else:
            for key, value in attributes.items():
                self.study._storage.set_trial_user_attr(self._ids[number], key, value)
        if self._read is not None:
            self._read[number].user_attrs.update(attributes)


def _by_number(attributes: list[tuple[int, str, Any]]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, key, value in attributes:
        found.setdefault(number, {})[key] = value
    return found


def directions_of(info: StudyInfo) -> list[StudyDirection]:
    """Optuna's directions of a study's two objectives: the metric's own, and down for tuned %."""
    metric = StudyDirection.MAXIMIZE if info.metric.maximise else StudyDirection.MINIMIZE
    return [metric, StudyDirection.MINIMIZE]


def refuse_other_directions(study: optuna.Study, info: StudyInfo, where: str) -> None:
    """UsageError for a damaged record of Optuna's, whose study would take no result."""
    if study.directions != directions_of(info):
        found = ", ".join(direction.name.lower() for direction in study.directions)
        raise UsageError(
            f"{where}: damaged: the objectives of study '{info.name}' are to {found} there, "
            "unlike in its study.json; restore it from a copy; trials/ is safe, and can be exported"
        )
