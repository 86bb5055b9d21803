"""Creating new trials: begin, sample, and assign each configuration only once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.policy.decisions import Begin
from peftsearch.policy.history import Origin
from peftsearch.space.decode import decode
from peftsearch.space.file.values import Suggester
from peftsearch.space.space import Space
from peftsearch.study.policy_sampler import PolicySampler, as_suggester
from peftsearch.study.storage.attributes import (
    BUDGET_CONSTRAINT,
    BUDGET_PCT,
    HASH,
    METHOD,
    ORIGIN,
    SAME_AS,
    SEED,
    TUNED_PCT,
    WORKER,
)
from peftsearch.study.storage.base import TrialStore
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["NewTrials", "SampledTrial", "UnsampledTrial"]


@dataclass(frozen=True)
class UnsampledTrial:
    """A trial in storage that has no parameters yet, and the source of its parameters."""

    trial: optuna.Trial
    proposal: Mapping[str, Any] | Suggester | Configuration


@dataclass(frozen=True)
class SampledTrial:
    """A new trial's configuration; None if no width of the structure fits the budget."""

    number: int
    origin: Origin
    configuration: Configuration | None
    budget_pct: float | None


class NewTrials:
    """Creates trials of one worker; `worker` is the name recorded with them."""

    def __init__(
        self,
        table: TrialTable,
        store: TrialStore,
        space: Space,
        shapes: BackboneShapes,
        worker: str,
    ) -> None:
        self.table, self.store, self.space, self.shapes = table, store, space, shapes
        self.worker = worker
        self.sampler = PolicySampler()
        table.study.sampler = self.sampler

    def begin(self, decision: Begin) -> UnsampledTrial:
        """Create a trial of this worker; the caller holds the study's lock. Enqueued parameters are
        used first; the policy suggests the others.
        """
        labels, proposal = {WORKER.key: self.worker}, decision.proposal
        if self.table.all(TrialState.WAITING):
            proposal = {} if isinstance(proposal, Configuration) else proposal
        else:
            named = {SEED.key: decision.seed, METHOD.key: decision.method}
            labels |= {key: label for key, label in named.items() if label is not None}
        with self.table.batched(labels):
            trial = self.table.study.ask()
        missing = {key: v for key, v in labels.items() if trial.user_attrs.get(key) != v}
        for key, label in missing.items():
            trial.set_user_attr(key, label)
        return UnsampledTrial(trial, proposal)

    def sample(self, begun: UnsampledTrial) -> SampledTrial:
        """Sample the space with a trial's suggestions; called without the study's lock."""
        trial = begun.trial
        if isinstance(begun.proposal, Configuration):
            return SampledTrial(trial.number, "landmark", begun.proposal, None)
        self.sampler.source = as_suggester(begun.proposal)
        with self.table.batched():
            sample = decode(self.space.on(self.shapes), trial)
        if sample.configuration is None:
            trial.set_constraint(BUDGET_CONSTRAINT, sample.log_excess)
        return SampledTrial(
            trial.number,
            "seed" if SEED.is_in(trial.user_attrs) else "sampled",
            sample.configuration,
            sample.budget_pct,
        )

    def assign(self, sampled: SampledTrial, configuration: Configuration) -> FrozenTrial | None:
        """Record the configuration of a trial; the caller holds the lock. Returns an earlier trial
        with the same configuration, if any: then this one is a duplicate and is not trained.
        """
        number, first = sampled.number, self._first_with(configuration.hash)
        with self.table.transaction():
            self.table.set(number, ORIGIN, sampled.origin)
            self.table.set(number, BUDGET_PCT, sampled.budget_pct)
            self.table.set(number, TUNED_PCT, configuration.tuned_pct(self.shapes))
            self.store.write_configuration(number, configuration.to_json())
            if first is not None:  # before the hash: cut off in between, it must not be trained
                self.table.set(number, SAME_AS, first.number)
            self.table.set(number, HASH, configuration.hash)
        return first

    def _first_with(self, configuration_hash: str) -> FrozenTrial | None:
        for trial in self.table.all():
            attrs = trial.user_attrs
            if HASH.of(attrs) == configuration_hash and not SAME_AS.is_in(attrs):
                return trial
        return None
