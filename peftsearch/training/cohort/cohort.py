"""Cohort: several configurations trained at once, in one pass of the shared backbone.

Each keeps its modifications, head, optimiser, learning rates, clipping, seed and data order; only
the passes are shared, in which each has its own rows (`backbone/sharing/slices.py`). Members may be
at different steps, and join and leave between any two passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from peftsearch.backbone.attach.attention import padded_at_end
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.precision import matrix_products_in_tf32
from peftsearch.backbone.sharing.slices import Slices, why_not_shared
from peftsearch.design.configuration import Configuration
from peftsearch.errors import OutOfMemory, TrialFailure
from peftsearch.training.cohort.graph_cache import GraphCache, ReplayFailed
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorder import recorder_for
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.device_losses import DeviceLosses
from peftsearch.training.loop import TrainingRun
from peftsearch.training.memory.out_of_memory import memory_errors
from peftsearch.training.optimisations import Optimisations

__all__ = ["Cohort", "member_optimisations", "why_not_in_a_cohort"]


def why_not_in_a_cohort(backbone: Backbone, configuration: Configuration) -> str | None:
    """The reason why a configuration trains alone; None if it can share passes."""
    training = configuration.training
    if not configuration.modifications:
        return "a head alone is trained on states that are computed once"
    if training.dropout:
        return "its dropout has its own random stream"
    if training.checkpointing:
        return "its layers are computed again in every backward pass"
    return why_not_shared(backbone, configuration)


def member_optimisations(optimisations: Optimisations) -> Optimisations:
    """Optimisations for a member: no cached states, since other members may tune any layer."""
    return optimisations.without("activations", "features")


@dataclass
class Cohort:
    """The passes of one backbone that several runs share."""

    backbone: Backbone
    graphs: GraphCache | None = None
    """Recordings of passes; None where the device or the backbone cannot be recorded."""
    slices: Slices = field(default_factory=Slices)
    losses: DeviceLosses = field(default_factory=DeviceLosses)
    """Training losses of all passes, on the device until a run reads one."""

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        optimisations: Optimisations,
        notify: Callable[[str], None] = lambda _: None,
    ) -> Cohort:
        """A cohort that uses CUDA graphs where possible; `notify` is called with why not."""
        can = optimisations.graphs and backbone.family.allows_cuda_graphs
        recorder = recorder_for(backbone.device) if can else None
        return cls(backbone, None if recorder is None else GraphCache(recorder, notify))

    @property
    def was_ordinary(self) -> bool:
        """Whether the last pass is a measure of the next ones: nothing was recorded in it."""
        return self.graphs is None or self.graphs.is_ordinary

    def free_memory(self) -> bool:
        """Free the memory of recordings, which passes can do without; whether there were any."""
        if self.graphs is None:
            return False
        held = self.graphs.held > 0
        self.graphs.clear()
        return held

    def member_backbone(self) -> Backbone:
        """The backbone for one more member's `TrainingRun`: its hooks act on own rows alone."""
        return replace(self.backbone, hooks=self.slices.member())

    def step(self, runs: Sequence[TrainingRun]) -> dict[TrainingRun, TrialFailure]:
        """Forward and backward over the next piece of every run's batch; then the optimiser's step
        of every run whose batch is complete.

        Returns the runs that failed, which are useless afterwards. Raises OutOfMemory if the pass
        does not fit, after which every run is as it was before its step.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        runs = sorted(runs, key=_alike)
        passes = self._passes(runs)
        failed = _finished(runs)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        tokens = sum(sum(one.joint.tokens) for one in passes)
        for one in passes:
            for run, own in zip(one.runs, one.joint.tokens, strict=True):
                run.cohort = max(run.cohort, len(one.runs))
                run.charge(*(seconds * own / tokens for seconds in spent))
        return failed

    def _passes(self, runs: Sequence[TrainingRun]) -> list[_Pass]:
        """Losses and gradients of one piece of every run."""
        try:
            with memory_errors(), matrix_products_in_tf32(self.backbone.tf32):
                passes = self._computed(runs)
        except BaseException as error:
            for run in runs:
                run.abandon_step()
            if not self._can_retry(error):
                raise
        else:
            for one in passes:
                for run, loss in zip(one.runs, self.losses.add(one.losses), strict=True):
                    run.pieces.losses.append(loss)
            return passes
        return self._passes(runs)

    def _can_retry(self, error: BaseException) -> bool:
        """Whether the pass can be begun again without recordings."""
        if isinstance(error, OutOfMemory) and self.graphs is not None and self.graphs.held:
            self.graphs.disable("their memory is needed")
            return True
        return isinstance(error, ReplayFailed)

    def _computed(self, runs: Sequence[TrainingRun]) -> list[_Pass]:
        """One pass of all runs; two if those of some can be captured and those of others cannot,
        which would otherwise keep all of them from being replayed.
        """
        if self.graphs is None:
            return [self._one(runs)]
        recorded, others = self.graphs.split(runs)
        passes = [self._one(recorded, self.graphs)] if recorded else []
        return [*passes, self._one(others)] if others else passes

    def _one(self, runs: Sequence[TrainingRun], graphs: GraphCache | None = None) -> _Pass:
        joint = self._joint(runs).to(self.backbone.device)
        do = SharedPass(self.backbone, self.slices, runs)
        with padded_at_end(runs[0].optimisations.causal):
            losses = do(joint) if graphs is None else graphs(do, joint)
        return _Pass(runs, joint, losses)

    def _joint(self, runs: Sequence[TrainingRun]) -> JointBatch:
        """The next piece of every run, put together on the host."""
        return JointBatch.next_of(runs, self.backbone)


@dataclass(frozen=True)
class _Pass:
    """A pass that was computed."""

    runs: Sequence[TrainingRun]
    joint: JointBatch
    losses: Tensor
    """[runs]"""


def _alike(run: TrainingRun) -> tuple[tuple[str, ...], ...]:
    """A key by which members are sorted: those with hooks of one kind at most modules then have
    rows side by side, which are computed together without being copied together first.
    """
    return tuple(
        (one.form.name, *one.place.names, one.insertion.name, one.composition.name)
        for one in run.model.configuration.modifications
    )


def _finished(runs: Sequence[TrainingRun]) -> dict[TrainingRun, TrialFailure]:
    """Take the optimiser's step of every run whose batch is complete; returns those that failed.
    One that ran out of memory failed, too: only some of its tensors may have been updated.
    """
    failed: dict[TrainingRun, TrialFailure] = {}
    for run in runs:
        try:
            if run.pieces.all_taken:  # members with accumulation take several passes a step
                with memory_errors():
                    run.finish_step()
        except TrialFailure as failure:
            failed[run] = failure
    return failed
