"""Attachments: the tuned parameters of an attached configuration, and how to detach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.hard_concrete import SparseDelta
from peftsearch.backbone.attach.hooks import Captured
from peftsearch.design.configuration import Configuration

__all__ = ["Attachment", "TunedParameter", "registered_name"]


def registered_name(name: str) -> str:
    """A tuned tensor's name with slashes for dots, which `nn.Module` allows in no name.

    Slashes separate site and tensor already, so that two names never become one.
    """
    return name.replace(".", "/")


@dataclass(frozen=True)
class TunedParameter:
    """A trained tensor, with what an optimiser must know of it."""

    name: str
    """`0/layers.3.attn.query/down`: number of the modification, site, tensor."""
    parameter: nn.Parameter
    form: str
    """The form that its learning rate is looked up by."""
    decays: bool
    """Whether weight decay applies to it."""
    fast: bool = False
    """Whether LoRA+'s ratio of learning rates applies to it."""
    rate: float = 1.0
    """Its learning rate as a multiple of its form's."""


@dataclass
class Attachment:
    """The result of `attach`, and a context manager: leaving it detaches."""

    configuration: Configuration
    """As placed on the backbone (`Configuration.within`)."""
    tuned: list[TunedParameter] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)
    """Functions that take the changes of the backbone back, run last to first."""
    not_stored: set[str] = field(default_factory=set)
    """Names of trained tensors of which only what `computed` makes of them is stored."""
    computed: list[tuple[str, Callable[[], Mapping[str, Tensor]]]] = field(default_factory=list)
    """(first part of their names, function that computes stored tensors from trained ones)."""
    indices: dict[str, Tensor] = field(default_factory=dict)
    """Name → [k] places in the body, stored beside the tuned values of a sparse change."""
    sparse: list[SparseDelta] = field(default_factory=list)
    captured: list[Captured | dict[str, Tensor]] = field(default_factory=list)
    """States of the last forward, kept for modifications that read them later in it."""
    release: list[Callable[[], object]] = field(default_factory=list)
    """Functions that release tensors computed from trained ones in the last forward."""

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """Name → trained parameter, in a fixed order."""
        return {t.name: t.parameter for t in self.tuned}

    def stored(self) -> dict[str, Tensor]:
        """Name → tensor as exported: of the names and shapes that `attach(finished=True)` makes."""
        with torch.no_grad():
            stored = {
                name: p.detach() for name, p in self.tensors.items() if name not in self.not_stored
            }
            for prefix, compute in self.computed:
                stored |= {f"{prefix}/{name}": t.contiguous() for name, t in compute().items()}
        return stored | self.indices

    def penalty(self) -> Tensor | None:
        """A scalar that training adds to the loss, or None (diff-pruning's expected L0 norm)."""
        if not self.sparse:
            return None
        return torch.stack([sparse.penalty() for sparse in self.sparse]).sum()

    def begin_step(self, step: int) -> None:
        """Make the noise of a training step a function of its number."""
        for sparse in self.sparse:
            sparse.reseed(step)

    def forget_captured(self) -> None:
        """Release the tensors that the last forward left, and with them its autograd graph.

        The next forward computes them again: not to be called between a forward and its backward,
        in which gradient checkpointing reads them.
        """
        for states in self.captured:
            states.clear()
        for release in self.release:
            release()

    def detach(self) -> None:
        """Undo every change; the backbone's outputs are then bit-identical to before."""
        self.release.clear()  # they would put something in the place of the frozen tensors again
        while self.undo:
            self.undo.pop()()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
