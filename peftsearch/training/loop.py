"""Training run: one configuration's steps on the shared backbone, its evaluations and checkpoints.

Runs of one configuration, seed, thread count and dtype are bit-equal, also across a checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.precision import matrix_products_in_tf32
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.average import WeightAverage
from peftsearch.training.batches import BatchOrder
from peftsearch.training.checkpoint import (
    Progress,
    load_checkpoint,
    run_facts,
    save_checkpoint,
)
from peftsearch.training.device_losses import DeviceLosses
from peftsearch.training.frozen.states import FrozenStates, Stopped
from peftsearch.training.loss_monitor import LossMonitor
from peftsearch.training.low_precision_steps import LowPrecisionSteps
from peftsearch.training.memory.allocator import WITHIN_A_TRIAL, keep_freed_memory, trim_above
from peftsearch.training.memory.out_of_memory import memory_errors
from peftsearch.training.memory.peak import PeakMemory
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Evaluation, Objective
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.optimiser import make_optimiser, set_rates, warmup_steps
from peftsearch.training.pieces import Pieces
from peftsearch.training.tensor_file import save_tensors
from peftsearch.training.train_mode import seeded_dropout, train_mode

__all__ = ["TrainingRun"]


class TrainingRun:
    """Trains one configuration from rung to rung. A context manager: leaving it detaches.

    `shared_by`: trials that are expected to read the same cached states. `low_rungs`: name of the
    low precision of frozen layers below full length; None: computed exactly.
    Raises OutOfMemory if its tensors do not fit, ConfigurationError if the backbone cannot take the
    configuration, MissingError if the CPU cannot compute in `low_rungs`.
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
        self.peak = PeakMemory(backbone.device)
        self.optimisations, self.objective, self.seed = optimisations, objective, seed
        self.train_set = self._read(train)
        # Before anything is attached: cached states are keyed by the bare backbone's weights.
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
        self._losses = DeviceLosses()
        self.pieces = Pieces(self.model, objective, self.train_set, self.order)
        self.wall_s = self.cpu_s = self.eval_s = self.eval_cpu_s = 0.0
        """Seconds spent on this run; those of evaluations are a part of the first two."""
        self.prepares = False
        """Whether states of frozen layers are being computed, for all steps to come."""
        self.cohort = 1
        """The most runs that have shared a pass, this one included."""

    def _read(self, data: Encoded) -> Encoded:
        """The data, tokenised again at each read without the optimisation `tokens`."""
        return data if self.optimisations.tokens else data.uncached()

    def _rungs(self) -> tuple[tuple[int, int], ...]:
        """(index, step) of the rungs to evaluate. With a learning rate that falls towards the full
        length only that one, since a rung's value would depend on it; with nothing to train only
        the full length, at step 0.
        """
        rungs = tuple(enumerate(self.rung_steps))
        if not self.model.parameters:
            return ((len(rungs) - 1, 0),)
        return rungs if self.training.rungs_are_comparable else rungs[-1:]

    @property
    def smoothed_loss(self) -> float | None:
        """Smoothed training loss; None before the first step if no initial loss is known."""
        return self.loss_monitor.smoothed

    @property
    def next_rung(self) -> int:
        """Index of the first rung not yet reached (len(rung_steps) when done)."""
        return next((rung for rung, step in self.rungs if step > self.step), len(self.rung_steps))

    def train_to(self, step: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Train up to `step`; False if `stop()` became true before it was reached.

        Raises NotANumber, Diverged or OutOfMemory, after which the run is useless.
        """
        mode = train_mode(self.model.backbone, self.training)
        with self._timed(), memory_errors(), self._computing(), mode:
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
        self._trim()
        return True

    def evaluate(self, data: Encoded, limit: int | None = None, predict: bool = True) -> Evaluation:
        """Losses and predictions of the averaged weights on a data set, or its first `limit`
        examples. Raises OutOfMemory, or Stopped if `model.before_batch` does.
        """
        before, data = (self.wall_s, self.cpu_s), self._read(data)
        with self._timed(), memory_errors(), self._computing(), self.average.swapped_in():
            # A trial reads the validation set once a rung.
            # States are cached for the whole set, of which a rung may evaluate the first examples.
            self.frozen.prepare(data, len(self.rungs), self.model.pooled)
            with self.low_precision.evaluating(self.step):
                evaluation = self.objective.evaluate(self.model, data.first(limit), predict)
        self.eval_s += self.wall_s - before[0]
        self.eval_cpu_s += self.cpu_s - before[1]
        self._trim()
        return evaluation

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Context for passes of this run alone, in its backbone's precision."""
        with matrix_products_in_tf32(self.model.backbone.tf32), self.model.alone():
            yield

    def _trim(self) -> None:
        """Return freed memory between training and evaluation: malloc cannot always reuse it, since
        each needs tensors of other sizes.
        """
        if self.optimisations.allocator:
            trim_above(WITHIN_A_TRIAL)

    def _train_step(self) -> None:
        with seeded_dropout(self.model.backbone, self.training, self.seed, self.step):
            while not self.pieces.all_taken:
                piece = self.next_piece()
                loss = self.objective.loss(self.model, self.train_set, piece)
                self.backward(loss)
        self.finish_step()

    # -- a step, piece by piece ----------------------------------------------------------------

    def next_piece(self) -> NDArray[np.int64]:
        """The examples of the next forward pass, as indices into `train_set`."""
        # Sparse changes draw their gates once a step, the same ones for every piece of it.
        self.model.attachment.begin_step(self.step)
        return self.pieces.take(self.step)

    def backward(self, loss: Tensor) -> None:
        """Gradients of one piece from its summed loss, a scalar tensor []. The first piece of a
        step adds the penalty of sparse changes.
        """
        loss = loss / self.pieces.divisor
        penalty = None if self.pieces.losses else self.model.attachment.penalty()
        self.pieces.losses += self._losses.add(loss.reshape(1))
        (loss if penalty is None else loss + penalty).backward()

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
        self.loss_monitor.add(self.step, self.pieces.losses)
        self.pieces.end_step()

    def abandon_step(self) -> None:
        """Forget the step under way, to begin it again with the next piece."""
        self.pieces.end_step()
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def charge(self, wall_s: float, cpu_s: float) -> None:
        """Add seconds spent on this run elsewhere: its share of a cohort's passes."""
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
        """Progress and cost so far, as checkpoints hold them."""
        self.peak.look()
        return Progress(
            step=self.step,
            smoothed_loss=self.loss_monitor.smoothed,
            first_loss=self.loss_monitor.first,
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            eval_s=self.eval_s,
            eval_cpu_s=self.eval_cpu_s,
            peak_rss_bytes=self.peak.rss_bytes,
            peak_device_bytes=self.peak.device_bytes,
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
        self.wall_s, self.cpu_s = progress.wall_s, progress.cpu_s
        self.eval_s, self.eval_cpu_s = progress.eval_s, progress.eval_cpu_s
        self.peak.include(progress.peak_rss_bytes, progress.peak_device_bytes)
        self.loss_monitor.first = progress.first_loss
        if progress.smoothed_loss is not None:
            self.loss_monitor.smoothed = progress.smoothed_loss

    def save_adapter(self, path: Path) -> None:
        """Write `adapter()` to `path`, with the run's identity and progress."""
        save_tensors(path, self.adapter(), run_facts(self.model, self.seed, self.progress))

    def adapter(self) -> dict[str, Tensor]:
        """Averaged tuned tensors and head by name: what was evaluated, and what exports contain.
        In stored form, which for some forms differs from the trained one.
        """
        with self.average.swapped_in():
            return {name: t.clone() for name, t in self.model.stored().items()}

    def __enter__(self) -> TrainingRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.peak.end()
        self.model.detach()
