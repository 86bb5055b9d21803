"""Slices: several configurations on one backbone, each with a slice of the rows of every forward.

Rows are texts [batch, ...], or the tokens of texts one after the other [batch · tokens, d] (OPT's
ffn). The backbone's own computations run once for all rows; at each module that any member
modifies, rows are split, every member's hooks see its own rows alone, and the results are joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix
from peftsearch.backbone.attach.hooks import After, Before, Captured, Undo
from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.sharing.shared_input import MemberInput
from peftsearch.backbone.sharing.shared_module import SharedModule
from peftsearch.backbone.sharing.shares import Owner, Shares
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Dense, Prompt, Sparse

__all__ = ["Member", "Slices", "why_not_shared"]


class Slices(Shares):
    """The owners of rows, and the hooks at every module that any of them modifies; a backbone has
    at most one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared: dict[nn.Module, SharedModule] = {}

    def member(self) -> Member:
        """The hooks of one more configuration, to attach it with."""
        return Member(slices=self)

    def at(self, module: nn.Module) -> SharedModule:
        """The hooks of all members at a module, which are installed with the first one."""
        if module not in self._shared:
            self._shared[module] = SharedModule(self, module)
        return self._shared[module]

    def drop_unused(self, module: nn.Module) -> None:
        """Take the shared hooks off a module at which no member has anything left."""
        shared = self._shared[module]
        if not shared.is_used:
            shared.remove()
            del self._shared[module]


@dataclass(eq=False, kw_only=True)
class Member(Owner):
    """One configuration's `Hooks`: they act on its own rows alone."""

    slices: Slices

    def before(self, module: nn.Module, hook: Before) -> Undo:
        """As `Hooks.before`, on this member's rows."""
        shared = self.slices.at(module)
        return self._entered(shared, shared.before, hook)

    def after(self, module: nn.Module, hook: After) -> Undo:
        """As `Hooks.after`, on this member's rows."""
        shared = self.slices.at(module)
        return self._entered(shared, shared.after, hook)

    def _entered(self, shared: SharedModule, hooks: dict[Owner, list[Any]], hook: Any) -> Undo:
        own = hooks.setdefault(self, [])
        own.append(hook)
        shared.changed()

        def undo() -> None:
            own.remove(hook)
            shared.changed()
            if not own:
                hooks.pop(self, None)
                self.slices.drop_unused(shared.module)

        return undo

    def capture(self, module: nn.Module) -> tuple[Captured, Undo]:
        """As `Hooks.capture`, of which this member has its own rows."""
        shared = self.slices.at(module)
        shared.input.readers += 1

        def undo() -> None:
            shared.input.readers -= 1
            self.slices.drop_unused(module)

        return MemberInput(shared.input, self), undo

    def substitute(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        """As `Hooks.substitute`, in this member's rows: others keep the module's own."""
        held, shared = self.tensors.setdefault(module, {}), self.slices.at(module)
        if key not in held:  # else another value of it, computed for another forward
            shared.changed()
        held[key] = tensor
        shared.substitute(self)

    def restore(self, module: nn.Module, key: str, own: Tensor) -> None:
        """As `Hooks.restore`; `own` was in the module all along."""
        held = self.tensors.get(module, {})
        if held.pop(key, None) is not None:
            self.slices.at(module).changed()
        if not held and self.tensors.pop(module, None) is not None:
            self.slices.at(module).substituting.discard(self)
            self.slices.drop_unused(module)

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        """As `Hooks.prefix`, for this member's texts."""
        shared = self.slices.at(module)
        shared.prefixes.setdefault(self, []).append(prefix)
        shared.changed()
        attention.share_prefixes(module, shared.attend)

        def undo() -> None:
            shared.changed()
            if shared.prefixes.pop(self, None) is not None:
                self.slices.drop_unused(module)

        return undo

    @property
    def has_texts(self) -> bool:
        """Whether this member has texts in the current forward."""
        return any(owner is self for owner, _ in self.slices.rows)

    @property
    def texts(self) -> slice:
        """This member's texts in the current forward."""
        rows = self.slices.rows
        if len(rows) == 1:
            return slice(None)
        spans = self.slices.spans(sum(count for _, count in rows))
        return next(span for member, span in spans if member is self)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context whose forwards are of this member's texts alone, however many."""
        with self.slices.sharing([(self, 1)]):
            yield


def why_not_shared(backbone: Backbone, configuration: Configuration) -> str | None:
    """The reason why a configuration cannot share a forward with others; None if it can."""
    if not backbone.family.texts_are_independent:
        return f"{backbone.family.name} computes relative positions for all texts at once"
    for modification in configuration.within(backbone.shapes).modifications:
        if isinstance(modification.form, Prompt):
            return "a prompt makes its texts longer than the others'"
        if isinstance(modification.form, Dense | Sparse):
            return "its weights are its own, so nothing would be shared"
    return None
