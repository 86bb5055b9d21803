"""Plans: the parts that the rows of a tensor are split into, and the members computed together.

A plan depends on members, their hooks and the number of their rows alone, so that it serves every
forward of the same kind.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peftsearch.backbone.sharing.shares import Owner, Span

__all__ = ["Group", "Plan", "of_like_width"]

_WIDEST = 2
"""A member is padded to at most this multiple of its width. 32 members with LoRA of ranks 1
to 64, operations a step and member: 268 without padding, 205 with this limit, 189 without a limit;
kilobytes 638, 775, 984.
"""
_NARROW = 16
"""Widths up to this one are padded to one another whatever they are: they cost next to nothing."""


@dataclass
class Group:
    """Owners whose rows are computed together, or one by itself."""

    owners: list[Owner] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    """Indices of the parts that hold their rows, in the order of the owners."""
    rows: list[int] = field(default_factory=list)
    """Rows of each part."""

    def gathered(self, parts: Sequence[Tensor]) -> Tensor:
        """The rows of the group [rows, ...] among all parts: a view where they lie side by side."""
        own = [parts[i] for i in self.parts]
        return own[0] if len(own) == 1 else torch.cat(own)

    def put(self, parts: MutableMapping[int, Tensor] | list[Tensor], own: Tensor) -> None:
        """Replace the rows of the group by `own` [rows, ...]."""
        split = [own] if len(self.parts) == 1 else own.split(self.rows)
        for i, part in zip(self.parts, split, strict=True):
            parts[i] = part


@dataclass
class Plan:
    """Parts of a tensor's rows, in order; those in no group are left alone."""

    sizes: list[int]
    groups: list[Group]

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """The parts of a tensor [rows, ...]."""
        # One split, not a slice a part: a slice's backward writes a whole tensor of zeros. That of
        # a split into one part would write a copy.
        return (rows,) if len(self.sizes) == 1 else rows.split(self.sizes)

    @classmethod
    def of(cls, spans: Iterable[Span], keys: Sequence[Hashable]) -> Plan:
        """`keys`: one for each span, equal where spans are computed together; None: left alone."""
        groups: dict[Hashable, Group] = {}
        sizes: list[int] = []
        last: Hashable = ()
        for (owner, span), key in zip(spans, keys, strict=True):
            rows, group = span.stop - span.start, groups.setdefault(key, Group())
            if sizes and key == last:
                sizes[-1] += rows
                group.rows[-1] += rows
            else:
                group.parts.append(len(sizes))
                group.rows.append(rows)
                sizes.append(rows)
            group.owners.append(owner)
            last = key
        groups.pop(None, None)
        return cls(sizes, list(groups.values()))


def of_like_width(keys: Sequence[Hashable], widths: Sequence[int]) -> list[Hashable]:
    """The keys, made unequal for owners whose widths are so far apart that padding the narrower to
    the wider would cost more than computing them apart.
    """
    classes: dict[tuple[Hashable, int], int] = {}
    widest: dict[Hashable, int] = {}
    for key, width in sorted(zip(keys, widths, strict=True), key=lambda one: -one[1]):
        first = widest.setdefault(key, width)
        if first > max(_NARROW, _WIDEST * width):
            first = widest[key] = width
        classes[key, width] = first
    found = zip(keys, widths, strict=True)
    return [None if key is None else (key, classes[key, width]) for key, width in found]
