"""The study behind a search: workers ask it for trials, record their rungs and tell results.

What happens next is its policy's decision (`policy/policy.py`), made on its history and carried out
under one lock, so any number of workers may ask and tell. A finished trial is first written down,
then told to Optuna: killed between the two, `recover` tells it. A worker that was taken for dead is
not heard any more about the trials that others have by then.
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
from peftsearch.policy.answers import next_of, verdict_of
from peftsearch.policy.decisions import Continue, Nothing, Stop, Verdict
from peftsearch.policy.history import History, Origin
from peftsearch.policy.policy import Setting
from peftsearch.policy.table import DEFAULT_POLICY, policy_named
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, StudyInfo, TrialResult
from peftsearch.records.storage_name import is_database
from peftsearch.space.space import Space
from peftsearch.study.history import Histories
from peftsearch.study.new_trials import Begun, NewTrials
from peftsearch.study.recovery import MAX_CUT_OFFS, Recovery, waits
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
from peftsearch.study.storage.database.heartbeat import Pulse
from peftsearch.study.storage.open import open_shared
from peftsearch.study.storage.retry import retried
from peftsearch.wording import counted

__all__ = ["MAX_CUT_OFFS", "Assignment", "Study"]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Assignment:
    """A trial to evaluate. `resumed`: it was cut off before, a checkpoint may exist."""

    number: int
    configuration: Configuration
    origin: Origin
    method: str | None = None
    budget_pct: float | None = None
    resumed: bool = False
    alone: bool = False
    """To be trained by itself: it was cut off, and so was all that it shared passes with."""


class Study:
    """One study of one space on one backbone, as one worker sees it.

    `worker` gives each its own random stream; `name`, unique among all workers, says whose trial is
    whose. `pulse`: how a worker of a database shows that it is alive. `policy`: a row of
    `policy/table.py` whose decisions this worker follows; None: the default.
    """

    def __init__(
        self,
        folder: StudyFolder,
        info: StudyInfo,
        space: Space,
        shapes: BackboneShapes,
        worker: int = 0,
        name: str | None = None,
        pulse: Pulse | None = None,
        policy: str | None = None,
    ) -> None:
        self.folder, self.info, self.space, self.shapes = folder, info, space, shapes
        self.worker, self.name = worker, name or str(worker)
        shared = open_shared(folder, info, pulse)
        self.table, self.lock, self.heartbeat = shared.table, shared.lock, shared.heartbeat
        self.store, self.retry, self._close = shared.store, shared.retry, shared.close
        self.results = ResultRecorder(self.table, self.store, info)
        self.recovery = Recovery(self.table, self.store, self.results)
        self.new_trials = NewTrials(self.table, self.store, space, shapes, self.name)
        self.study = self.table.study
        finished = self.folder.finished()  # before their trials are read: others begin and end more
        begun = self.retry.call(self._trials)
        # Seeded by how far the study has come, so that a resumed search draws anew.
        setting = Setting(space, shapes, info.seed + len(begun), worker)
        self.policy = policy_named(policy or DEFAULT_POLICY, setting)
        self.histories = Histories(info, folder, self.policy.details)
        if not is_database(info.storage):
            self._refuse_lost_trials(finished, begun)
        self._held: set[int] = set()
        self._left_waiting: set[int] = set()
        """Waiting trials for which the policy wanted nothing to be done when it was asked last."""
        self._outages = 0

    def _refuse_lost_trials(self, finished: list[int], begun: list[FrozenTrial]) -> None:
        """A journal that was cut, or begun anew, would give out numbers again, and finished trials
        would be overwritten.
        """
        for number in finished:
            if number >= len(begun):
                found = f"it has {counted(len(begun), 'trial')}, but trial {number} is finished"
            elif begun[number].state == TrialState.WAITING or waits(begun[number]):
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
    def _deciding(self) -> Iterator[None]:
        """Alone among all workers; what they did before is read once."""
        with self.lock, self.table.steady():
            yield

    @retried
    def join(self) -> None:
        """Be seen alive by the other workers, until `leave` or the end of the process."""
        self.heartbeat.join(self.name)

    @retried
    def leave(self) -> None:
        self.heartbeat.leave()

    def close(self) -> None:
        """Give back the connections to the database, if it is in one."""
        self._close()

    # -- ask -----------------------------------------------------------------------------------

    @retried
    def ask(self, most: int | None = None) -> Assignment | TrialResult | Nothing | None:
        """The next trial to train, the result of one that needs no training, or None for a
        duplicate of a trial that is still running: ask again. Nothing: the policy wants no trial
        now, or `most` configurations have begun.
        """
        with self._deciding():
            self._settle_after_outage()
            history = self._history(most)
            decision = next_of(self.policy, history)
            self._left_waiting = set()
            if isinstance(decision, Nothing):
                self._left_waiting = {t.number for t in history.trials if t.state == "waiting"}
                return decision
            if isinstance(decision, Continue):
                taken: Begun | FrozenTrial = self.recovery.take(decision.number, self.name)
            else:
                taken = self.new_trials.begin(decision)
        asked = self._sample(taken) if isinstance(taken, Begun) else self._resume(taken)
        if isinstance(asked, Assignment):
            self._held.add(asked.number)  # last: what an outage cuts off before is begun anew
        return asked

    def _history(self, most: int | None) -> History:
        trials = self._trials()
        return self.histories.of(trials, may_begin=most is None or _begun(trials) < most)

    def _settle_after_outage(self) -> None:
        """An outage may have cut off an `ask` of our own, of which nobody knows how far it came."""
        if self._outages < self.retry.outages:
            mine = self.name
            for _ in self.recovery.settle(
                lambda t: WORKER.of(t.user_attrs) == mine and t.number not in self._held
            ):
                pass
            self._outages = self.retry.outages

    def _resume(self, waiting: FrozenTrial) -> Assignment:
        self.store.take_over(waiting.number)
        cut_off = REQUEUED.required(waiting.user_attrs)["times"] > 0
        return self._assignment(waiting, resumed=True, alone=cut_off)

    def _sample(self, begun: Begun) -> Assignment | TrialResult | None:
        """Sample without the lock, which others want, and hand out under it."""
        sampled = self.new_trials.sample(begun)
        if sampled.configuration is None:
            return self.results.infeasible(sampled.number, sampled.budget_pct)
        with self._deciding():
            first = self.new_trials.hand_out(sampled, sampled.configuration)
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
    def holds(self, number: int) -> bool:
        """Whether a trial is still this worker's, as read last."""
        return self._is_mine(self.table.known()[number])

    def _holds(self, number: int) -> bool:
        return self._is_mine(self.table.get(number))

    def _is_mine(self, trial: FrozenTrial) -> bool:
        """A trial that others have given up keeps the name of its worker, and is nobody's."""
        return WORKER.of(trial.user_attrs) == self.name and not trial.state.is_finished()

    @retried
    def record_rung(self, number: int, value: RungValue) -> bool:
        """One small attribute a rung for all to compare with, and the point of the curve. False,
        and nothing is written, if another worker has the trial by now.

        Without the lock, for which many workers would wait at every rung: nothing is decided here,
        and whoever else should write this rung in the same moment has computed the same.
        """
        with self.table.steady(), contextlib.suppress(UpdateFinishedTrialError):
            if self._holds(number):
                with self.table.at_once():
                    self.store.write_rung(number, value)
                    self.table.set(number, METRIC_AT.at(value.rung), value.metric)
                return True
        return False

    @retried
    def give_checkpoint(self, number: int) -> None:
        """Let other workers find the checkpoint that was written."""
        if self.store.hands_on and self._holds(number):
            self.store.give_checkpoint(number)

    @retried
    def after_rung(self, assignment: Assignment, value: RungValue) -> Verdict:
        """The verdict on a trial that reached a rung, given the others as read when it did. A trial
        that another worker has by now ends here, unheard.
        """
        number, trials = assignment.number, self.table.known()
        if not self._is_mine(trials[number]):
            return Stop(number, "another worker has taken it over")
        if value.fraction >= 1:
            return Continue(number, "full length")
        tuned_pct = assignment.configuration.tuned_pct(self.shapes)
        history = self.histories.at_rung(trials, number, tuned_pct, value)
        return verdict_of(self.policy, history, number, value.rung)

    @retried
    def begun(self) -> int:
        """Configurations evaluated, being evaluated or being sampled: no duplicates, nothing
        infeasible.
        """
        return _begun(self._trials())

    @retried
    def has_begun(self, count: int) -> bool:
        """Whether so many have; what was read last is enough to say no."""
        return _begun(self.table.known()) >= count and _begun(self._trials()) >= count

    @retried
    def aim(self, trials: int | None) -> None:
        """Tell all workers how many configurations are wanted in all, if a number is."""
        self.study.set_user_attr(TRIALS.key, trials)

    @retried
    def aim_of_all(self) -> int | None:
        """The number that `aim` was last told; None if it was told none."""
        return TRIALS.of(self.study.user_attrs)

    @retried
    def anything_runs(self) -> bool:
        """Whether any worker's trial has not ended, but for those that the policy leaves paused."""
        left = self._left_waiting
        return any(not (t.number in left and waits(t)) for t in self.table.running())

    # -- tell ----------------------------------------------------------------------------------

    @retried
    def tell(self, result: TrialResult) -> list[TrialResult]:
        """Record a finished trial; returns it and the duplicates that waited for it, or nothing if
        another worker has it by now.
        """
        told = []
        if self.store.hands_on and self._holds(result.number):
            self.store.give_adapter(result.number)
        with self._deciding():
            if self._holds(result.number) or self._has_told(result):
                self.results.tell(result)
                told = [result, *self.results.duplicates_of(result)]
            self._held.discard(result.number)
        return told

    def _has_told(self, result: TrialResult) -> bool:
        """Before an outage cut off the rest of `tell`, which is repeated."""
        is_over = self.table.get(result.number).state.is_finished()
        return is_over and self.store.result(result.number) == result

    # -- recover -------------------------------------------------------------------------------

    @retried
    def recover(self, worker: int | str | None = None, counts: bool = True) -> list[TrialResult]:
        """Settle every trial whose worker is not alive, or those of one that is known to have died:
        told, queued again from their last checkpoints, or given up. `counts`: whether they may be
        what it died of.
        """

        def is_left(trial: FrozenTrial) -> bool:
            owner = WORKER.of(trial.user_attrs)
            if worker is not None:
                return owner is None or str(owner) == str(worker)
            return owner is None or not self.heartbeat.is_alive(str(owner))

        with self._deciding():
            settled = list(self.recovery.settle(is_left, counts))
        for result in settled:
            self.store.discard_checkpoint(result.number)
        return settled

    @retried
    def has_requeued(self) -> bool:
        """Whether a trial that was cut off waits to be continued."""
        return any(map(waits, self._trials()))

    @retried
    def put_back(self, number: int) -> None:
        """Hand an interrupted trial back, for this or a later search to continue."""
        with self._deciding():
            if self._holds(number):
                self.recovery.put_back(number)
            self._held.discard(number)


def _begun(trials: list[FrozenTrial]) -> int:
    return sum(
        not SAME_AS.is_in(trial.user_attrs)
        and (HASH.is_in(trial.user_attrs) or trial.state == TrialState.RUNNING)
        for trial in trials
    )
