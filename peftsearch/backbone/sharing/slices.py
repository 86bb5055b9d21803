"""Several configurations on one backbone: each owns a slice of the rows of every forward.

Rows are texts, or the tokens of texts one after the other (OPT's ffn). What the backbone computes
is computed for all rows at once; at each module that any member modifies the rows are split, every
member's own hooks see its own rows alone, and what they give is joined again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix
from peftsearch.backbone.attach.hooks import After, Before, Undo
from peftsearch.backbone.loading.load import Backbone
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
        """What members have at a module; its hooks are put in place with the first."""
        if module not in self._shared:
            self._shared[module] = SharedModule(self, module)
        return self._shared[module]

    def drop_unused(self, module: nn.Module) -> None:
        shared = self._shared[module]
        if not shared.is_used:
            shared.remove()
            del self._shared[module]


@dataclass(eq=False, kw_only=True)
class Member(Owner):
    """One configuration's `Hooks`: they act on its own rows alone."""

    slices: Slices

    def before(self, module: nn.Module, hook: Before) -> Undo:
        return self._entered(module, self.slices.at(module).before, hook)

    def after(self, module: nn.Module, hook: After) -> Undo:
        return self._entered(module, self.slices.at(module).after, hook)

    def _entered(self, module: nn.Module, hooks: dict[Owner, list[Any]], hook: Any) -> Undo:
        own = hooks.setdefault(self, [])
        own.append(hook)

        def undo() -> None:
            own.remove(hook)
            if not own:
                hooks.pop(self, None)
                self.slices.drop_unused(module)

        return undo

    def put(self, module: nn.Module, key: str, tensor: Tensor) -> None:
        self.tensors.setdefault(module, {})[key] = tensor
        self.slices.at(module).stand_in(self)

    def take_back(self, module: nn.Module, key: str, own: Tensor) -> None:
        held = self.tensors.get(module, {})
        held.pop(key, None)
        if not held and self.tensors.pop(module, None) is not None:
            self.slices.at(module).stands_in.discard(self)
            self.slices.drop_unused(module)

    def prefix(self, module: nn.Module, prefix: AttachedPrefix) -> Undo:
        shared = self.slices.at(module)
        shared.prefixes.setdefault(self, []).append(prefix)
        attention.share_prefixes(module, shared.prefixes_of)

        def undo() -> None:
            if shared.prefixes.pop(self, None) is not None:
                self.slices.drop_unused(module)

        return undo

    @property
    def texts(self) -> slice:
        rows = self.slices.rows
        if len(rows) == 1:
            return slice(None)
        spans = self.slices.spans(sum(count for _, count in rows))
        return next(span for member, span in spans if member is self)

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self.slices.sharing([(self, 1)]):
            yield


def why_not_shared(backbone: Backbone, configuration: Configuration) -> str | None:
    """Why a configuration cannot share a forward; None if it can."""
    if not backbone.family.texts_are_independent:
        return f"{backbone.family.name} computes relative positions for all texts at once"
    for modification in configuration.within(backbone.shapes).modifications:
        if isinstance(modification.form, Prompt):
            return "a prompt makes its texts longer than the others'"
        if isinstance(modification.form, Dense | Sparse):
            return "its weights are its own, so nothing would be shared"
    return None
