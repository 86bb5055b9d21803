"""Recovery of trials whose workers died or were interrupted: record, requeue or fail them."""

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

__all__ = ["MAX_CUT_OFFS", "Recovery", "is_waiting"]

MAX_CUT_OFFS = 2
"""Number of cut-offs in a row, without a new checkpoint, after which a trial fails."""


class Recovery:
    """Recovers trials of a study; the caller holds the study's lock."""

    def __init__(self, table: TrialTable, store: TrialStore, results: ResultRecorder) -> None:
        self.table, self.store, self.results = table, store, results

    def recover(
        self, is_orphaned: Callable[[FrozenTrial], bool], counts: bool = True
    ) -> Iterator[TrialResult]:
        """Recover each trial whose worker is gone (`is_orphaned`); yields results of those that
        end.

        A trial with a result is told; one with a configuration is requeued, from its last
        checkpoint; one cut off while it was sampled, or too often, fails. `counts`: whether the
        cut-off counts, since the trial may have killed its worker.
        """
        for trial in self.table.running():
            same_as = SAME_AS.of(trial.user_attrs)
            # Nobody works on a duplicate: it waits for its first, which may end right here.
            if same_as is None and (is_waiting(trial) or not is_orphaned(trial)):
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
                yield self.results.failed(trial, "cut off while it was sampled")
            elif not counts:
                self.requeue(trial.number)
            elif not self._requeue_cut_off(trial):
                yield self.results.failed(trial, f"cut off {MAX_CUT_OFFS} times without progress")

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        """Enqueue the parameters again if they were enqueued; seeds become due again anyway."""
        asked = FIXED_PARAMS.of(trial.system_attrs)
        if asked and not SEED.is_in(trial.user_attrs):
            self.table.study.enqueue_trial(asked)

    def _requeue_cut_off(self, trial: FrozenTrial) -> bool:
        """Requeue a trial; False if it was cut off too often without a new checkpoint."""
        stamp = self.store.progress(trial.number)
        before = REQUEUED.of(trial.user_attrs)
        last, stamp_then = (before["times"], before["stamp"]) if before else (0, None)
        times = 1 if stamp != stamp_then else last + 1
        if times > MAX_CUT_OFFS:
            return False
        entry = Requeued(times=times, stamp=stamp, taken=False)
        self.table.set(trial.number, REQUEUED, entry)
        return True

    def requeue(self, number: int) -> None:
        """Requeue an interrupted trial, without counting a cut-off."""
        stamp = self.store.progress(number)
        self.table.set(number, REQUEUED, Requeued(times=0, stamp=stamp, taken=False))

    def assign(self, number: int, worker: str) -> FrozenTrial:
        """Assign a waiting trial to this worker."""
        trial = self.table.get(number)
        # The worker first: killed in between, it still waits.
        self.table.set(number, WORKER, worker)
        entry: Requeued = {**REQUEUED.required(trial.user_attrs), "taken": True}
        self.table.set(number, REQUEUED, entry)
        return trial


def is_waiting(trial: FrozenTrial) -> bool:
    """Whether an interrupted trial is waiting to be continued."""
    entry = REQUEUED.of(trial.user_attrs)
    return not trial.state.is_finished() and entry is not None and not entry["taken"]
