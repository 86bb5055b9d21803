"""New trials: methods to begin with, then samples; each configuration is given out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from peftsearch.design.configuration import Configuration
from peftsearch.design.shapes import BackboneShapes
from peftsearch.policy.seeds import Seed, seeds_of
from peftsearch.space.decode import decode
from peftsearch.space.space import Space
from peftsearch.study.storage.trial_store import TrialStore
from peftsearch.study.storage.trial_table import TrialTable

__all__ = ["Drawn", "Origin", "Proposals"]

Origin = Literal["seed", "sampled", "landmark"]


@dataclass(frozen=True)
class Drawn:
    """What a new trial is to train; without a configuration nothing of the sampled structure fits
    its budget.
    """

    number: int
    origin: Origin
    configuration: Configuration | None
    budget_pct: float | None


class Proposals:
    """`worker`: the name that new trials carry."""

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
        self.seeds = seeds_of(space, shapes)

    def begin(self) -> optuna.Trial:
        """A new trial of this worker's; its caller holds the study's lock."""
        study, seed = self.table.study, self._due_seed()
        labels = {} if seed is None else {"seed": seed.label, "method": seed.method}
        with self.table.as_read({"worker": self.worker}):
            if seed is not None and seed.params is not None:
                study.enqueue_trial(seed.params, user_attrs=labels)
            trial = study.ask()
        if trial.user_attrs.get("worker") != self.worker:
            trial.set_user_attr("worker", self.worker)
        if seed is not None and seed.params is None:
            for key, label in labels.items():
                trial.set_user_attr(key, label)
        return trial

    def _due_seed(self) -> Seed | None:
        """The next method to begin with, at most every second trial. One that was cut off before
        its configuration was written down is due again; one that failed is not.
        """
        found = self.table.all()
        if any(trial.state == TrialState.WAITING for trial in found):
            return None  # what was enqueued comes first
        trials = [t.user_attrs for t in found]
        begun = [a.get("seed") for a in trials if "hash" in a or "cause" not in a]
        waiting = [seed for seed in self.seeds if seed.label not in begun]
        seeded = sum(label is not None for label in begun)
        return waiting[0] if waiting and seeded <= len(begun) - seeded else None

    def draw(self, trial: optuna.Trial) -> Drawn:
        """What a trial is to train; without the lock, which others want meanwhile."""
        label = trial.user_attrs.get("seed")
        seed = next((seed for seed in self.seeds if seed.label == label), None)
        if seed is not None and seed.params is None:
            return Drawn(trial.number, "landmark", seed.configuration, None)
        with self.table.as_read():
            sample = decode(self.space.on(self.shapes), trial)
        if sample.configuration is None:
            trial.set_constraint("budget", sample.log_excess)
        return Drawn(
            trial.number,
            "sampled" if seed is None else "seed",
            sample.configuration,
            sample.budget_pct,
        )

    def give_out(self, drawn: Drawn, configuration: Configuration) -> FrozenTrial | None:
        """Write down what a trial is to train; its caller holds the lock. The trial that was given
        the same configuration before, if one was: then this one is not trained.
        """
        number, first = drawn.number, self._first_with(configuration.hash)
        with self.table.at_once():
            self.table.set(number, "origin", drawn.origin)
            self.table.set(number, "budget_pct", drawn.budget_pct)
            self.table.set(number, "tuned_pct", configuration.tuned_pct(self.shapes))
            self.store.write_configuration(number, configuration.to_json())
            if first is not None:  # before the hash: cut off in between, it must not be trained
                self.table.set(number, "same_as", first.number)
            self.table.set(number, "hash", configuration.hash)
        return first

    def _first_with(self, configuration_hash: str) -> FrozenTrial | None:
        for trial in self.table.all():
            attrs = trial.user_attrs
            if attrs.get("hash") == configuration_hash and "same_as" not in attrs:
                return trial
        return None
