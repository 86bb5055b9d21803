"""The study behind a search: what to try next, what came of it, what was cut off.

Everything is decided under one lock of the study's folder, so any number of local processes may ask
and tell. A finished trial is first written to its folder, then told to Optuna: killed between the
two, `recover` tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import UsageError
from peftsearch.search.folder import StudyFolder
from peftsearch.search.journal import open_journal
from peftsearch.search.locks import FileLock
from peftsearch.search.records import RungValue, StudyInfo, TrialResult
from peftsearch.search.sampler import make_sampler
from peftsearch.search.scheduler import RungPoint
from peftsearch.search.seeds import Seed, seeds_of
from peftsearch.space.space import Space

__all__ = ["Assignment", "Study"]

optuna.logging.set_verbosity(optuna.logging.WARNING)

MAX_CUT_OFFS = 2
"""Times a trial may be cut off without reaching a new checkpoint before it is given up."""

Origin = Literal["seed", "sampled", "landmark"]


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
    """One study of one space on one backbone. `worker` gives each process its own random stream."""

    def __init__(
        self,
        folder: StudyFolder,
        info: StudyInfo,
        space: Space,
        shapes: BackboneShapes,
        worker: int = 0,
    ) -> None:
        self.folder, self.info, self.space, self.shapes = folder, info, space, shapes
        self.worker = worker
        self.lock = FileLock(folder.root / "ask.lock")
        with self.lock:
            self.study = optuna.create_study(
                study_name=info.name,
                storage=open_journal(folder.journal_path),
                directions=["maximize" if info.metric.maximise else "minimize", "minimize"],
                load_if_exists=True,
            )
            self._refuse_lost_trials()
        # Seeded by how far the study has come, so that a resumed search draws anew.
        self.study.sampler = make_sampler(info.seed + len(self._trials()), worker)
        self.seeds = seeds_of(space, shapes)

    def _refuse_lost_trials(self) -> None:
        """A journal that was cut, or begun anew, would give out numbers again, and finished trials
        would be overwritten.
        """
        known = len(self._trials())
        lost = [number for number in self.folder.finished() if number >= known]
        if lost:
            raise UsageError(
                f"{self.folder.journal_path}: it knows {known} trials, and trial {lost[0]} is "
                "finished: restore it from a copy; what is in trials/ is safe, and can be exported"
            )

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    # -- ask -----------------------------------------------------------------------------------

    def ask(self) -> Assignment | TrialResult | None:
        """The next trial to train, the result of one that needs no training, or None for a
        duplicate of a trial that is still running: ask again.
        """
        with self.lock:
            requeued = self._take_requeued()
            if requeued is not None:
                return requeued
            seed = self._due_seed()
            if seed is not None and seed.params is not None:
                self.study.enqueue_trial(seed.params)
            trial = self.study.ask()
            return self._begin(trial, seed)

    def _due_seed(self) -> Seed | None:
        """The next method to begin with, at most every second trial. One that was cut off before
        its configuration was written down is due again; one that failed is not.
        """
        trials = [t.user_attrs for t in self._trials()]
        begun = [a.get("seed") for a in trials if "hash" in a or "cause" not in a]
        waiting = [seed for seed in self.seeds if seed.label not in begun]
        seeded = sum(label is not None for label in begun)
        return waiting[0] if waiting and seeded <= len(begun) - seeded else None

    def _begin(self, trial: optuna.Trial, seed: Seed | None) -> Assignment | TrialResult | None:
        origin: Origin = "sampled"
        if seed is not None:
            origin = "seed" if seed.params is not None else "landmark"
            trial.set_user_attr("seed", seed.label)
            trial.set_user_attr("method", seed.method)
        trial.set_user_attr("origin", origin)
        trial.set_user_attr("worker", self.worker)
        if seed is not None and seed.params is None:
            configuration, budget_pct = seed.configuration, None
        else:
            sample = self.space.decode(trial, self.shapes)
            budget_pct = sample.budget_pct
            if sample.configuration is None:
                trial.set_constraint("budget", sample.log_excess)
                return self._infeasible(trial, budget_pct)
            configuration = sample.configuration
        trial.set_user_attr("budget_pct", budget_pct)
        return self._assign(trial, configuration)

    def _assign(
        self, trial: optuna.Trial, configuration: Configuration
    ) -> Assignment | TrialResult | None:
        """Give the configuration out, unless it was given out before."""
        first = self._first_with(configuration.hash)
        trial.set_user_attr("tuned_pct", configuration.tuned_pct(self.shapes))
        self.folder.trial(trial.number).write_configuration(configuration.to_json())
        if first is not None:  # before the hash: cut off in between, it must not be trained
            trial.set_user_attr("same_as", first.number)
        trial.set_user_attr("hash", configuration.hash)
        if first is None:
            return self._assignment(self._trials()[trial.number], resumed=False)
        result = self.folder.trial(first.number).read_result()
        return self._tell_duplicate(trial.number, result) if result else None

    def _first_with(self, configuration_hash: str) -> FrozenTrial | None:
        for trial in self._trials():
            attrs = trial.user_attrs
            if attrs.get("hash") == configuration_hash and "same_as" not in attrs:
                return trial
        return None

    def _assignment(self, trial: FrozenTrial, resumed: bool, alone: bool = False) -> Assignment:
        attrs = trial.user_attrs
        configuration = self.folder.trial(trial.number).read_configuration()
        return Assignment(
            number=trial.number,
            configuration=Configuration.from_json(configuration),
            origin=attrs["origin"],
            method=attrs.get("method"),
            budget_pct=attrs.get("budget_pct"),
            resumed=resumed,
            alone=alone,
        )

    def _infeasible(self, trial: optuna.Trial, budget_pct: float | None) -> TrialResult:
        result = TrialResult(
            number=trial.number,
            state="infeasible",
            origin="sampled",
            budget_pct=budget_pct,
            description="nothing of this structure fits the budget",
            finished_at=_now(),
        )
        self._tell(result, self._values(result))
        return result

    # -- rungs ---------------------------------------------------------------------------------

    def record_rung(self, number: int, value: RungValue) -> None:
        """One small attribute a rung; the whole curve stands in the trial's folder."""
        self.folder.trial(number).append_rung(value)
        self._set(number, f"rung:{value.rung}", value.metric)

    def peers(self, number: int, rung: int) -> list[RungPoint]:
        """Every other trial that reached a rung; metrics turned so that higher is better."""
        sign = 1.0 if self.info.metric.maximise else -1.0
        last = f"rung:{len(self.info.rungs) - 1}"
        return [
            RungPoint(
                number=trial.number,
                tuned_pct=float(trial.user_attrs["tuned_pct"]),
                metric=sign * trial.user_attrs[f"rung:{rung}"],
                final=sign * trial.user_attrs[last] if last in trial.user_attrs else None,
            )
            for trial in self._trials()
            if trial.number != number and f"rung:{rung}" in trial.user_attrs
        ]

    def begun(self) -> int:
        """Configurations evaluated or being evaluated: no duplicates, nothing infeasible."""
        return sum("hash" in t.user_attrs and "same_as" not in t.user_attrs for t in self._trials())

    def _set(self, number: int, key: str, value: Any) -> None:
        trial_id = self._trials()[number]._trial_id
        self.study._storage.set_trial_user_attr(trial_id, key, value)

    # -- tell ----------------------------------------------------------------------------------

    def tell(self, result: TrialResult) -> list[TrialResult]:
        """Record a finished trial; returns it and the duplicates that waited for it.

        A stopped trial is told COMPLETE with its last metric: PRUNED blinds two-objective TPE.
        """
        with self.lock:
            self._tell(result, self._values(result))
            waiting = [
                t.number
                for t in self._trials(TrialState.RUNNING)
                if t.user_attrs.get("same_as") == result.number
            ]
            return [result, *(self._tell_duplicate(number, result) for number in waiting)]

    def _tell_duplicate(self, number: int, first: TrialResult) -> TrialResult:
        attrs = self._trials()[number].user_attrs
        result = first.model_copy(
            update={
                "number": number,
                "state": "duplicate",
                "same_as": first.number,
                "origin": attrs["origin"],
                "method": attrs.get("method"),
                "budget_pct": attrs.get("budget_pct"),
                "curve": (),
                "wall_s": 0.0,
                "cpu_s": 0.0,
                "finished_at": _now(),
            }
        )
        self._tell(result, self._values(result))
        return result

    def _values(self, result: TrialResult) -> tuple[float, float] | None:
        """What Optuna is told; None for a failure. Infeasible ones have their constraint too."""
        if result.state == "infeasible":
            return (self.info.metric.worst, self.info.budget_hi_pct)
        if result.metric is None or result.cause is not None:
            return None
        return (result.metric, result.tuned_pct)

    def _tell(self, result: TrialResult, values: tuple[float, float] | None) -> None:
        """First the folder, then the storage."""
        self.folder.trial(result.number).write_result(result)
        if result.rung is not None:
            self._set(result.number, "rung", result.rung)
        if result.cause is not None:
            self._set(result.number, "cause", result.cause)
        if values is None:
            self.study.tell(result.number, state=TrialState.FAIL)
        else:
            self.study.tell(result.number, values)

    # -- recover -------------------------------------------------------------------------------

    def recover(self, worker: int | None = None) -> list[TrialResult]:
        """Settle every trial that nobody works on any more; call it only while nobody does, or for
        one worker that died.

        A trial with a result is told; one with a configuration is queued again, from its last
        checkpoint; one cut off while it was sampled, or too often, is given up.
        """
        with self.lock:
            return list(self._recover(worker))

    def _recover(self, worker: int | None) -> Iterator[TrialResult]:
        for trial in self._trials(TrialState.RUNNING):
            same_as = trial.user_attrs.get("same_as")
            owner = trial.user_attrs.get("worker", worker)
            # Nobody works on a duplicate: it waits for its first, which may end right here.
            if worker is not None and owner != worker and same_as is None:
                continue
            result = self.folder.trial(trial.number).read_result()
            if result is not None:
                self._tell(result, self._values(result))
            elif same_as is not None:
                first = self.folder.trial(same_as).read_result()
                if first is not None:
                    yield self._tell_duplicate(trial.number, first)
            elif "hash" not in trial.user_attrs:
                yield self._give_up(trial, "cut off while it was sampled")
            elif not self._requeue(trial):
                yield self._give_up(trial, f"cut off {MAX_CUT_OFFS} times without progress")

    def _requeue(self, trial: FrozenTrial) -> bool:
        """Queue a trial again; False if it was cut off too often without a new checkpoint."""
        stamp = self.folder.trial(trial.number).checkpoint_stamp()
        before = trial.user_attrs.get("requeued", {"times": 0, "stamp": None})
        times = 1 if stamp != before["stamp"] else before["times"] + 1
        if times > MAX_CUT_OFFS:
            return False
        entry = {"times": times, "stamp": stamp, "taken": False}
        self._set(trial.number, "requeued", entry)
        return True

    def has_requeued(self) -> bool:
        """Whether a trial that was cut off waits to be continued."""
        return any(
            not t.user_attrs.get("requeued", {"taken": True})["taken"]
            for t in self._trials(TrialState.RUNNING)
        )

    def _take_requeued(self) -> Assignment | None:
        for trial in self._trials(TrialState.RUNNING):
            entry = trial.user_attrs.get("requeued")
            if entry and not entry["taken"]:
                self._set(trial.number, "requeued", entry | {"taken": True})
                self._set(trial.number, "worker", self.worker)
                return self._assignment(trial, resumed=True, alone=entry["times"] > 0)
        return None

    def put_back(self, number: int) -> None:
        """Hand an interrupted trial back, for this or a later search to continue."""
        with self.lock:
            stamp = self.folder.trial(number).checkpoint_stamp()
            self._set(number, "requeued", {"times": 0, "stamp": stamp, "taken": False})

    def _give_up(self, trial: FrozenTrial, why: str) -> TrialResult:
        configuration = self.folder.trial(trial.number).read_configuration_if_any()
        described = Configuration.from_json(configuration).describe() if configuration else ""
        result = TrialResult(
            number=trial.number,
            state="failed",
            origin=trial.user_attrs.get("origin", "sampled"),
            method=trial.user_attrs.get("method"),
            configuration=configuration,
            configuration_hash=trial.user_attrs.get("hash"),
            description=described,
            tuned_pct=trial.user_attrs.get("tuned_pct", 0.0),
            cause="cut_off",
            message=why,
            finished_at=_now(),
        )
        self._tell(result, None)
        return result


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
