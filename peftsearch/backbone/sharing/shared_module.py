"""Shared modules: one module that several configurations modify, each in its own rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attention import AttachedPrefix, Inputs, prefix_of_all
from peftsearch.backbone.attach.hooks import After, Before
from peftsearch.backbone.attach.site_hooks import InputHook, OutputHook, Read, StreamHook
from peftsearch.backbone.sharing.added_bias import AddedBias, can_add
from peftsearch.backbone.sharing.plan import Group, Plan, of_like_width
from peftsearch.backbone.sharing.shared_input import SharedInput
from peftsearch.backbone.sharing.shares import Owner, Shares, Span

__all__ = ["SharedModule"]

_TOGETHER = (InputHook, OutputHook, StreamHook, AddedBias, AttachedPrefix)
"""Hooks that can be computed for several members at once."""
_MAX_PLANS = 64
"""Plans to remember, one for each number of rows of each member."""
Chain = Sequence[Any]
"""A member's hooks before or after the module, in the order in which they run."""


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
        self.input = SharedInput(shares)
        self._forward: Callable[..., Any] = module.forward
        self._plans: dict[Hashable, Plan] = {}
        self._handles = [
            module.register_forward_pre_hook(self._on_input),
            module.register_forward_hook(self._on_output),
        ]

    @property
    def is_used(self) -> bool:
        """Whether any member has something here."""
        hooks = self.before or self.after or self.substituting or self.prefixes
        return bool(hooks or self.input.readers)

    def changed(self) -> None:
        """Forget all plans: the hooks of a member have changed."""
        self._plans.clear()

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

    # -- forward -------------------------------------------------------------------------------

    def _on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Run each member's input hooks on its rows of the first argument [rows, ...]."""
        if not args or not self.shares.rows:
            return None
        if self.input.readers:
            self.input.put(args[0])

        def run(hook: Before, x: Tensor, _: Tensor) -> Tensor:
            changed = hook(module, (x, *args[1:]))
            return x if changed is None else changed[0]

        joined = self._modified(self._inputs, run, args[0], args[0])
        return None if joined is args[0] else (joined, *args[1:])

    def _on_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Run each member's output hooks on its rows of the output [rows, ...]."""
        if not args or not self.shares.rows:
            return None
        states = output if isinstance(output, Tensor) else output[0]

        def run(hook: After, h: Tensor, x: Tensor) -> Tensor:
            changed = hook(module, (x, *args[1:]), h)
            return h if changed is None else changed

        joined = self._modified(self._outputs, run, states, args[0])
        return joined if states is output else (joined, *output[1:])

    def _split_forward(self, *args: Any, **options: Any) -> Tensor:
        """The module's forward of [rows, ...]: a call for each member that replaces more than can
        be added to the output afterwards, and one for each stretch of others.
        """
        # Called by a member's own hook (Pfeiffer's sum is normed twice), the module has that
        # member's tensors already, and only rows of that member.
        plan = None if self.shares.someone_runs else self._plan(self._replacing, len(args[0]))
        if plan is None or not plan.groups:
            whole: Tensor = self._forward(*args, **options)
            return whole
        parts = list(plan.split(args[0]))
        owners = {i: group.owners[0] for group in plan.groups for i in group.parts}
        for i, part in enumerate(parts):
            owner = owners.get(i)
            with self.shares.running(owner, self.module) if owner else nullcontext():
                parts[i] = self._forward(part, *args[1:], **options)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _modified(
        self,
        chains: Callable[[Owner], Chain],
        run: Callable[[Any, Tensor, Tensor], Tensor],
        states: Tensor,
        x: Tensor,
    ) -> Tensor:
        """`states` [rows, ...], with the rows of each member changed by the hooks of its chain.

        x: the module's input [rows, ...]. `run` calls one hook on rows of both.
        """
        plan = self._plan(chains, len(states))
        if not plan.groups:
            return states
        before = plan.split(states)
        parts, sources = list(before), _Sources(x, plan)
        for group in plan.groups:
            if len(group.owners) == 1:
                self._alone(group, chains, run, parts, sources)
            else:
                self._together(group, chains, parts, sources)
        if all(part is one for part, one in zip(parts, before, strict=True)):
            return states  # hooks that only read
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _alone(
        self,
        group: Group,
        chains: Callable[[Owner], Chain],
        run: Callable[[Any, Tensor, Tensor], Tensor],
        parts: list[Tensor],
        sources: _Sources,
    ) -> None:
        """Run one member's hooks on its part."""
        (member,), (i,) = group.owners, group.parts
        h, x, chain = parts[i], sources.own_inputs[i], chains(member)
        with self.shares.running(member, self.module):
            for hook in chain:
                h = run(hook, h, x)
        parts[i] = h

    def _together(
        self,
        group: Group,
        chains: Callable[[Owner], Chain],
        parts: list[Tensor],
        sources: _Sources,
    ) -> None:
        """Run hooks of one kind for all their members at once, one after the other."""
        h = group.gathered(parts)
        for hooks in zip(*map(chains, group.owners), strict=True):
            h = hooks[0].together(hooks, sources.of(group), h)
        group.put(parts, h)

    def attend(self, inputs: Inputs) -> Tensor:
        """The heads' output of all texts, each with its member's prefixes."""
        plan = self._plan(self._prefixes, len(inputs.query))
        if not plan.groups:
            return inputs.attend([])
        split = inputs.split(plan.sizes)
        parts: dict[int, Tensor] = {}
        for group in plan.groups:
            own = Inputs.joined([split[i] for i in group.parts])
            texts = len(own.query)
            prefixes = zip(*map(self._prefixes, group.owners), strict=True)
            group.put(parts, own.attend([prefix_of_all(one, texts) for one in prefixes]))
        heads = [parts[i] if i in parts else one.attend([]) for i, one in enumerate(split)]
        return heads[0] if len(heads) == 1 else torch.cat(heads)

    # -- plans ---------------------------------------------------------------------------------

    def _inputs(self, member: Owner) -> Chain:
        return self.before.get(member, ())

    def _outputs(self, member: Owner) -> Chain:
        after = self.after.get(member, ())
        if not self._adds(member):
            return after
        frozen = self.module._parameters["bias"]
        assert frozen is not None
        return AddedBias(frozen, member.tensors[self.module]), *after

    def _prefixes(self, member: Owner) -> Chain:
        return self.prefixes.get(member, ())

    def _replacing(self, member: Owner) -> Chain:
        """The parameters that a member replaces, if that is more than an added bias: such members
        are computed one by one.
        """
        replaces = member in self.substituting and not self._adds(member)
        return (member.tensors[self.module],) if replaces else ()

    def _adds(self, member: Owner) -> bool:
        """Whether what the member replaces is added to the output, which others share; alone, it
        is computed with its own tensors.
        """
        own = member.tensors.get(self.module)
        return bool(own) and len(self.shares.rows) > 1 and can_add(self.module, own or ())

    def _plan(self, chains: Callable[[Owner], Chain], rows: int) -> Plan:
        key = chains.__name__, rows, *self.shares.rows
        if key not in self._plans:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            spans = self.shares.spans(rows) if self.shares.rows else []
            own = [chains(member) for member, _ in spans]
            keys = [self._key(*one) for one in zip(spans, own, strict=True)]
            self._plans[key] = Plan.of(spans, of_like_width(keys, list(map(_width, own))))
        return self._plans[key]

    def _key(self, span: Span, chain: Chain) -> Hashable:
        """Equal for members whose hooks are computed together; None for one without any."""
        member, rows = span
        if not chain:
            return None
        alike = all(isinstance(hook, _TOGETHER) and hook.kind is not None for hook in chain)
        # A hook that reads parameters of the module must find those of its own member.
        if alike and member.tensors.get(self.module):
            alike = not any(hook.reads_module for hook in chain)
        return (rows.stop - rows.start, *(hook.kind for hook in chain)) if alike else member


def _width(chain: Chain) -> int:
    """The width that may be padded to compute a chain beside others; 0 where none may."""
    return max((hook.width or 0 for hook in chain if isinstance(hook, _TOGETHER)), default=0)


@dataclass
class _Sources:
    """x of the hooks at a module [rows, ...], in the parts of a plan."""

    x: Tensor
    """The module's own input."""
    plan: Plan

    def __post_init__(self) -> None:
        self._split: dict[Hashable, Sequence[Tensor]] = {}

    @property
    def own_inputs(self) -> Sequence[Tensor]:
        """The parts of the module's own input."""
        return self._parts(None, lambda: self.x)

    def of(self, group: Group) -> Callable[[Read], Tensor]:
        """A function that reads x [rows, ...] of a group's rows."""
        return lambda read: group.gathered(self._parts(read.key, lambda: read.of_all(self.x)))

    def _parts(self, key: Hashable, whole: Callable[[], Tensor]) -> Sequence[Tensor]:
        if key not in self._split:
            self._split[key] = self.plan.split(whole())
        return self._split[key]
