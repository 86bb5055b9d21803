"""A shared pass: forward and backward of several runs at once, a function of tensors alone.

Everything that differs between passes of one `JointBatch.key` is in the tensors of the batch and in
the trained ones, so that a pass can be recorded and replayed on other values.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.last_tokens import LastTokens
from peftsearch.backbone.sharing.slices import Member, Slices
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.model_inputs import ModelInputs

__all__ = ["SharedPass"]


class SharedPass:
    """Forward and backward over the texts of several runs, in the order of the runs."""

    def __init__(self, backbone: Backbone, slices: Slices, runs: Sequence[TrainingRun]) -> None:
        self.backbone, self.slices, self.runs = backbone, slices, list(runs)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All tensors that get a gradient."""
        return [parameter for run in self.runs for parameter in run.parameters]

    def __call__(self, joint: JointBatch) -> Tensor:
        """Each run's share of its batch's mean loss, [runs] on the device, detached; gradients are
        added to the parameters'.
        """
        inputs = joint.inputs.split(joint.counts)
        with ExitStack() as held:
            # Autograd's node that accumulates a parameter's gradient runs on the stream it was made
            # on: nothing of this pass may be alive when the next one is recorded on another stream.
            held.callback(self._release)
            members = [_member(run) for run in self.runs]
            held.enter_context(self.slices.sharing(list(zip(members, joint.counts, strict=True))))
            rows = self._rows(inputs, held)
            outputs = self.runs[0].objective.forward(self.backbone, joint.inputs)
            outputs = outputs if rows is None else rows.select(outputs)
            each = outputs.split(joint.inputs.outputs(joint.counts))
            losses = [
                run.objective.loss_of_outputs(run.model, own, one)
                for run, own, one in zip(self.runs, each, inputs, strict=True)
            ]
            weighted = torch.stack(losses) / joint.weights
            weighted.sum().backward()
        return weighted.detach()

    def _release(self) -> None:
        for run in self.runs:
            run.model.attachment.forget_captured()

    def _rows(self, inputs: Sequence[ModelInputs], held: ExitStack) -> LastTokens | None:
        """The last layer computed for one token a text, if no member reads more; else None."""
        if not all(run.model.reads_one_token for run in self.runs):
            return None
        rows = LastTokens(self.backbone)
        held.callback(rows.detach)
        where = [_token_index(run, one) for run, one in zip(self.runs, inputs, strict=True)]
        rows.set_positions(torch.cat(where))
        return rows


def _member(run: TrainingRun) -> Member:
    hooks = run.model.backbone.hooks
    assert isinstance(hooks, Member)
    return hooks


def _token_index(run: TrainingRun, inputs: ModelInputs) -> Tensor:
    """Index of the token of each text that a run's head reads, [texts] int64."""
    assert run.model.head is not None
    mask = inputs.tensors["attention_mask"]
    where = run.model.head.token_index(mask)
    return mask.new_zeros(len(mask)) if where is None else where
