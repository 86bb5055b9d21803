"""Hooks: the changes that a configuration makes to modules, each with a function that undoes it.

Here for one configuration that has the backbone to itself; `sharing/slices.py` has the hooks of
several configurations that share every forward.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix

__all__ = ["DIRECT_HOOKS", "Captured", "Hooks", "Undo"]

Undo = Callable[[], object]
"""Takes a change back."""
Before = Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]
"""(module, its arguments) → other arguments; None leaves them."""
After = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""(module, its arguments, its output) → another output; None leaves it."""


class Captured(Protocol):
    """The input [rows, ...] of a module in the current forward, for hooks that run later in it."""

    @property
    def key(self) -> Hashable:
        """Equal for inputs of the same module."""
        ...

    def own(self) -> Tensor:
        """The rows of the configuration that captured it."""
        ...

    def whole(self) -> Tensor:
        """The rows of all configurations."""
        ...

    def clear(self) -> None:
        """Forget it until the next forward."""
        ...


class Hooks(Protocol):
    """The changes that a configuration can make to a module."""

    def before(self, module: nn.Module, hook: Before) -> Undo:
        """Run `hook` before the module's forward; hooks run in the order they came in."""
        ...

    def after(self, module: nn.Module, hook: After) -> Undo:
        """Run `hook` after the module's forward; hooks run in the order they came in."""
        ...

    def capture(self, module: nn.Module) -> tuple[Captured, Undo]:
        """Keep the module's input of each forward, and how to stop that."""
        ...

    def substitute(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        """Use a tensor of the same shape in place of the module's parameter `key`."""
        ...

    def restore(self, module: nn.Module, key: str, own: Tensor) -> None:
        """Give the module its `own` parameter back, of the same shape."""
        ...

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        """Attend over one more prefix in an attention module."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """A context whose forwards are of this configuration's texts alone."""
        ...

    @property
    def has_texts(self) -> bool:
        """Whether any text of the current forward is this configuration's."""
        ...

    @property
    def texts(self) -> slice:
        """The texts of the current forward that are this configuration's: a slice of the batch."""
        ...


class _DirectInput:
    """An input that is one configuration's."""

    def __init__(self) -> None:
        self._x: list[Tensor] = []

    @property
    def key(self) -> Hashable:
        return self

    def put(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A hook that keeps the module's first argument."""
        self._x = [args[0]]

    def own(self) -> Tensor:
        return self._x[0]

    whole = own

    def clear(self) -> None:
        self._x = []


class _DirectHooks:
    """Hooks of one configuration on modules that nothing else modifies."""

    def before(self, module: nn.Module, hook: Before) -> Undo:
        return module.register_forward_pre_hook(hook).remove

    def after(self, module: nn.Module, hook: After) -> Undo:
        return module.register_forward_hook(hook).remove

    def capture(self, module: nn.Module) -> tuple[Captured, Undo]:
        captured = _DirectInput()
        return captured, self.before(module, captured.put)

    def substitute(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        # Into the dictionary, since nn.Module's own assignment refuses a tensor that is no
        # Parameter, and a computed one has to stay in autograd's graph.
        module._parameters[key] = tensor  # type: ignore[assignment]

    restore = substitute

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        attention.attach_prefix(module, prefix)
        return lambda: attention.detach_prefix(module)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def has_texts(self) -> bool:
        return True

    @property
    def texts(self) -> slice:
        return slice(None)


DIRECT_HOOKS: Hooks = _DirectHooks()
