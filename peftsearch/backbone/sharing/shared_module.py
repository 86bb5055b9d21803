"""Shared modules: one module that several configurations modify, each in its own rows."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix
from peftsearch.backbone.attach.hooks import After, Before
from peftsearch.backbone.attach.site_modification import modify_together
from peftsearch.backbone.attach.sites import InputHook, OutputHook
from peftsearch.backbone.sharing.shares import Owner, Shares, Span

__all__ = ["SharedModule"]


class SharedModule:
    """One module, the hooks that members have at it, and the hooks on it that run those.

    Members' hooks see [their rows, ...] of its arguments and output, as if they were alone.
    """

    def __init__(self, shares: Shares, module: nn.Module) -> None:
        self.shares, self.module = shares, module
        self.before: dict[Owner, list[Before]] = {}
        self.after: dict[Owner, list[After]] = {}
        self.substituting: set[Owner] = set()
        """Members that replace parameters of the module in their rows."""
        self.prefixes: dict[Owner, list[AttachedPrefix]] = {}
        self._forward: Callable[..., Any] = module.forward
        self._handles = [
            module.register_forward_pre_hook(self._on_input),
            module.register_forward_hook(self._on_output),
        ]

    @property
    def is_used(self) -> bool:
        """Whether any member has something here."""
        return bool(self.before or self.after or self.substituting or self.prefixes)

    def substitute(self, member: Owner) -> None:
        """Use the member's tensors in place of the module's parameters, in the member's rows."""
        if not self.substituting:
            self.module.forward = self._split_forward
        self.substituting.add(member)

    def remove(self) -> None:
        """Take the hooks off and give the module its class's forward back."""
        for handle in self._handles:
            handle.remove()
        self.module.__dict__.pop("forward", None)  # the class's own again
        attention.unshare_prefixes(self.module)

    def _on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Run each member's input hooks on its rows of the first argument [rows, ...]."""
        if not self.before or not args:
            return None

        def own(member: Owner, x: Tensor, _: Tensor) -> Tensor:
            for hook in self.before.get(member, ()):
                changed = hook(module, (x, *args[1:]))
                x = x if changed is None else changed[0]
            return x

        joined = self._split(args[0], args[0], own, self.before)
        return None if joined is args[0] else (joined, *args[1:])

    def _on_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Run each member's output hooks on its rows of the output [rows, ...]."""
        if not self.after or not args:
            return None
        states = output if isinstance(output, Tensor) else output[0]

        def own(member: Owner, h: Tensor, x: Tensor) -> Tensor:
            for hook in self.after.get(member, ()):
                changed = hook(module, (x, *args[1:]), h)
                h = h if changed is None else changed
            return h

        joined = self._split(states, args[0], own, self.after)
        return joined if states is output else (joined, *output[1:])

    def _split_forward(self, *args: Any, **options: Any) -> Tensor:
        """The module's forward of [rows, ...]: a call a stretch, with its member's tensors."""
        substituting = self.substituting.intersection(member for member, _ in self.shares.rows)
        # Called by a member's own hook (Pfeiffer's sum is normed twice), the module has that
        # member's tensors already, and only rows of that member.
        if not substituting or self.shares.someone_runs:
            whole: Tensor = self._forward(*args, **options)
            return whole

        def own(member: Owner | None, x: Tensor, _: Tensor | None = None) -> Tensor:
            result: Tensor = self._forward(x, *args[1:], **options)
            return result

        return self._split(args[0], None, own, substituting, others=own)

    def _split(
        self,
        states: Tensor,
        read: Tensor | None,
        own: Callable[[Owner, Tensor, Any], Tensor],
        who: Container[Owner],
        others: Callable[[None, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """`states` [rows, ...] with the rows of each member in `who` replaced by `own` of them.

        `read`: the module's input [rows, ...], where neighbours whose hooks differ in values alone
        may be computed together. Rows of other members stay, or become `others` of them.
        """
        spans = self.shares.spans(len(states)) if self.shares.rows else []
        if not any(member in who for member, _ in spans):
            return states
        runs = list(self._runs(spans, who, read is not None))
        # One split, not a slice a run: the backward of a slice writes a whole tensor of zeros.
        sizes = [rows.stop - rows.start for _, rows in runs]
        parts = list(states.split(sizes))
        beside = parts if read is states else read.split(sizes) if read is not None else parts
        before = list(parts)
        for i, (members, _) in enumerate(runs):
            if members[0] not in who:
                parts[i] = parts[i] if others is None else others(None, parts[i])
            elif len(members) > 1 and read is not None:
                parts[i] = self._together(members, beside[i], parts[i])
            else:
                with self.shares.running(members[0], self.module):
                    parts[i] = own(members[0], parts[i], beside[i])
        if all(part is one for part, one in zip(parts, before, strict=True)):
            return states  # hooks that only read
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _runs(
        self, spans: Sequence[Span], who: Container[Owner], together: bool
    ) -> Iterator[tuple[list[Owner], slice]]:
        """(members, their rows), with neighbours joined that have nothing here, or, if `together`,
        that have hooks of one kind and equally many rows.
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

    def _kind(self, member: Owner) -> Hashable | None:
        """The kind of a member's one hook here, if it can be computed with others of its kind."""
        hooks = [*self.before.get(member, ()), *self.after.get(member, ())]
        one = hooks[0] if len(hooks) == 1 and not member.tensors.get(self.module) else None
        return one.kind if isinstance(one, InputHook | OutputHook) else None

    def _together(self, members: Sequence[Owner], x: Tensor, h: Tensor) -> Tensor:
        """The new h [rows, ...] of neighbouring members with hooks of one kind, for the input x and
        the output h of all their rows: as [members, rows of each, ...] in one computation.
        """
        hooks = [(*self.before.get(m, ()), *self.after.get(m, ()))[0] for m in members]
        count = len(members)
        beside = [values.reshape(count, -1, *values.shape[1:]) for values in (x, h)]
        return modify_together([hook.modified for hook in hooks], *beside).flatten(0, 1)

    def prefixes_of(self, rows: int) -> list[tuple[slice, list[AttachedPrefix]]]:
        """(rows, their prefixes) for the attention function, neighbours without any joined; empty
        where no member has rows, as in a forward outside `sharing`.
        """
        found: list[tuple[slice, list[AttachedPrefix]]] = []
        for member, span in self.shares.spans(rows) if self.shares.rows else []:
            own = self.prefixes.get(member, [])
            if found and not own and not found[-1][1]:
                found[-1] = (slice(found[-1][0].start, span.stop), [])
            else:
                found.append((span, own))
        return found
