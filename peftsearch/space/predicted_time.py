"""Predicted seconds of random samples: how long a space's trials take, before any is trained."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from peftsearch.design.cost.trial import TYPICAL_S, Workload, trial_cost
from peftsearch.space.random_samples import RandomSamples
from peftsearch.space.space import Space

__all__ = ["PredictedTime", "predicted_time", "typical_workload"]

_TYPICAL_TEXTS, _TYPICAL_TOKENS, _TYPICAL_EVALUATED = 2000, 64, 1000
"""Assumed of data that are not known yet."""


@dataclass(frozen=True)
class PredictedTime:
    """Seconds of trials of full length: random samples of a space, from cheap to expensive."""

    median_s: float
    most_s: float
    """Nine in ten take no more."""
    longest_s: float
    longest: str
    """The most expensive sample."""
    reason: str
    """The reason that it is expensive: `its prompt lengthens every text`."""

    def facts(self) -> dict[str, Any]:
        """Its fields, seconds rounded to the two digits that a prediction has."""
        seconds = {
            key: float(f"{getattr(self, key):.2g}") for key in ("median_s", "most_s", "longest_s")
        }
        return seconds | {"longest": self.longest, "reason": self.reason}


def predicted_time(
    samples: RandomSamples, workload: Workload, scale: float = TYPICAL_S
) -> PredictedTime | None:
    """The prediction, with `scale` seconds per multiply-add; None if nothing fits its budget.

    >>> samples = draw_samples(load_space("demo").on(load_shapes("config:bert-base")))
    >>> time = predicted_time(samples, Workload(100, 32, 20, 500, 20))
    >>> time.median_s < time.most_s < time.longest_s
    True
    """
    costs = [(trial_cost(c, samples.shapes, workload), c) for c in samples.configurations]
    if not costs:
        return None
    costs.sort(key=lambda pair: pair[0].total)
    median, most, longest = (costs[int(q * (len(costs) - 1))][0].total for q in (0.5, 0.9, 1.0))
    cost, configuration = costs[-1]
    return PredictedTime(
        *(median * scale, most * scale, longest * scale), configuration.describe(), cost.reason
    )


def typical_workload(space: Space) -> Workload:
    """A workload for a space whose data are not known: 2,000 texts of 64 tokens to train and 1,000
    to evaluate, unless the space says how many.
    """
    budgets, training = space.file.budgets, space.nearest_training(())
    batch = (
        max(1, training.batch_tokens // _TYPICAL_TOKENS)
        if training.batch_tokens
        else (training.batch_size)
    )
    texts = budgets.train_examples or _TYPICAL_TEXTS
    steps = budgets.training_budget().full_steps(ceil(texts / batch))
    evaluated = budgets.eval_examples or _TYPICAL_EVALUATED
    below = min(budgets.rung_examples, evaluated) * (len(budgets.rungs) - 1)
    return Workload(
        steps=steps,
        batch=batch,
        tokens=_TYPICAL_TOKENS,
        evaluated=evaluated + below,
        evaluated_tokens=_TYPICAL_TOKENS,
        passes=max(1.0, steps * batch / texts),
    )
