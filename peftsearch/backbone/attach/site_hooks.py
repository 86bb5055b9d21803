"""Hooks of modifications at a site: after the layer that computes h, or before one that reads it.

Each calls its `SiteModification` with x and h, and puts the new h in place; so do several of them
at once, for members of a cohort.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from peftsearch.backbone.attach.side_by_side import modify_together
from peftsearch.backbone.attach.site_modification import SiteModification
from peftsearch.backbone.linear import LinearView

__all__ = ["InputHook", "OutputHook", "OwnInput", "Read", "StreamHook"]


class Read(Protocol):
    """Gets x [batch, tokens, d_source] from the input of the hooked module."""

    @property
    def key(self) -> Hashable:
        """Equal for readers of the same x."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x of one configuration's texts, given the hooked module's input for them."""
        ...

    def of_all(self, x: Tensor) -> Tensor:
        """x of all texts, given the hooked module's input for all."""
        ...


@dataclass(frozen=True)
class OwnInput:
    """x where it is the hooked module's own input."""

    @property
    def key(self) -> Hashable:
        return None

    def __call__(self, x: Tensor) -> Tensor:
        return x

    of_all = __call__


Source = Callable[[Read], Tensor]
"""Returns x of some members' texts, one after the other: [texts, tokens, d_source]."""


@dataclass(frozen=True, eq=False)
class OutputHook:
    """A hook after the linear layer that computes h, all or a part of its output."""

    linear: LinearView
    modified: SiteModification
    read: Read

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The module's output [batch, tokens, channels], with the part that is h changed."""
        h = self.linear.read(output)
        return self.linear.written(output, self.modified(self.read(args[0]), h))

    @property
    def kind(self) -> Hashable:
        """A key, equal for hooks that can be computed together."""
        return self.linear.part, self.read.key, self.modified.kind

    @property
    def width(self) -> int:
        """Its width, where other widths may be computed beside it; else 0."""
        return self.modified.padded_width

    @property
    def reads_module(self) -> bool:
        """Whether it may read parameters of the module."""
        return not self.modified.adds

    @classmethod
    def together(cls, hooks: Sequence[OutputHook], source: Source, h: Tensor) -> Tensor:
        """The module's output [texts, tokens, channels] of several members, with equally many texts
        each, in their order.
        """
        linear, read = hooks[0].linear, hooks[0].read
        part = linear.read(h)
        x = source(read) if hooks[0].modified.reads_x else part
        return linear.written(h, modify_together([hook.modified for hook in hooks], x, part))


@dataclass(frozen=True, eq=False)
class InputHook:
    """A hook before the module that reads h: its first argument [batch, tokens, d_h]."""

    modified: SiteModification
    read: Read
    reads_module: ClassVar[bool] = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.modified(self.read(args[0]), args[0]), *args[1:])

    @property
    def kind(self) -> Hashable:
        """As `OutputHook.kind`."""
        return self.read.key, self.modified.kind

    @property
    def width(self) -> int:
        """As `OutputHook.width`."""
        return self.modified.padded_width

    @classmethod
    def together(cls, hooks: Sequence[InputHook], source: Source, h: Tensor) -> Tensor:
        """As `OutputHook.together`: the input [texts, tokens, d_h]."""
        x = source(hooks[0].read) if hooks[0].modified.reads_x else h
        return modify_together([hook.modified for hook in hooks], x, h)


@dataclass(frozen=True, eq=False)
class StreamHook:
    """A hook after the module that outputs h, alone or first in a tuple; x is h."""

    modified: SiteModification
    reads_module: ClassVar[bool] = False

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The module's output with h [batch, tokens, hidden] changed."""
        if isinstance(output, tuple):
            return (self.modified(output[0], output[0]), *output[1:])
        return self.modified(output, output)

    @property
    def kind(self) -> Hashable:
        """As `OutputHook.kind`."""
        return self.modified.kind

    @property
    def width(self) -> int:
        """As `OutputHook.width`."""
        return self.modified.padded_width

    @classmethod
    def together(cls, hooks: Sequence[StreamHook], source: Source, h: Tensor) -> Tensor:
        """As `OutputHook.together`."""
        return modify_together([hook.modified for hook in hooks], h, h)
