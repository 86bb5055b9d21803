"""Converting a study's Optuna trials to the history that policies read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.policy.history import History, RungScore, State, TrialRecord
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, StudyInfo
from peftsearch.space.file.values import Values
from peftsearch.study.recovery import is_waiting
from peftsearch.study.storage.attributes import (
    CAUSE,
    CONFIGURATION,
    CURVE,
    HASH,
    LAST_RUNG,
    METRIC_AT,
    ORIGIN,
    SAME_AS,
    SEED,
    TUNED_PCT,
)

__all__ = ["HistoryBuilder"]


class HistoryBuilder:
    """Builds the histories of one study; each ended trial is converted only once.

    `details`: read configurations and learning curves, too; in a folder each trial's files are read
    once, and those of a running trial again at each of its rungs.
    """

    def __init__(self, info: StudyInfo, folder: StudyFolder, details: bool) -> None:
        self.info, self.folder, self.details = info, folder, details
        self.sign = 1.0 if info.metric.maximise else -1.0
        self._ended: dict[int, TrialRecord] = {}
        self._curves: dict[tuple[int, int], tuple[RungScore, ...]] = {}
        self._configurations: dict[int, Configuration] = {}

    def build(self, trials: Sequence[FrozenTrial], may_begin: bool = True) -> History:
        """The history of all of a study's trials, by number."""
        return History(
            trials=tuple(map(self._record, trials)),
            rungs=self.info.rungs,
            worst=self.sign * self.info.metric.worst,
            may_begin=may_begin,
            format_metric=lambda metric: self.info.metric.format(self.sign * metric),
        )

    def at_rung(
        self, trials: Sequence[FrozenTrial], number: int, tuned_pct: float, value: RungValue
    ) -> History:
        """The history in which trial `number` has reached a rung with `value`, even if its
        attributes were lost in a kill.
        """
        history = self.build(trials)
        record = history.trials[number]
        others = [score for score in record.rungs if score.rung != value.rung]
        scores = sorted((*others, self._score(value)), key=lambda score: score.rung)
        return history.with_trial(replace(record, tuned_pct=tuned_pct, rungs=tuple(scores)))

    def _record(self, trial: FrozenTrial) -> TrialRecord:
        if trial.number in self._ended:
            return self._ended[trial.number]
        record = self._converted(trial)
        if trial.state.is_finished():
            self._ended[trial.number] = record
        return record

    def _converted(self, trial: FrozenTrial) -> TrialRecord:
        attrs, state = trial.user_attrs, _state(trial, len(self.info.rungs) - 1)
        has_metric = state in ("full", "stopped", "duplicate") and trial.values
        rungs = self._rungs(attrs)
        named = {name: _values(one) for name, one in trial.distributions.items()}
        ranges = {name: values for name, values in named.items() if values is not None}
        configuration = None
        if self.details and HASH.is_in(attrs):
            rungs = self._curve(trial, rungs)
            configuration = self._configuration(trial)
        return TrialRecord(
            number=trial.number,
            state=state,
            origin=ORIGIN.of(attrs),
            seed=SEED.of(attrs),
            hash=HASH.of(attrs),
            tuned_pct=TUNED_PCT.of(attrs),
            metric=self.sign * trial.values[0] if has_metric else None,
            excess=max(trial.constraints.values(), default=0.0),
            rungs=rungs,
            parameters={name: trial.params[name] for name in ranges},
            ranges=ranges,
            configuration=configuration,
        )

    def _rungs(self, attrs: dict[str, Any]) -> tuple[RungScore, ...]:
        """The metrics at rungs alone, from small attributes, where no details are wanted."""
        metrics = {int(rung): metric for rung, metric in METRIC_AT.each(attrs).items()}
        return tuple(RungScore(rung, self.sign * metrics[rung]) for rung in sorted(metrics))

    # -- details -------------------------------------------------------------------------------

    def _curve(self, trial: FrozenTrial, rungs: tuple[RungScore, ...]) -> tuple[RungScore, ...]:
        key = (trial.number, len(rungs))
        if key not in self._curves:
            stored = CURVE.each(trial.user_attrs).values()
            curve = [RungValue.model_validate(value) for value in stored]
            curve = curve or list(self.folder.trial(trial.number).read_curve())
            known = {value.rung: self._score(value) for value in curve}
            self._curves[key] = tuple(known.get(score.rung, score) for score in rungs)
        return self._curves[key]

    def _configuration(self, trial: FrozenTrial) -> Configuration | None:
        number = trial.number
        if number not in self._configurations:
            stored = CONFIGURATION.of(trial.user_attrs)
            stored = stored or self.folder.trial(number).read_configuration_if_any()
            if stored is None:
                return None
            self._configurations[number] = Configuration.from_json(stored)
        return self._configurations[number]

    def _score(self, value: RungValue) -> RungScore:
        return RungScore(
            value.rung, self.sign * value.metric, value.metric_se, value.loss, value.wall_s
        )


def _state(trial: FrozenTrial, last_rung: int) -> State:
    """A result's state, told from Optuna's and a few attributes: no result is read."""
    attrs = trial.user_attrs
    if trial.state == TrialState.WAITING:
        return "queued"
    if trial.state == TrialState.FAIL or CAUSE.is_in(attrs):
        return "failed"
    if is_waiting(trial):
        return "waiting"
    if not trial.state.is_finished():
        return "running"
    if SAME_AS.is_in(attrs):
        return "duplicate"
    if any(excess > 0 for excess in trial.constraints.values()):
        return "infeasible"
    return "full" if LAST_RUNG.of(attrs) in (None, last_rung) else "stopped"


@lru_cache(maxsize=4096)
def _values(distribution: BaseDistribution) -> Values | None:
    """The values of a distribution; None for a kind that no space uses."""
    if isinstance(distribution, CategoricalDistribution):
        return Values(tuple(distribution.choices))  # type: ignore[arg-type]
    if isinstance(distribution, FloatDistribution):
        return Values((), distribution.low, distribution.high, distribution.log)
    return None
