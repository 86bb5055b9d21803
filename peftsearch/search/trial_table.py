"""Optuna's trials of one study and their attributes, by trial number."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

__all__ = ["TrialTable"]


class TrialTable:
    """What every worker sees; each call reads what others wrote meanwhile."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._ids: dict[int, int] = {}
        self._is_steady = False
        self._read: list[FrozenTrial] | None = None

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Read once, while the study's lock keeps others from deciding: a database is slow.

        Own attributes show at once; how trials that were told meanwhile ended does not.
        """
        self._is_steady, self._read = True, None
        try:
            yield
        finally:
            self._is_steady, self._read = False, None

    def all(self, *states: TrialState) -> list[FrozenTrial]:
        """By number; not to be changed."""
        read = self._read
        if read is None:
            read = self.study.get_trials(deepcopy=False)
            if self._is_steady:
                self._read = read
        return [trial for trial in read if trial.state in states] if states else read

    def running(self) -> list[FrozenTrial]:
        return self.all(TrialState.RUNNING)

    def get(self, number: int) -> FrozenTrial:
        return self.all()[number]

    def set(self, number: int, key: str, value: Any) -> None:
        """Set an attribute (JSON) of a trial that has not ended."""
        if number not in self._ids:
            self._ids[number] = self.get(number)._trial_id
        self.study._storage.set_trial_user_attr(self._ids[number], key, value)
        if self._read is not None:
            self._read[number].user_attrs[key] = value
