"""How a configuration takes hold of the backbone's modules: straight, when it has it for itself.

`slices.py` has the other way, where several configurations share every forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix

__all__ = ["DIRECT_HOOKS", "Hooks", "Undo"]

Undo = Callable[[], object]
Before = Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]
"""(module, its arguments) → other arguments; None leaves them."""
After = Callable[[nn.Module, tuple[Any, ...], Any], Any]
"""(module, its arguments, its output) → another output; None leaves it."""


class Hooks(Protocol):
    """Every change that a configuration makes to a module, and the way back."""

    def before(self, module: nn.Module, hook: Before) -> Undo: ...

    def after(self, module: nn.Module, hook: After) -> Undo: ...

    def put(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        """Have a tensor stand in the place of a module's own, or of one that was put before."""
        ...

    def take_back(self, module: nn.Module, key: str, own: Tensor) -> None:
        """The module's own again."""
        ...

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        """A prefix in an attention module."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Forwards of this context are of this configuration alone."""
        ...

    @property
    def texts(self) -> slice:
        """Which texts of the forward under way are this configuration's."""
        ...


class _DirectHooks:
    """Hooks of one configuration on modules that nothing else modifies."""

    def before(self, module: nn.Module, hook: Before) -> Undo:
        return module.register_forward_pre_hook(hook).remove

    def after(self, module: nn.Module, hook: After) -> Undo:
        return module.register_forward_hook(hook).remove

    def put(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        module._parameters[key] = tensor  # type: ignore[assignment]

    take_back = put

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        attention.attach_prefix(module, prefix)
        return lambda: attention.detach_prefix(module)

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def texts(self) -> slice:
        return slice(None)


DIRECT_HOOKS: Hooks = _DirectHooks()
