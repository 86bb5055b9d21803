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

import torch
from torch import Tensor

from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import DataError, Diverged, NotANumber, OutOfMemory
from peftsearch.task.encode import Encoded
from peftsearch.training.average import WeightAverage
from peftsearch.training.batches import epoch_batches, steps_per_epoch
from peftsearch.training.budget import TrainingBudget
from peftsearch.training.checkpoint import load_tensors, save_tensors
from peftsearch.training.evaluate import Evaluation, evaluate
from peftsearch.training.model import TunedModel
from peftsearch.training.optimiser import make_optimiser, set_rates, warmup_steps

__all__ = ["TrainingRun"]

_DIVERGED = 4.0
"""A smoothed loss above so many times a constant predictor's never came back in our runs."""
_SMOOTHING = 0.9


class TrainingRun:
    """Trains one configuration from rung to rung. Use as a context manager: leaving detaches."""

    def __init__(
        self,
        backbone: Backbone,
        train: Encoded,
        labels: int,
        configuration: Configuration,
        budget: TrainingBudget,
        seed: int,
    ) -> None:
        self.train_set, self.budget, self.seed = train, budget, seed
        self.model = TunedModel(backbone, configuration, labels, seed)
        self.training = self.model.configuration.training
        self.rung_steps = budget.rung_steps(len(train), self.training.batch_size)
        self.optimiser = make_optimiser(self.model)
        self.warmup = warmup_steps(self.model, self.rung_steps[-1])
        self.average = WeightAverage(self.model.parameters)
        self.step = 0
        self.smoothed_loss = math.log(labels)
        self._limit = _DIVERGED * math.log(max(labels, 2))
        self._epoch: tuple[int, list[Any]] = (-1, [])
        self.wall_s = 0.0
        self.cpu_s = 0.0

    @property
    def next_rung(self) -> int:
        """Index of the first rung not yet reached (len(rung_steps) when done)."""
        return sum(step <= self.step for step in self.rung_steps)

    def train_to(self, step: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train up to `step`; False if `stop()` became true before it was reached.

        Raises NotANumber, Diverged or OutOfMemory, after which the run is useless.
        """
        with self._timed(), _memory_errors():
            while self.step < step:
                if stop():
                    return False
                self._train_step()
        return True

    def evaluate(self, data: Encoded, limit: int | None = None) -> Evaluation:
        """Predictions of the averaged weights on (the first `limit` examples of) a data set."""
        with self._timed(), _memory_errors(), self.average.swapped_in():
            return evaluate(self.model, data, limit)

    def _train_step(self) -> None:
        batch, labels = self._batch()
        self.model.attachment.begin_step(self.step)
        loss = torch.nn.functional.cross_entropy(self.model(**batch).float(), labels)
        penalty = self.model.attachment.penalty()
        (loss if penalty is None else loss + penalty).backward()
        parameters = list(self.model.parameters.values())
        torch.nn.utils.clip_grad_norm_(parameters, self.training.max_grad_norm)
        set_rates(self.optimiser, self.step, self.warmup)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        self._watch(loss.item())

    def _batch(self) -> tuple[dict[str, Tensor], Tensor]:
        size = self.training.batch_size
        epoch, index = divmod(self.step, steps_per_epoch(len(self.train_set), size))
        if self._epoch[0] != epoch:
            lengths = self.train_set.lengths
            self._epoch = (epoch, epoch_batches(lengths, size, self.seed, epoch))
        device = self.model.backbone.device
        return self.train_set.batch(self._epoch[1][index], device)

    def _watch(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise NotANumber(f"training loss became {loss} at step {self.step}")
        self.smoothed_loss = _SMOOTHING * self.smoothed_loss + (1 - _SMOOTHING) * loss
        if self.smoothed_loss > self._limit:
            raise Diverged(
                f"training loss rose to {self.smoothed_loss:.2f} by step {self.step}, "
                f"over {_DIVERGED:g} times a constant predictor's"
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
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser/{key}/{name}"] = value
        save_tensors(path, tensors, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "configuration_hash": self.model.configuration.hash,
            "seed": self.seed,
            "step": self.step,
            "smoothed_loss": self.smoothed_loss,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
        }

    def restore(self, path: Path) -> None:
        """Go on from `save`; DataError if the file belongs to another run or is damaged."""
        tensors, facts = load_tensors(path)
        own = (self.model.configuration.hash, self.seed)
        if (facts.get("configuration_hash"), facts.get("seed")) != own:
            raise DataError(f"{path}: a checkpoint of another configuration or seed")
        state = {n: t for n, t in tensors.items() if n.startswith("optimiser/")}
        average = {n: t for n, t in tensors.items() if n.startswith("average/")}
        self.model.load({n: t for n, t in tensors.items() if n not in state | average})
        self.average.load({n.removeprefix("average/"): t for n, t in average.items()})
        for name, parameter in self.model.parameters.items():
            self.optimiser.state[parameter] = {
                key.split("/", 2)[1]: value.to(parameter.device if value.ndim else "cpu")
                for key, value in state.items()
                if key.split("/", 2)[2] == name
            }
        self.step = int(facts["step"])
        self.smoothed_loss = float(facts["smoothed_loss"])
        self.wall_s, self.cpu_s = float(facts["wall_s"]), float(facts["cpu_s"])

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
