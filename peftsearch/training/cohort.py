"""Several configurations trained at once: one pass of the shared backbone for all their batches.

Each keeps its modifications, head, optimiser, learning rates, clipping, seed and data order; only
the rows of a pass are shared (`backbone/slices.py`). Members may be at different steps, and join
and leave between any two passes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from peftsearch.backbone.load import Backbone
from peftsearch.backbone.rows import LastRows
from peftsearch.backbone.slices import Member, Slices, why_alone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import TrialFailure
from peftsearch.training.given import Given
from peftsearch.training.levers import Levers
from peftsearch.training.loop import TrainingRun, memory_errors
from peftsearch.training.objectives.base import Indices

__all__ = ["Cohort", "member_levers", "why_not_in_a_cohort"]


def why_not_in_a_cohort(backbone: Backbone, configuration: Configuration) -> str | None:
    """Why a configuration trains alone; None if it can share passes."""
    training = configuration.training
    if not configuration.modifications:
        return "a head alone is trained on states that are computed once"
    if training.dropout:
        return "its dropout draws from a random stream of its own"
    if training.checkpointing:
        return "its layers are computed again in every backward pass"
    return why_alone(backbone, configuration)


def member_levers(levers: Levers) -> Levers:
    """Of a member: layers that another member tunes have no states that could be kept."""
    return levers.without("activations", "features")


@dataclass
class Cohort:
    """The passes of one backbone that several runs share."""

    backbone: Backbone
    slices: Slices = field(default_factory=Slices)

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
        try:
            with memory_errors():
                joint = self._joint(runs)
                self._backward(runs, joint)
        except BaseException:
            for run in runs:
                run.abandon_step()
            raise
        failed = _finished(runs)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        tokens = [one.tokens for one in joint.given]
        for run, own in zip(runs, tokens, strict=True):
            run.cohort = max(run.cohort, len(runs))
            run.charge(*(seconds * own / sum(tokens) for seconds in spent))
        return failed

    def _joint(self, runs: Sequence[TrainingRun]) -> _Joint:
        """The next piece of each, put together on the host and sent to the device."""
        pieces = [run.next_piece() for run in runs]
        given = [
            run.objective.given(run.model, run.train_set, piece)
            for run, piece in zip(runs, pieces, strict=True)
        ]
        return _Joint(pieces, given, Given.joined(given))

    def _backward(self, runs: Sequence[TrainingRun], joint: _Joint) -> None:
        """Gradients of one piece of each."""
        counts = [len(one) for one in joint.given]
        with ExitStack() as held:
            members = [_member(run) for run in runs]
            held.enter_context(self.slices.sharing(list(zip(members, counts, strict=True))))
            rows = self._rows(runs, joint.given, held)
            outputs = runs[0].objective.run(self.backbone, joint.whole)
            outputs = outputs if rows is None else rows.of(outputs)
            losses = [
                _loss(run, one.own(own, joint.whole.first), one, piece)
                for run, own, one, piece in zip(
                    runs, outputs.split(counts), joint.given, joint.pieces, strict=True
                )
            ]
            torch.stack(losses).sum().backward()

    def _rows(
        self, runs: Sequence[TrainingRun], given: Sequence[Given], held: ExitStack
    ) -> LastRows | None:
        """The last layer for one token a text, where that is all that any member reads."""
        if not all(run.model.reads_one_row for run in runs):
            return None
        rows = LastRows(self.backbone)
        held.callback(rows.detach)
        rows.read(torch.cat([_where(run, one) for run, one in zip(runs, given, strict=True)]))
        return rows


@dataclass(frozen=True)
class _Joint:
    """One pass: of each run its examples and what is read for them, and all as one batch."""

    pieces: list[Indices]
    given: list[Given]
    whole: Given


def _loss(run: TrainingRun, outputs: Tensor, given: Given, piece: Indices) -> Tensor:
    """A run's part of the sum that is differentiated."""
    return run.weighted(run.objective.loss_of(run.model, outputs, given, run.train_set, piece))


def _member(run: TrainingRun) -> Member:
    hooks = run.model.backbone.hooks
    assert isinstance(hooks, Member)
    return hooks


def _where(run: TrainingRun, given: Given) -> Tensor:
    """Which token of each text a head reads, (texts,)."""
    assert run.model.head is not None
    mask = given.tensors["attention_mask"]
    where = run.model.head.row(mask)
    return mask.new_zeros(len(mask)) if where is None else where


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
