"""A recorded shared pass: replayed on other batches, and compared with an ordinary pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorder import Recorder
from peftsearch.training.cohort.shared_pass import SharedPass

__all__ = ["RecordedPass", "Result", "add", "addresses", "agree", "result_of"]

Result = tuple[Tensor, list[Tensor | None]]
"""Losses [runs], and the gradient of every parameter, of its shape; None where it got none."""

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference as a share of a tensor's largest value, by the backbone's dtype."""
_HALF = 2e-2
"""The same in half precision and TF32: states or the factors of products have 8 or 11 bits, and
gradients pass through all of them.
"""
_FLOOR = 1e-3
"""A gradient below this share of its run's largest one is compared as if it were that large."""


class RecordedPass:
    """A recording of a shared pass. Valid as long as its runs' parameters stay at their addresses.

    `static`: the buffers that replays read; `do` must have run on them once before, as usual.
    """

    def __init__(self, recorder: Recorder, do: SharedPass, static: JointBatch) -> None:
        self.do, self.static = do, static
        with _without_gradients(do.parameters):
            self.recording = recorder.record(lambda: do(static))
            # The captured backward pass leaves the buffers that every replay writes gradients to.
            self.gradients = [parameter.grad for parameter in do.parameters]

    def __call__(self, joint: JointBatch) -> Tensor:
        """Losses [runs]; gradients are added to the parameters', as `SharedPass` does."""
        self.static.copy_from(joint)
        self.recording.replay()
        begin = 0
        for run in self.do.runs:
            own = self.gradients[begin : begin + len(run.parameters)]
            begin += len(run.parameters)
            # With accumulation the gradient must outlast the next replay, which overwrites it.
            add(run.parameters, own, copied=not run.pieces.all_taken)
        # The next replay overwrites the output.
        return self.recording.output.clone()


def add(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None], copied: bool = False
) -> None:
    """Add gradients to those of parameters. A parameter without one takes the tensor itself, or
    with `copied` a copy of it.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is not None:
            parameter.grad.add_(gradient)
        else:
            parameter.grad = gradient.clone() if copied else gradient


def result_of(
    do: Callable[[JointBatch], Tensor], parameters: Sequence[nn.Parameter], joint: JointBatch
) -> Result:
    """Losses and gradients of one pass by itself; the parameters' own gradients are unchanged."""
    with _without_gradients(parameters):
        return do(joint), [parameter.grad for parameter in parameters]


def addresses(do: SharedPass) -> list[int]:
    """Addresses of the parameters, which a recording reads."""
    return [parameter.data_ptr() for parameter in do.parameters]


@contextmanager
def _without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters without gradients; afterwards they have their former ones again."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def agree(found: Result, expected: Result, do: SharedPass) -> bool | None:
    """Whether losses and every gradient agree, each to a tolerance of its own largest value, or of
    `_FLOOR` times its run's if that is more. None where `expected` is not finite: nothing can be
    said then.
    """
    if [g is None for g in found[1]] != [g is None for g in expected[1]]:
        return False
    differences, values = _largest([found[0]], [expected[0]])
    limits = [values]
    begin = 0
    for run in do.runs:
        own = slice(begin, begin + len(run.parameters))
        begin = own.stop
        difference, value = _largest(_present(found[1][own]), _present(expected[1][own]))
        differences = torch.cat([differences, difference])
        limits.append(value.clamp(min=value.max() * _FLOOR))
    limit = torch.cat(limits)
    if not bool(limit.isfinite().all()):
        return None
    exact = _TOLERANCE.get(do.backbone.dtype, _HALF)
    return bool((differences <= (_HALF if do.backbone.tf32 else exact) * limit).all())


def _present(gradients: Sequence[Tensor | None]) -> list[Tensor]:
    return [gradient for gradient in gradients if gradient is not None]


def _largest(found: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The largest difference and the largest value of each pair of tensors, [tensors] fp64 each."""
    differences = [(own - other).abs().max() for own, other in zip(found, expected, strict=True)]
    values = [other.abs().max() for other in expected]
    return torch.stack(differences).double(), torch.stack(values).double()
