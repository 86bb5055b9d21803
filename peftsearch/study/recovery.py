"""Trials whose workers died or were interrupted: told, queued again, or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from optuna.trial import FrozenTrial

from peftsearch.records.records import TrialResult
from peftsearch.study.results import ResultRecorder
from peftsearch.study.storage.attributes import (
    FIXED_PARAMS,
    HASH,
    REQUEUED,
    SAME_AS,
    SEED,
    WORKER,
    Requeued,
)
from peftsearch.study.storage.base import TrialStore
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["MAX_CUT_OFFS", "Recovery", "waits"]

MAX_CUT_OFFS = 2
"""Times a trial may be cut off without reaching a new checkpoint before it is given up."""


class Recovery:
    """Its caller holds the study's lock."""

    def __init__(self, table: TrialTable, store: TrialStore, results: ResultRecorder) -> None:
        self.table, self.store, self.results = table, store, results

    def settle(
        self, is_left: Callable[[FrozenTrial], bool], counts: bool = True
    ) -> Iterator[TrialResult]:
        """Settle each trial that `is_left` by its worker; the results of those that end here.

        A trial with a result is told; one with a configuration is queued again, from its last
        checkpoint; one cut off while it was sampled, or too often, is given up. `counts`: whether
        the trial may be what its worker died of.
        """
        for trial in self.table.running():
            same_as = SAME_AS.of(trial.user_attrs)
            # Nobody works on a duplicate: it waits for its first, which may end right here.
            if same_as is None and (waits(trial) or not is_left(trial)):
                continue
            result = self.store.result(trial.number)
            if result is not None:
                self.results.tell(result)
            elif same_as is not None:
                first = self.store.result(same_as)
                if first is not None:
                    yield self.results.duplicate(trial.number, first)
            elif not HASH.is_in(trial.user_attrs):
                self._enqueue_again(trial)
                yield self.results.give_up(trial, "cut off while it was sampled")
            elif not counts:
                self.put_back(trial.number)
            elif not self._requeue(trial):
                yield self.results.give_up(trial, f"cut off {MAX_CUT_OFFS} times without progress")

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        """Parameters that someone asked for are tried again; methods are due again anyway."""
        asked = FIXED_PARAMS.of(trial.system_attrs)
        if asked and not SEED.is_in(trial.user_attrs):
            self.table.study.enqueue_trial(asked)

    def _requeue(self, trial: FrozenTrial) -> bool:
        """Queue a trial again; False if it was cut off too often without a new checkpoint."""
        stamp = self.store.progress(trial.number)
        before = REQUEUED.of(trial.user_attrs)
        last, stamp_then = (before["times"], before["stamp"]) if before else (0, None)
        times = 1 if stamp != stamp_then else last + 1
        if times > MAX_CUT_OFFS:
            return False
        entry = Requeued(times=times, stamp=stamp, taken=False)
        self.table.set(trial.number, REQUEUED, entry)
        return True

    def put_back(self, number: int) -> None:
        """Queue an interrupted trial, as if it had never been cut off."""
        stamp = self.store.progress(number)
        self.table.set(number, REQUEUED, Requeued(times=0, stamp=stamp, taken=False))

    def take(self, number: int, worker: str) -> FrozenTrial:
        """A trial that waits, from now on this worker's."""
        trial = self.table.get(number)
        # The worker first: killed in between, it still waits.
        self.table.set(number, WORKER, worker)
        entry: Requeued = {**REQUEUED.required(trial.user_attrs), "taken": True}
        self.table.set(number, REQUEUED, entry)
        return trial


def waits(trial: FrozenTrial) -> bool:
    """Whether a trial was cut off and waits to be continued."""
    entry = REQUEUED.of(trial.user_attrs)
    return not trial.state.is_finished() and entry is not None and not entry["taken"]
