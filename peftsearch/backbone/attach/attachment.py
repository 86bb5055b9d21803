"""The result of attaching a configuration: its tuned parameters, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.hard_concrete import SparseDelta
from peftsearch.design.configuration import Configuration

__all__ = ["Attachment", "TunedParameter", "registered_name"]


def registered_name(name: str) -> str:
    """A tuned tensor's name as an `nn.Module` registers it: modules allow no dots in names. Slashes
    part site and tensor already, so that no two names become one.
    """
    return name.replace(".", "/")


@dataclass(frozen=True)
class TunedParameter:
    """A tuned tensor with what training must know of it."""

    name: str
    parameter: nn.Parameter
    form: str
    decays: bool
    fast: bool = False
    """Whether LoRA+'s ratio of learning rates applies to it."""
    rate: float = 1.0
    """Its learning rate over its form's."""


@dataclass
class Attachment:
    """The result of `attach`; leaving it as a context manager detaches."""

    configuration: Configuration
    """As placed on the backbone (`Configuration.within`)."""
    tuned: list[TunedParameter] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)
    not_stored: set[str] = field(default_factory=set)
    """Trained tensors that `computed` ones are stored for."""
    computed: list[tuple[str, Callable[[], Mapping[str, Tensor]]]] = field(default_factory=list)
    indices: dict[str, Tensor] = field(default_factory=dict)
    """Stored beside tuned values: where in the body they belong."""
    sparse: list[SparseDelta] = field(default_factory=list)
    captured: list[dict[str, Tensor]] = field(default_factory=list)
    """States of the last forward that modifications further down it have read."""

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """Name → trained parameter, in a fixed order."""
        return {t.name: t.parameter for t in self.tuned}

    def stored(self) -> dict[str, Tensor]:
        """Name → tensor as saved: what `attach(finished=True)` takes, and what is counted."""
        with torch.no_grad():
            stored = {
                name: p.detach() for name, p in self.tensors.items() if name not in self.not_stored
            }
            for prefix, compute in self.computed:
                stored |= {f"{prefix}/{name}": t.contiguous() for name, t in compute().items()}
        return stored | self.indices

    def penalty(self) -> Tensor | None:
        """A term that training adds to the loss, or None."""
        if not self.sparse:
            return None
        return torch.stack([sparse.penalty() for sparse in self.sparse]).sum()

    def begin_step(self, step: int) -> None:
        """Make the noise of a training step a function of its number."""
        for sparse in self.sparse:
            sparse.reseed(step)

    def forget_captured(self) -> None:
        """Let go of what the last forward left, and of the graph that it is part of."""
        for states in self.captured:
            states.clear()

    def detach(self) -> None:
        """Take everything off; the backbone's outputs are bit-identical to before."""
        while self.undo:
            self.undo.pop()()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
