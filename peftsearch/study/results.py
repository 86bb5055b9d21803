"""Recording results: each is written to the study, then told to Optuna.

Both steps are idempotent: after a kill or an outage they are repeated.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.records.records import StudyInfo, TrialResult
from peftsearch.study.storage.attributes import (
    BUDGET_PCT,
    CAUSE,
    HASH,
    LAST_RUNG,
    METHOD,
    ORIGIN,
    SAME_AS,
    TUNED_PCT,
)
from peftsearch.study.storage.base import TrialStore
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["ResultRecorder"]


class ResultRecorder:
    """Records results of the study of `table`; the caller holds the study's lock."""

    def __init__(self, table: TrialTable, store: TrialStore, info: StudyInfo) -> None:
        self.table, self.store, self.info = table, store, info

    def tell(self, result: TrialResult) -> None:
        """Write a result, then tell Optuna; a no-op if Optuna has it. A stopped trial is
        COMPLETE with its last metric: PRUNED blinds two-objective TPE.
        """
        if self.table.get(result.number).state.is_finished():
            return
        with self.table.transaction():
            self.store.write_result(result)
            if result.rung is not None:
                self.table.set(result.number, LAST_RUNG, result.rung)
            if result.cause is not None:
                self.table.set(result.number, CAUSE, result.cause)
        self.store.discard_checkpoint_file(result.number)  # no longer needed once told
        values = self._values(result)
        with self.table.batched():
            if values is None:
                self.table.study.tell(result.number, state=TrialState.FAIL)
            else:
                self.table.study.tell(result.number, values)

    def _values(self, result: TrialResult) -> tuple[float, float] | None:
        """The values that Optuna is told; None for a failure. Infeasible trials have a constraint,
        too.
        """
        if result.state == "infeasible":
            return (self.info.metric.worst, self.info.budget_hi_pct)
        if result.metric is None or result.cause is not None:
            return None
        return (result.metric, result.tuned_pct)

    def infeasible(self, number: int, budget_pct: float | None) -> TrialResult:
        """The result of a trial for which no width of its structure fits the budget."""
        result = TrialResult(
            number=number,
            state="infeasible",
            origin="sampled",
            budget_pct=budget_pct,
            description="nothing of this structure fits the budget",
            finished_at=_now(),
        )
        self.tell(result)
        return result

    def duplicate(self, number: int, first: TrialResult) -> TrialResult:
        """The result of a trial with the configuration of one that has ended."""
        attrs = self.table.get(number).user_attrs
        result = first.model_copy(
            update={
                "number": number,
                "state": "duplicate",
                "same_as": first.number,
                "origin": ORIGIN.of(attrs) or "sampled",
                "method": METHOD.of(attrs),
                "budget_pct": BUDGET_PCT.of(attrs),
                "curve": (),
                **_NOT_TRAINED,
                "finished_at": _now(),
            }
        )
        self.tell(result)
        return result

    def duplicates_of(self, first: TrialResult) -> list[TrialResult]:
        """Record the result of a trial for its duplicates, which waited for it; returns their
        results.
        """
        waiting = [
            trial.number
            for trial in self.table.running()
            if SAME_AS.of(trial.user_attrs) == first.number
        ]
        return [self.duplicate(number, first) for number in waiting]

    def failed(self, trial: FrozenTrial, why: str) -> TrialResult:
        """The failed result of a trial that was cut off too often."""
        configuration = self.store.configuration(trial.number)
        described = Configuration.from_json(configuration).describe() if configuration else ""
        attrs = trial.user_attrs
        result = TrialResult(
            number=trial.number,
            state="failed",
            origin=ORIGIN.of(attrs) or "sampled",
            method=METHOD.of(attrs),
            configuration=configuration,
            configuration_hash=HASH.of(attrs),
            description=described,
            tuned_pct=TUNED_PCT.of(attrs) or 0.0,
            cause="cut_off",
            message=why,
            finished_at=_now(),
        )
        self.tell(result)
        return result


_NOT_TRAINED: dict[str, Any] = {
    **dict.fromkeys(("wall_s", "cpu_s", "eval_s"), 0.0),
    **dict.fromkeys(("train_s", "train_cpu_s", "eval_cpu_s", "eval_examples"), None),
    **dict.fromkeys(("eval_s_per_example", "peak_rss_bytes", "peak_device_bytes"), None),
}
"""Costs of a trial that took another's result."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
