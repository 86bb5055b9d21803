"""Several configurations on one backbone: each owns a slice of the rows of every forward.

Rows are texts, or the tokens of texts one after the other (OPT's ffn). What the backbone computes
is computed for all rows at once; at each module that any member modifies the rows are split, every
member's own hooks see its own rows alone, and what they give is joined again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone import attention
from peftsearch.backbone.attention import AttachedPrefix
from peftsearch.backbone.hooks import After, Before, Undo
from peftsearch.backbone.load import Backbone
from peftsearch.backbone.modified import modified_together
from peftsearch.backbone.sites import OnInput, OnOutput
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Dense, Prompt, Sparse

__all__ = ["Member", "Slices", "why_alone"]


class Slices:
    """Which rows belong to whom in the forwards of a `with` block; a backbone has at most one."""

    def __init__(self) -> None:
        self.rows: list[tuple[Member, int]] = []
        self._total = 0
        self._running: Member | None = None
        self._shared: dict[nn.Module, _Shared] = {}

    def member(self) -> Member:
        """A place for one more configuration, to attach it with."""
        return Member(self)

    @contextmanager
    def sharing(self, rows: Sequence[tuple[Member, int]]) -> Iterator[None]:
        """Forwards (and their backwards) of so many texts of each member, in this order."""
        before = self.rows, self._total
        self.rows, self._total = list(rows), sum(count for _, count in rows)
        try:
            yield
        finally:
            self.rows, self._total = before

    @contextmanager
    def running(self, member: Member, module: nn.Module) -> Iterator[None]:
        """A member's own code runs: its tensors stand in the module's places."""
        own = dict(module._parameters)
        module._parameters.update(member.tensors.get(module, {}))  # type: ignore[arg-type]
        before, self._running = self._running, member
        try:
            yield
        finally:
            self._running = before
            module._parameters.update(own)

    @property
    def someone_runs(self) -> bool:
        return self._running is not None

    def spans(self, rows: int) -> list[tuple[Member, slice]]:
        """Whose are which of a tensor's rows: as many as texts, or so many times as many."""
        if len(self.rows) == 1:
            return [(self.rows[0][0], slice(0, rows))]
        if not self._total or rows % self._total:
            raise ValueError(f"{rows} rows cannot be shared among {self._total} texts")
        times, found, start = rows // self._total, [], 0
        for member, count in self.rows:
            found.append((member, slice(start, start + count * times)))
            start += count * times
        return found

    def at(self, module: nn.Module) -> _Shared:
        """What members have at a module; its hooks are put in place with the first."""
        if module not in self._shared:
            self._shared[module] = _Shared(self, module)
        return self._shared[module]

    def drop_unused(self, module: nn.Module) -> None:
        shared = self._shared[module]
        if not shared.is_used:
            shared.remove()
            del self._shared[module]


@dataclass(eq=False)
class Member:
    """One configuration's `Hooks`: they act on its own rows alone."""

    slices: Slices
    tensors: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)
    """What stands in the place of modules' own tensors, in this member's rows."""

    def before(self, module: nn.Module, hook: Before) -> Undo:
        return self._entered(module, self.slices.at(module).before, hook)

    def after(self, module: nn.Module, hook: After) -> Undo:
        return self._entered(module, self.slices.at(module).after, hook)

    def _entered(self, module: nn.Module, hooks: dict[Member, list[Any]], hook: Any) -> Undo:
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

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self.slices.sharing([(self, 1)]):
            yield


Span = tuple[Member, slice]
"""A member and its rows."""


class _Shared:
    """One module with what members have at it, and the hooks that give each its rows."""

    def __init__(self, slices: Slices, module: nn.Module) -> None:
        self.slices, self.module = slices, module
        self.before: dict[Member, list[Before]] = {}
        self.after: dict[Member, list[After]] = {}
        self.stands_in: set[Member] = set()
        self.prefixes: dict[Member, list[AttachedPrefix]] = {}
        self._forward: Callable[..., Any] = module.forward
        self._handles = [
            module.register_forward_pre_hook(self._on_input),
            module.register_forward_hook(self._on_output),
        ]

    @property
    def is_used(self) -> bool:
        return bool(self.before or self.after or self.stands_in or self.prefixes)

    def stand_in(self, member: Member) -> None:
        """Have the member's tensors stand in the module's places, in its rows."""
        if not self.stands_in:
            self.module.forward = self._computed
        self.stands_in.add(member)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.module.__dict__.pop("forward", None)  # the class's own again
        attention.share_no_prefixes(self.module)

    def _on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.before or not args:
            return None

        def own(member: Member, rows: slice) -> Tensor:
            x: Tensor = args[0][rows]
            for hook in self.before.get(member, ()):
                changed = hook(module, (x, *args[1:]))
                x = x if changed is None else changed[0]
            return x

        joined = self._split(args[0], own, self.before, args[0])
        return None if joined is args[0] else (joined, *args[1:])

    def _on_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not self.after or not args:
            return None
        states = output if isinstance(output, Tensor) else output[0]

        def own(member: Member, rows: slice) -> Tensor:
            h: Tensor = states[rows]
            given = (args[0][rows], *args[1:])
            for hook in self.after.get(member, ()):
                changed = hook(module, given, h)
                h = h if changed is None else changed
            return h

        joined = self._split(states, own, self.after, args[0])
        return joined if states is output else (joined, *output[1:])

    def _computed(self, *args: Any, **options: Any) -> Tensor:
        """The module's output, with a member's own tensors for its rows."""
        standing = self.stands_in.intersection(member for member, _ in self.slices.rows)
        if not standing or self.slices.someone_runs:
            whole: Tensor = self._forward(*args, **options)
            return whole

        def own(member: Member | None, rows: slice) -> Tensor:
            result: Tensor = self._forward(args[0][rows], *args[1:], **options)
            return result

        return self._split(args[0], own, standing, None, others=own)

    def _split(
        self,
        states: Tensor,
        own: Callable[[Member, slice], Tensor],
        who: Container[Member],
        read: Tensor | None,
        others: Callable[[None, slice], Tensor] | None = None,
    ) -> Tensor:
        """`states` with what `own` gives for the rows of each member in `who`, or of several alike
        at once that `read`; the others' rows as they are, or as `others` gives them.
        """
        spans = self.slices.spans(len(states)) if self.slices.rows else []
        if not any(member in who for member, _ in spans):
            return states
        parts: list[Tensor] = []
        for members, rows in self._runs(spans, who, read is not None):
            if members[0] not in who:
                parts.append(states[rows] if others is None else others(None, rows))
            elif len(members) > 1 and read is not None:
                parts.append(self._alike(members, read[rows], states[rows]))
            else:
                with self.slices.running(members[0], self.module):
                    parts.append(own(members[0], rows))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _runs(
        self, spans: Sequence[Span], who: Container[Member], together: bool
    ) -> Iterator[tuple[list[Member], slice]]:
        """Neighbours as one where none has anything here, or where all have the same with other
        numbers and as many rows.
        """

        def key(span: Span) -> Hashable:
            member, rows = span
            if member not in who:
                return ()
            kind = self._kind(member) if together else None
            return member if kind is None else (kind, rows.stop - rows.start)

        for _, run in groupby(spans, key):
            found = list(run)
            yield [member for member, _ in found], slice(found[0][1].start, found[-1][1].stop)

    def _kind(self, member: Member) -> Hashable | None:
        """What is computed for a member here, if it is one thing that can be for several."""
        hooks = [*self.before.get(member, ()), *self.after.get(member, ())]
        one = hooks[0] if len(hooks) == 1 and module_is_own(member, self.module) else None
        return one.kind if isinstance(one, OnInput | OnOutput) else None

    def _alike(self, members: Sequence[Member], x: Tensor, h: Tensor) -> Tensor:
        """Of members that have the same here: computed side by side."""
        hooks = [(*self.before.get(m, ()), *self.after.get(m, ()))[0] for m in members]
        count = len(members)
        beside = [values.reshape(count, -1, *values.shape[1:]) for values in (x, h)]
        return modified_together([hook.modified for hook in hooks], *beside).flatten(0, 1)

    def prefixes_of(self, rows: int) -> list[tuple[slice, list[AttachedPrefix]]]:
        """For the attention function: which rows have which prefixes, neighbours without any as
        one; empty where no member has rows.
        """
        found: list[tuple[slice, list[AttachedPrefix]]] = []
        for member, span in self.slices.spans(rows) if self.slices.rows else []:
            own = self.prefixes.get(member, [])
            if found and not own and not found[-1][1]:
                found[-1] = (slice(found[-1][0].start, span.stop), [])
            else:
                found.append((span, own))
        return found


def module_is_own(member: Member, module: nn.Module) -> bool:
    """Whether a member has the module's own tensors there."""
    return not member.tensors.get(module)


def why_alone(backbone: Backbone, configuration: Configuration) -> str | None:
    """Why a configuration cannot share a forward; None if it can."""
    if not backbone.family.texts_apart:
        return f"{backbone.family.name} computes relative positions for all texts at once"
    for modification in configuration.within(backbone.shapes).modifications:
        if isinstance(modification.form, Prompt):
            return "a prompt makes its texts longer than the others'"
        if isinstance(modification.form, Dense | Sparse):
            return "its weights are its own, so nothing would be shared"
    return None
