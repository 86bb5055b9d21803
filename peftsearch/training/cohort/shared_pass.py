"""What the device computes for several runs at once: a function of tensors alone.

Whatever differs from pass to pass of the same `Joint.key` is in the tensors of the joint batch, and
in those that are trained: so a pass can be recorded, and played again on other values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.last_tokens import LastTokens
from peftsearch.backbone.sharing.slices import Member, Slices
from peftsearch.training.cohort.joint_batch import Joint
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.batch import Given

__all__ = ["SharedPass"]


class SharedPass:
    """Forward and backward of the runs' texts, in their order."""

    def __init__(self, backbone: Backbone, slices: Slices, runs: Sequence[TrainingRun]) -> None:
        self.backbone, self.slices, self.runs = backbone, slices, list(runs)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Whatever gets a gradient."""
        return [parameter for run in self.runs for parameter in run.parameters]

    def __call__(self, joint: Joint) -> Tensor:
        """Each run's share of its batch's mean loss, (runs,); gradients are the parameters'."""
        given = joint.given.split(joint.counts)
        with ExitStack() as held:
            members = [_member(run) for run in self.runs]
            held.enter_context(self.slices.sharing(list(zip(members, joint.counts, strict=True))))
            rows = self._rows(given, held)
            outputs = self.runs[0].objective.run(self.backbone, joint.given)
            outputs = outputs if rows is None else rows.select(outputs)
            losses = [
                run.objective.loss_of(run.model, own, one)
                for run, own, one in zip(
                    self.runs, outputs.split(list(joint.counts)), given, strict=True
                )
            ]
            weighted = torch.stack(losses) / joint.weights
            weighted.sum().backward()
        # A node that adds to a parameter's gradient keeps to the stream that it was made on: of a
        # pass nothing may be left when the next one is recorded on another.
        for run in self.runs:
            run.model.attachment.forget_captured()
        return weighted.detach()

    def _rows(self, given: Sequence[Given], held: ExitStack) -> LastTokens | None:
        """The last layer for one token a text, where that is all that any member reads."""
        if not all(run.model.reads_one_row for run in self.runs):
            return None
        rows = LastTokens(self.backbone)
        held.callback(rows.detach)
        where = [_where(run, one) for run, one in zip(self.runs, given, strict=True)]
        rows.set_positions(torch.cat(where))
        return rows


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
