"""One configuration's training: steps on the shared backbone, evaluations at rungs, checkpoints.

Bit-equal given (configuration, seed, thread count, dtype); a checkpoint continues bit for bit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.errors import OutOfMemory
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.allocator import WITHIN_A_TRIAL, keep_freed_memory, trim_above
from peftsearch.training.average import WeightAverage
from peftsearch.training.batches import BatchOrder
from peftsearch.training.checkpoint import (
    Progress,
    load_checkpoint,
    run_facts,
    save_checkpoint,
)
from peftsearch.training.frozen.states import FrozenStates, Stopped
from peftsearch.training.loss_monitor import LossMonitor
from peftsearch.training.low_precision_steps import LowPrecisionSteps
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Objective
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.optimiser import make_optimiser, set_rates, warmup_steps
from peftsearch.training.positions import max_trained_positions
from peftsearch.training.tensor_file import save_tensors
from peftsearch.training.train_mode import seeded_dropout, train_mode

__all__ = ["TrainingRun", "memory_errors"]


class TrainingRun:
    """Trains one configuration from rung to rung. Use as a context manager: leaving detaches.
    OutOfMemory where its tensors do not fit.

    `shared_by`: trials that are expected to read the same frozen states, where they are kept.
    `low_rungs`: the low precision of frozen layers below full length, where there is to be one.
    """

    def __init__(
        self,
        backbone: Backbone,
        train: Encoded,
        objective: Objective,
        configuration: Configuration,
        budget: TrainingBudget,
        seed: int,
        optimisations: Optimisations = Optimisations(),  # noqa: B008 (frozen)
        shared_by: int = 1,
        low_rungs: str | None = None,
    ) -> None:
        if optimisations.allocator:
            keep_freed_memory()
        self.optimisations, self.objective, self.seed = optimisations, objective, seed
        self.train_set = self._read(train)
        self.frozen = FrozenStates(
            backbone, configuration, optimisations, objective.first_stack_inputs, shared_by
        )
        with memory_errors():
            self.model = TunedModel(
                *(backbone, configuration, objective.outputs, seed),
                optimisations=optimisations,
                frozen=self.frozen,
            )
        self.parameters = list(self.model.parameters.values())
        self.training = self.model.configuration.training
        self.order = BatchOrder(train.lengths, self.training, seed, optimisations.buckets)
        self.rung_steps = budget.rung_steps(self.order.per_epoch)
        self.full_steps = self.rung_steps[-1]
        self.rungs = self._rungs()
        evaluated = (step for _, step in self.rungs)
        self.low_precision = LowPrecisionSteps.of(backbone, low_rungs, evaluated, self.full_steps)
        self.optimiser = (
            make_optimiser(self.model, optimisations.fused) if self.model.parameters else None
        )
        self.warmup = warmup_steps(self.model, self.full_steps)
        self.average = WeightAverage(self.model.parameters, self.training.rungs_are_comparable)
        self.step = 0
        self.loss_monitor = LossMonitor(objective, backbone.device)
        self._pieces: list[NDArray[np.int64]] | None = None
        self._losses: list[Tensor] = []
        self._weight = 1
        self.wall_s = self.cpu_s = self.eval_s = 0.0
        self.prepares = False
        """Whether states of frozen layers are being computed, for all steps to come."""
        self.cohort = 1
        """The most runs that it has shared a pass with, itself among them."""

    def _read(self, data: Encoded) -> Encoded:
        return data if self.optimisations.tokens else data.read_anew()

    def _rungs(self) -> tuple[tuple[int, int], ...]:
        """(index, step) of the rungs to evaluate: where the learning rate falls towards the full
        length, that alone; where nothing is trained, the first step is the last.
        """
        rungs = tuple(enumerate(self.rung_steps))
        if not self.model.parameters:
            return ((len(rungs) - 1, 0),)
        return rungs if self.training.rungs_are_comparable else rungs[-1:]

    @property
    def smoothed_loss(self) -> float | None:
        """Of training so far; None before the first step where no beginning is known."""
        return self.loss_monitor.smoothed

    @property
    def next_rung(self) -> int:
        """Index of the first rung not yet reached (len(rung_steps) when done)."""
        return next((rung for rung, step in self.rungs if step > self.step), len(self.rung_steps))

    def train_to(self, step: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train up to `step`; False if `stop()` became true before it was reached.

        Raises NotANumber, Diverged or OutOfMemory, after which the run is useless.
        """
        whole = train_mode(self.model.backbone, self.training)
        with self._timed(), memory_errors(), self.model.alone(), whole:
            if self.step < step:
                passes = self.full_steps / self.order.per_epoch
                self.prepares = True
                try:
                    self.frozen.prepare(self.train_set, passes, self.model.pooled, stop)
                except Stopped:
                    return False
                finally:
                    self.prepares = False
            while self.step < step:
                if stop():
                    self.loss_monitor.check()
                    return False
                with self.low_precision.training(self.step):
                    self._train_step()
            self.loss_monitor.check()
        self._give_back()
        return True

    def evaluate(self, data: Encoded, limit: int | None = None, predict: bool = True) -> Evaluation:
        """Losses and predictions of the averaged weights on (the first `limit` of) a data set."""
        before, data = self.wall_s, self._read(data)
        with self._timed(), memory_errors(), self.model.alone(), self.average.swapped_in():
            self.frozen.prepare(data, len(self.rungs), self.model.pooled)
            with self.low_precision.evaluating(self.step):
                evaluation = self.objective.evaluate(self.model, data.first(limit), predict)
        self.eval_s += self.wall_s - before
        self._give_back()
        return evaluation

    def _give_back(self) -> None:
        """Training and evaluation need tensors of other sizes."""
        if self.optimisations.allocator:
            trim_above(WITHIN_A_TRIAL)

    def _train_step(self) -> None:
        with seeded_dropout(self.model.backbone, self.training, self.seed, self.step):
            while not self.step_is_whole:
                piece = self.next_piece()
                loss = self.objective.loss(self.model, self.train_set, piece)
                self.backward(loss)
        self.finish_step()

    # -- a step, piece by piece ----------------------------------------------------------------

    @property
    def step_is_whole(self) -> bool:
        """Whether every piece of the step under way has had its backward pass."""
        return self._pieces is not None and not self._pieces

    @property
    def between_steps(self) -> bool:
        return self._pieces is None

    def next_piece(self) -> NDArray[np.int64]:
        """The examples of the next forward pass: a step's batch, or with accumulation its next
        part.
        """
        if self._pieces is None:
            batch = self.order.batch(self.step)
            self._weight = max(self.objective.weight(self.train_set, batch), 1)
            self._pieces = np.array_split(batch, self._parts(batch))
            self._losses = []
        self.model.attachment.begin_step(self.step)  # the same gates for every piece
        return self._pieces.pop(0)

    def _parts(self, batch: NDArray[np.int64]) -> int:
        """Pieces that a batch is trained in: as asked for, more where a prompt makes it large."""
        room = self.model.positions.parts(
            self.order.lengths[batch], max_trained_positions(self.model.backbone.device)
        )
        return max(min(self.training.accumulation, len(batch)), room)

    @property
    def weight(self) -> int:
        """What a piece's summed loss is divided by: then it is its share of the batch's mean."""
        return self._weight

    def backward(self, loss: Tensor) -> None:
        """Gradients of one piece, from its summed loss and what training adds to it."""
        loss = loss / self._weight
        penalty = None if self._losses else self.model.attachment.penalty()
        self.note(loss.detach())
        (loss if penalty is None else loss + penalty).backward()

    def note(self, loss: Tensor) -> None:
        """A piece's share of the batch's mean loss, once its gradients are there."""
        self._losses.append(loss)

    def finish_step(self) -> None:
        """The optimiser's step with the gradients of all pieces.

        Raises NotANumber or Diverged, after which the run is useless.
        """
        torch.nn.utils.clip_grad_norm_(self.parameters, self.training.max_grad_norm)
        decays_to = None if self.training.rungs_are_comparable else self.full_steps
        assert self.optimiser is not None
        set_rates(self.optimiser, self.step, self.warmup, decays_to)
        self.optimiser.step()
        self._forget_gradients()
        self.step += 1
        self.average.update(self.step)
        self.loss_monitor.add(self.step, self._losses)
        self._pieces = None

    def abandon_step(self) -> None:
        """Forget a step under way, which begins anew with the next piece."""
        self._pieces = None
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def charge(self, wall_s: float, cpu_s: float) -> None:
        """Time that was spent on this run elsewhere: its share of a cohort's steps."""
        self.wall_s += wall_s
        self.cpu_s += cpu_s

    @contextmanager
    def _timed(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu

    @property
    def progress(self) -> Progress:
        """How far the run has come, and what that cost."""
        return Progress(
            step=self.step,
            smoothed_loss=self.loss_monitor.smoothed,
            first_loss=self.loss_monitor.first,
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            eval_s=self.eval_s,
            cohort=self.cohort,
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        save_checkpoint(path, self.model, self.average, self.optimiser, self.seed, self.progress)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises DataError if it belongs to another run or is damaged; a damaged one may leave the
        run useless.
        """
        state = (self.model, self.average, self.optimiser)
        progress = load_checkpoint(path, *state, self.seed, self.full_steps)
        self.step, self.cohort = progress.step, progress.cohort
        self.wall_s, self.cpu_s, self.eval_s = progress.wall_s, progress.cpu_s, progress.eval_s
        self.loss_monitor.first = progress.first_loss
        if progress.smoothed_loss is not None:
            self.loss_monitor.smoothed = progress.smoothed_loss

    def save_adapter(self, path: Path) -> None:
        """Write `adapter()` to `path`, with the run's identity and progress."""
        save_tensors(path, self.adapter(), run_facts(self.model, self.seed, self.progress))

    def adapter(self) -> dict[str, Tensor]:
        """Averaged tuned tensors and head alone: what was evaluated, and an export carries away.
        They are as they are stored, which for some forms is not as they are trained.
        """
        with self.average.swapped_in():
            return {name: t.clone() for name, t in self.model.stored().items()}

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.model.detach()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn every way torch says "out of memory" into OutOfMemory."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(_lacking(error)) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error).lower():
            raise OutOfMemory(_lacking(error)) from error
        raise


def _lacking(error: BaseException) -> str:
    """One sentence of what torch says, which on a CPU begins with its own source."""
    wanted = re.search(r"tried to allocate (\d+) bytes", str(error))
    if wanted is not None:
        return f"out of memory: {int(wanted[1]) / 2**30:,.1f} GiB more were needed"
    return str(error).split("\n")[0] or "out of memory"
