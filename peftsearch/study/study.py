"""The study that workers share: they ask for trials, record their rungs and tell results.

The study's policy (`policy/policy.py`) decides from its history what runs next, under one lock, so
any number of workers may ask and tell. A finished trial is first written to the study, then told to
Optuna; `recover` repeats the second step after a kill. A worker that was considered dead can no
longer write to trials that other workers have taken over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import UsageError
from peftsearch.policy.decisions import Continue, Nothing, Stop, Verdict
from peftsearch.policy.history import History, Origin
from peftsearch.policy.policy import PolicyContext
from peftsearch.policy.table import policy_named
from peftsearch.policy.validation import next_decision, rung_verdict
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, StudyInfo, TrialResult
from peftsearch.records.storage_name import is_database
from peftsearch.space.space import Space
from peftsearch.study.history import HistoryBuilder
from peftsearch.study.new_trials import NewTrials, UnsampledTrial
from peftsearch.study.recovery import MAX_CUT_OFFS, Recovery, is_waiting
from peftsearch.study.results import ResultRecorder
from peftsearch.study.storage.attributes import (
    BUDGET_PCT,
    HASH,
    METHOD,
    METRIC_AT,
    ORIGIN,
    REQUEUED,
    SAME_AS,
    TRIALS,
    WORKER,
)
from peftsearch.study.storage.database.heartbeat import HeartbeatTiming
from peftsearch.study.storage.open import open_storage
from peftsearch.study.storage.retry import retried
from peftsearch.wording import counted

__all__ = ["MAX_CUT_OFFS", "Assignment", "Study"]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Assignment:
    """A trial to train. `resumed`: it was cut off before, so a checkpoint may exist."""

    number: int
    configuration: Configuration
    origin: Origin
    method: str | None = None
    budget_pct: float | None = None
    resumed: bool = False
    alone: bool = False
    """Train it by itself: it and all trials of its cohort were cut off together."""


class Study:
    """One study of one space on one backbone, as one worker sees it.

    `worker` seeds the worker's random stream; `name`, unique among all workers, marks its trials.
    `timing`: heartbeat timing of a study in a database.
    """

    def __init__(
        self,
        folder: StudyFolder,
        info: StudyInfo,
        space: Space,
        shapes: BackboneShapes,
        worker: int = 0,
        name: str | None = None,
        timing: HeartbeatTiming | None = None,
    ) -> None:
        self.folder, self.info, self.space, self.shapes = folder, info, space, shapes
        self.worker, self.name = worker, name or str(worker)
        storage = open_storage(folder, info, timing)
        self.table, self.lock, self.heartbeat = storage.table, storage.lock, storage.heartbeat
        self.store, self.retry, self._close = storage.store, storage.retry, storage.close
        self.results = ResultRecorder(self.table, self.store, info)
        self.recovery = Recovery(self.table, self.store, self.results)
        self.new_trials = NewTrials(self.table, self.store, space, shapes, self.name)
        self.study = self.table.study
        finished = self.folder.finished()  # before their trials are read: others begin and end more
        begun = self.retry.call(self._trials)
        # Seeded by how far the study has come, so that a resumed search draws new samples.
        context = PolicyContext(
            *(space, shapes, info.seed + len(begun), worker, info.landmarks, info.seed)
        )
        self.policy = policy_named(info.sampler, context)
        self.history_builder = HistoryBuilder(info, folder, self.policy.details)
        if not is_database(info.storage):
            self._refuse_lost_trials(finished, begun)
        self._assigned: set[int] = set()
        self._left_paused: set[int] = set()
        """Waiting trials that the policy, when last called, left paused."""
        self._outages = 0

    def _refuse_lost_trials(self, finished: list[int], begun: list[FrozenTrial]) -> None:
        """UsageError if the journal lacks finished trials: their numbers would be reused, and their
        files overwritten.
        """
        for number in finished:
            if number >= len(begun):
                found = f"it has {counted(len(begun), 'trial')}, but trial {number} is finished"
            elif begun[number].state == TrialState.WAITING or is_waiting(begun[number]):
                found = f"damaged: finished trial {number} is still waiting there"
            else:
                continue
            raise UsageError(
                f"{self.folder.journal_path}: {found}: restore it from a copy; what is in trials/ "
                "is safe, and can be exported"
            )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.table.all(*states)

    @contextlib.contextmanager
    def _locked_snapshot(self) -> Iterator[None]:
        """Hold the study's lock, and read the trials once."""
        with self.lock, self.table.snapshot():
            yield

    @retried
    def join(self) -> None:
        """Register as a live worker, until `leave` or the end of the process."""
        self.heartbeat.join(self.name)

    @retried
    def leave(self) -> None:
        self.heartbeat.leave()

    def close(self) -> None:
        """Close connections to the database, if there is one."""
        self._close()

    # -- ask -----------------------------------------------------------------------------------

    @retried
    def ask(self, max_trials: int | None = None) -> Assignment | TrialResult | Nothing | None:
        """The next trial to train, the result of one that needs no training, or None for a
        duplicate of a trial that is still running: ask again. Nothing: the policy has no work
        now, or `max_trials` configurations have begun.
        """
        with self._locked_snapshot():
            self._recover_after_outage()
            history = self._history(max_trials)
            decision = next_decision(self.policy, history)
            self._left_paused = set()
            if isinstance(decision, Nothing):
                self._left_paused = {t.number for t in history.trials if t.state == "waiting"}
                return decision
            if isinstance(decision, Continue):
                taken: UnsampledTrial | FrozenTrial = self.recovery.assign(
                    decision.number, self.name
                )
            else:
                taken = self.new_trials.begin(decision)
        asked = self._sample(taken) if isinstance(taken, UnsampledTrial) else self._resume(taken)
        if isinstance(asked, Assignment):
            # Last: an outage before this point starts the trial again.
            self._assigned.add(asked.number)
        return asked

    def _history(self, max_trials: int | None) -> History:
        trials = self._trials()
        may_begin = max_trials is None or _count_begun(trials) < max_trials
        return self.history_builder.build(trials, may_begin)

    def _recover_after_outage(self) -> None:
        """Recover trials of an own `ask` that an outage interrupted at an unknown point."""
        if self._outages < self.retry.outages:
            mine = self.name
            for _ in self.recovery.recover(
                lambda t: WORKER.of(t.user_attrs) == mine and t.number not in self._assigned
            ):
                pass
            self._outages = self.retry.outages

    def _resume(self, waiting: FrozenTrial) -> Assignment:
        self.store.fetch_files(waiting.number)
        cut_off = REQUEUED.required(waiting.user_attrs)["times"] > 0
        return self._assignment(waiting, resumed=True, alone=cut_off)

    def _sample(self, begun: UnsampledTrial) -> Assignment | TrialResult | None:
        """Sample without the lock, then assign the configuration under it."""
        sampled = self.new_trials.sample(begun)
        if sampled.configuration is None:
            return self.results.infeasible(sampled.number, sampled.budget_pct)
        with self._locked_snapshot():
            first = self.new_trials.assign(sampled, sampled.configuration)
            if first is None:
                return self._assignment(self.table.get(sampled.number), resumed=False)
            result = self.store.result(first.number)
            return self.results.duplicate(sampled.number, result) if result else None

    def _assignment(self, trial: FrozenTrial, resumed: bool, alone: bool = False) -> Assignment:
        configuration = self.store.configuration(trial.number)
        if configuration is None:
            path = self.folder.trial(trial.number).configuration_path
            raise UsageError(f"{path}: missing; restore it from a copy")
        attrs = trial.user_attrs
        return Assignment(
            number=trial.number,
            configuration=Configuration.from_json(configuration),
            origin=ORIGIN.of(attrs) or "sampled",
            method=METHOD.of(attrs),
            budget_pct=BUDGET_PCT.of(attrs),
            resumed=resumed,
            alone=alone,
        )

    # -- rungs ---------------------------------------------------------------------------------

    @retried
    def owns(self, number: int) -> bool:
        """Whether this worker still has the trial, as of the last read."""
        return self._is_mine(self.table.cached()[number])

    def _owns(self, number: int) -> bool:
        return self._is_mine(self.table.get(number))

    def _is_mine(self, trial: FrozenTrial) -> bool:
        """Whether this worker has the trial; a requeued or failed one still bears its name."""
        return WORKER.of(trial.user_attrs) == self.name and not trial.state.is_finished()

    @retried
    def record_rung(self, number: int, value: RungValue) -> bool:
        """Record a rung: its metric for other workers to compare with, and the learning curve.
        Returns False, without writing, if another worker has taken over the trial.

        Does not take the lock, for which workers would wait at every rung: nothing is decided here,
        and another worker that writes the same rung has computed the same value.
        """
        with self.table.snapshot(), contextlib.suppress(UpdateFinishedTrialError):
            if self._owns(number):
                with self.table.transaction():
                    self.store.write_rung(number, value)
                    self.table.set(number, METRIC_AT.at(value.rung), value.metric)
                return True
        return False

    @retried
    def publish_checkpoint(self, number: int) -> None:
        """Publish the checkpoint to other workers."""
        if self.store.shares_checkpoints and self._owns(number):
            self.store.publish_checkpoint(number)

    @retried
    def after_rung(self, assignment: Assignment, value: RungValue) -> Verdict:
        """The policy's verdict on a trial that reached a rung; Stop if another worker has taken it
        over.
        """
        number, trials = assignment.number, self.table.cached()
        if not self._is_mine(trials[number]):
            return Stop(number, "another worker has taken it over")
        if value.fraction >= 1:
            return Continue(number, "full length")
        if not self.info.stopping:
            return Continue(number, "no trial is stopped")
        tuned_pct = assignment.configuration.tuned_pct(self.shapes)
        history = self.history_builder.at_rung(trials, number, tuned_pct, value)
        return rung_verdict(self.policy, history, number, value.rung)

    @retried
    def count_begun(self) -> int:
        """Number of configurations evaluated, running or being sampled, without duplicates and
        infeasible ones.
        """
        return _count_begun(self._trials())

    @retried
    def limit_reached(self, count: int) -> bool:
        """Whether `count` configurations have begun; reads the trials only if it may be true."""
        return _count_begun(self.table.cached()) >= count and _count_begun(self._trials()) >= count

    @retried
    def set_target(self, trials: int | None) -> None:
        """Set the target number of configurations for all workers, if one is given."""
        self.study.set_user_attr(TRIALS.key, trials)

    @retried
    def target(self) -> int | None:
        """The target number last set by `set_target`; None if it was never set."""
        return TRIALS.of(self.study.user_attrs)

    @retried
    def has_unfinished_trials(self) -> bool:
        """Whether any trial has not ended, other than those that the policy leaves paused."""
        left = self._left_paused
        return any(not (t.number in left and is_waiting(t)) for t in self.table.running())

    # -- tell ----------------------------------------------------------------------------------

    @retried
    def tell(self, result: TrialResult) -> list[TrialResult]:
        """Record a finished trial; returns it and the duplicates that waited for it, or nothing if
        another worker has taken it over.
        """
        told = []
        if self.store.shares_checkpoints and self._owns(result.number):
            self.store.publish_adapter(result.number)
            self.store.publish_examples(result.number)
        with self._locked_snapshot():
            if self._owns(result.number) or self._has_told(result):
                self.results.tell(result)
                told = [result, *self.results.duplicates_of(result)]
            self._assigned.discard(result.number)
        return told

    def _has_told(self, result: TrialResult) -> bool:
        """Whether the result was already told, before an outage interrupted `tell`."""
        is_over = self.table.get(result.number).state.is_finished()
        return is_over and self.store.result(result.number) == result

    # -- recover -------------------------------------------------------------------------------

    @retried
    def recover(self, worker: int | str | None = None, counts: bool = True) -> list[TrialResult]:
        """Recover every trial whose worker is not alive, or those of one worker known to have died:
        tell, requeue from the last checkpoint, or fail them. `counts`: whether the cut-off counts,
        since a trial may have killed its worker.
        """

        def is_orphaned(trial: FrozenTrial) -> bool:
            owner = WORKER.of(trial.user_attrs)
            if worker is not None:
                return owner is None or str(owner) == str(worker)
            return owner is None or not self.heartbeat.is_alive(str(owner))

        with self._locked_snapshot():
            ended = list(self.recovery.recover(is_orphaned, counts))
        for result in ended:
            self.store.discard_checkpoint(result.number)
        return ended

    @retried
    def has_requeued(self) -> bool:
        """Whether any interrupted trial is waiting to be continued."""
        return any(map(is_waiting, self._trials()))

    @retried
    def requeue(self, number: int) -> None:
        """Requeue an interrupted trial, for this or a later search to continue."""
        with self._locked_snapshot():
            if self._owns(number):
                self.recovery.requeue(number)
            self._assigned.discard(number)


def _count_begun(trials: list[FrozenTrial]) -> int:
    return sum(
        not SAME_AS.is_in(trial.user_attrs)
        and (HASH.is_in(trial.user_attrs) or trial.state == TrialState.RUNNING)
        for trial in trials
    )
