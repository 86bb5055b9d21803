"""One configuration's training: steps on the shared backbone, evaluations at rungs, checkpoints.

Bit-equal given (configuration, seed, thread count, dtype); a checkpoint continues bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import ConfigurationError, DataError, Diverged, NotANumber, OutOfMemory
from peftsearch.task.encode import Encoded
from peftsearch.training.average import WeightAverage
from peftsearch.training.batches import BatchOrder
from peftsearch.training.budget import TrainingBudget
from peftsearch.training.checkpoint import load_tensors, number_in, save_tensors
from peftsearch.training.conditions import conditions, seeded
from peftsearch.training.frozen import FrozenStates
from peftsearch.training.levers import Levers
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Objective
from peftsearch.training.optimiser import make_optimiser, set_rates, warmup_steps

__all__ = ["TrainingRun"]

_SMOOTHING = 0.9
_RISE = 2.0


class TrainingRun:
    """Trains one configuration from rung to rung. Use as a context manager: leaving detaches.

    `shared_by`: trials that are expected to read the same frozen states, where they are kept.
    """

    def __init__(
        self,
        backbone: Backbone,
        train: Encoded,
        objective: Objective,
        configuration: Configuration,
        budget: TrainingBudget,
        seed: int,
        levers: Levers = Levers(),  # noqa: B008 (frozen)
        shared_by: int = 1,
    ) -> None:
        self.train_set, self.objective, self.seed = train, objective, seed
        configuration = configuration.within(backbone.shapes)
        self.frozen = FrozenStates(backbone, configuration, levers, objective.reads, shared_by)
        self.model = TunedModel(
            *(backbone, configuration, objective.outputs, seed),
            levers=levers,
            frozen=self.frozen,
        )
        self.training = configuration.training
        self.order = BatchOrder(train.lengths, self.training, seed, levers.buckets)
        self.rung_steps = budget.rung_steps(self.order.per_epoch)
        self.full_steps = self.rung_steps[-1]
        self.rungs = self._rungs()
        self.optimiser = make_optimiser(self.model, levers.fused) if self.model.parameters else None
        self.warmup = warmup_steps(self.model, self.full_steps)
        self.average = WeightAverage(self.model.parameters, self.training.rungs_are_comparable)
        self.step = 0
        self.smoothed_loss, self.first_loss = objective.begins_at, 0.0
        self.wall_s = self.cpu_s = self.eval_s = 0.0

    def _rungs(self) -> tuple[tuple[int, int], ...]:
        """(index, step) of the rungs to evaluate: where the learning rate falls towards the full
        length, that alone; where nothing is trained, the first step is the last.
        """
        rungs = tuple(enumerate(self.rung_steps))
        if not self.model.parameters:
            return ((len(rungs) - 1, 0),)
        return rungs if self.training.rungs_are_comparable else rungs[-1:]

    @property
    def next_rung(self) -> int:
        """Index of the first rung not yet reached (len(rung_steps) when done)."""
        return next((rung for rung, step in self.rungs if step > self.step), len(self.rung_steps))

    def train_to(self, step: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train up to `step`; False if `stop()` became true before it was reached.

        Raises NotANumber, Diverged or OutOfMemory, after which the run is useless.
        """
        with self._timed(), _memory_errors(), conditions(self.model.backbone, self.training):
            if self.step < step:
                passes = self.full_steps / self.order.per_epoch
                self.frozen.prepare(self.train_set, passes, self.model.pooled)
            while self.step < step:
                if stop():
                    return False
                self._train_step()
        return True

    def evaluate(self, data: Encoded, limit: int | None = None, predict: bool = True) -> Evaluation:
        """Losses and predictions of the averaged weights on (the first `limit` of) a data set."""
        before = self.wall_s
        with self._timed(), _memory_errors(), self.average.swapped_in():
            self.frozen.prepare(data, len(self.rungs), self.model.pooled)
            evaluation = self.objective.evaluate(self.model, data.first(limit), predict)
        self.eval_s += self.wall_s - before
        return evaluation

    def _train_step(self) -> None:
        batch = self.order.batch(self.step)
        with seeded(self.model.backbone, self.training, self.seed, self.step):
            loss = self._backward(batch)
        parameters = list(self.model.parameters.values())
        torch.nn.utils.clip_grad_norm_(parameters, self.training.max_grad_norm)
        decays_to = None if self.training.rungs_are_comparable else self.full_steps
        assert self.optimiser is not None
        set_rates(self.optimiser, self.step, self.warmup, decays_to)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        self._watch(loss)

    def _backward(self, batch: NDArray[np.int64]) -> float:
        """Gradients of the batch's mean loss, piece by piece; returns that loss."""
        weight = max(self.objective.weight(self.train_set, batch), 1)
        pieces = np.array_split(batch, min(self.training.accumulation, len(batch)))
        total = 0.0
        for index, piece in enumerate(pieces):
            self.model.attachment.begin_step(self.step)  # the same gates for every piece
            loss = self.objective.loss(self.model, self.train_set, piece) / weight
            penalty = self.model.attachment.penalty() if index == 0 else None
            (loss if penalty is None else loss + penalty).backward()
            total += loss.item()
        return total

    def _watch(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotANumber(f"training loss became {loss} at step {self.step}")
        if self.smoothed_loss is None:
            self.smoothed_loss = self.first_loss = loss
        self.smoothed_loss = _SMOOTHING * self.smoothed_loss + (1 - _SMOOTHING) * loss
        # A model may begin beyond the limit (an untuned head of another size): that is no fault.
        if self.smoothed_loss > max(self.objective.limit, _RISE * self.first_loss):
            raise Diverged(
                f"training loss rose to {self.smoothed_loss:.2f} by step {self.step}, "
                f"over {self.objective.limit_is}"
            )

    @contextmanager
    def _timed(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu

    def save(self, path: Path) -> None:
        """Everything needed to go on: tuned tensors, head, averages, optimiser, step."""
        tensors: dict[str, Tensor] = dict(self.model.parameters)
        tensors |= {f"average/{name}": value for name, value in self.average.values.items()}
        for name, parameter in self.model.parameters.items():
            state = self.optimiser.state.get(parameter, {}) if self.optimiser else {}
            for key, value in state.items():
                tensors[f"optimiser/{key}/{name}"] = value
        save_tensors(path, tensors, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "configuration_hash": self.model.configuration.hash,
            "seed": self.seed,
            "step": self.step,
            "smoothed_loss": self.smoothed_loss,
            "first_loss": self.first_loss,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "eval_s": self.eval_s,
        }

    def restore(self, path: Path) -> None:
        """Go on from `save`; DataError if the file belongs to another run or is damaged: the run is
        then useless.
        """
        tensors, facts = load_tensors(path)
        own = (self.model.configuration.hash, self.seed)
        if (facts.get("configuration_hash"), facts.get("seed")) != own:
            raise DataError(f"{path}: a checkpoint of another configuration or seed")
        try:
            self._take(tensors, facts)
        except (ConfigurationError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a whole checkpoint ({error})") from error

    def _take(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.step = int(number_in(facts, "step"))
        if self.step > self.full_steps:
            raise ValueError(f"step {self.step} of {self.full_steps}")
        if facts["smoothed_loss"] is not None:
            self.smoothed_loss = number_in(facts, "smoothed_loss")
        self.first_loss = number_in(facts, "first_loss", 0.0)
        self.wall_s, self.cpu_s = number_in(facts, "wall_s"), number_in(facts, "cpu_s")
        self.eval_s = number_in(facts, "eval_s", 0.0)
        state = {n: t for n, t in tensors.items() if n.startswith("optimiser/")}
        average = {n: t for n, t in tensors.items() if n.startswith("average/")}
        self.model.load({n: t for n, t in tensors.items() if n not in state | average})
        self.average.load({n.removeprefix("average/"): t for n, t in average.items()})
        for name, parameter in self.model.parameters.items():
            assert self.optimiser is not None
            self.optimiser.state[parameter] = {
                key.split("/", 2)[1]: value.to(parameter.device if value.ndim else "cpu")
                for key, value in state.items()
                if key.split("/", 2)[2] == name
            }
            shapes = {value.shape for value in self.optimiser.state[parameter].values()}
            if self.step and not {parameter.shape} <= shapes <= {parameter.shape, torch.Size()}:
                raise ValueError(f"the optimiser's state of '{name}' does not fit it")

    def save_adapter(self, path: Path) -> None:
        """Averaged tuned tensors and head alone: what was evaluated, and an export carries away."""
        with self.average.swapped_in():
            save_tensors(path, self.model.stored(), self._facts())

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.detach()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Turn every way torch says "out of memory" into OutOfMemory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(str(error).split("\n")[0] or "out of memory") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise OutOfMemory(str(error).split("\n")[0]) from error
        raise
