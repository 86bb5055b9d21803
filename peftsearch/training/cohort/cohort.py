"""Several configurations trained at once: one pass of the shared backbone for all their batches.

Each keeps its modifications, head, optimiser, learning rates, clipping, seed and data order; only
the rows of a pass are shared (`backbone/sharing/slices.py`). Members may be at different steps, and
join and leave between any two passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.sharing.slices import Slices, why_not_shared
from peftsearch.design.configuration import Configuration
from peftsearch.errors import OutOfMemory, TrialFailure
from peftsearch.training.cohort.graphs import Graphs, ReplayFailed
from peftsearch.training.cohort.joint_batch import Joint
from peftsearch.training.cohort.recorder import recorder_for
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun, memory_errors
from peftsearch.training.optimisations import Optimisations

__all__ = ["Cohort", "member_optimisations", "why_not_in_a_cohort"]


def why_not_in_a_cohort(backbone: Backbone, configuration: Configuration) -> str | None:
    """Why a configuration trains alone; None if it can share passes."""
    training = configuration.training
    if not configuration.modifications:
        return "a head alone is trained on states that are computed once"
    if training.dropout:
        return "its dropout draws from a random stream of its own"
    if training.checkpointing:
        return "its layers are computed again in every backward pass"
    return why_not_shared(backbone, configuration)


def member_optimisations(optimisations: Optimisations) -> Optimisations:
    """Of a member: layers that another member tunes have no states that could be kept."""
    return optimisations.without("activations", "features")


@dataclass
class Cohort:
    """The passes of one backbone that several runs share."""

    backbone: Backbone
    graphs: Graphs | None = None
    """Recordings of passes, where there may be any."""
    slices: Slices = field(default_factory=Slices)

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        optimisations: Optimisations,
        say: Callable[[str], None] = lambda _: None,
    ) -> Cohort:
        """With recordings where the device can make them; `say` hears why passes do without."""
        can = optimisations.graphs and backbone.family.allows_cuda_graphs
        recorder = recorder_for(backbone.device) if can else None
        return cls(backbone, None if recorder is None else Graphs(recorder, say))

    @property
    def was_usual(self) -> bool:
        """Whether the last pass took what the next ones take: nothing was recorded in it."""
        return self.graphs is None or self.graphs.is_usual

    def give_back(self) -> bool:
        """Whatever memory is held for the next passes, which can do without; whether any was."""
        if self.graphs is None:
            return False
        held = self.graphs.held > 0
        self.graphs.forget()
        return held

    def place(self) -> Backbone:
        """The backbone as one more member sees it: what a `TrainingRun` is made with."""
        return replace(self.backbone, hooks=self.slices.member())

    def step(self, runs: Sequence[TrainingRun]) -> dict[TrainingRun, TrialFailure]:
        """One pass, forward and backward, over the next piece of every run's batch, and the
        optimiser's step of every run whose batch is whole.

        Returns the runs that failed, which are useless after it; raises OutOfMemory where a pass
        of so many does not fit, after which every run is as it was before its step.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        joint = self._pass(runs)
        failed = _finished(runs)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        for run, own in zip(runs, joint.tokens, strict=True):
            run.cohort = max(run.cohort, len(runs))
            run.charge(*(seconds * own / sum(joint.tokens) for seconds in spent))
        return failed

    def _pass(self, runs: Sequence[TrainingRun]) -> Joint:
        """Losses and gradients of one piece of each."""
        try:
            with memory_errors():
                joint = self._joint(runs).sent(self.backbone.device)
                losses = self._computed(runs, joint)
        except BaseException as error:
            for run in runs:
                run.abandon_step()
            if not self._goes_without_recordings(error):
                raise
        else:
            for run, loss in zip(runs, losses.unbind(), strict=True):
                run.note(loss)
            return joint
        return self._pass(runs)

    def _goes_without_recordings(self, error: BaseException) -> bool:
        """Whether the pass may be begun anew, as an ordinary one."""
        if isinstance(error, OutOfMemory) and self.graphs is not None and self.graphs.held:
            self.graphs.give_up("their memory is needed")
            return True
        return isinstance(error, ReplayFailed)

    def _joint(self, runs: Sequence[TrainingRun]) -> Joint:
        """The next piece of each, put together on the host."""
        return Joint.of(runs, self.backbone)

    def _computed(self, runs: Sequence[TrainingRun], joint: Joint) -> Tensor:
        do = SharedPass(self.backbone, self.slices, runs)
        return do(joint) if self.graphs is None else self.graphs(do, joint)


def _finished(runs: Sequence[TrainingRun]) -> dict[TrainingRun, TrialFailure]:
    """Optimisers' steps of the runs whose batches are whole; what failed, for want of memory too:
    such a run's tensors may be half changed.
    """
    failed: dict[TrainingRun, TrialFailure] = {}
    for run in runs:
        try:
            if run.step_is_whole:
                with memory_errors():
                    run.finish_step()
        except TrialFailure as failure:
            failed[run] = failure
    return failed
