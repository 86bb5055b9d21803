"""Coverage: how much of a space a backbone supports, and why not the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.space.placed import PlacedSpace
from peftsearch.space.space import Space
from peftsearch.space.structures.slots import PlacedSlot
from peftsearch.wording import counted

__all__ = ["Coverage", "coverage_of"]


@dataclass(frozen=True)
class Coverage:
    """One space on one backbone."""

    structures: int
    """Distinct structures on the backbone, at any depth."""
    of: int
    """Distinct structures of the space file."""
    slots: tuple[str, ...]
    """`attn: 120 of 138 choices`."""
    depths: tuple[str, ...]
    """`within upper_half: 1,204 structures`; none in a space without a choice of depth."""
    reasons: tuple[str, ...]
    """`heads: 97 × prefix …`, most frequent first: what is left out, and why."""


def coverage_of(space: Space, shapes: BackboneShapes) -> Coverage:
    """Counts and reasons. `structures` is 0 where the backbone can take nothing of the space.

    >>> coverage = coverage_of(load_space("autopeft"), load_shapes("config:deberta-v3-base"))
    >>> [reason[:20] for reason in coverage.reasons]
    ['prefix: 4 left out: ']
    """
    try:
        placed = space.on(shapes)
    except ConfigurationError:
        slots = [slot.on(shapes) for slot in space.slots]
        return Coverage(0, space.tree.count(), (), (), _reasons(slots, shapes))
    return Coverage(
        structures=placed.tree.count(),
        of=space.tree.count(),
        slots=tuple(
            f"{slot.name}: {len(here.structures)} of {counted(len(slot.structures), 'choice')}"
            for slot, here in zip(space.slots, placed.slots, strict=True)
        ),
        depths=() if space.file.depth.is_fixed else _depths(placed),
        reasons=_reasons(placed.slots, shapes),
    )


def _depths(placed: PlacedSpace) -> tuple[str, ...]:
    return tuple(
        f"within {depth}: {counted(tree.count(), 'structure')}"
        for depth, tree in placed.by_depth.items()
    )


def _reasons(slots: Iterable[PlacedSlot], shapes: BackboneShapes) -> tuple[str, ...]:
    """The reasons of all slots, each with its slot's name."""
    return tuple(f"{slot.name}: {reason}" for slot in slots for reason in _of_slot(slot, shapes))


def _of_slot(slot: PlacedSlot, shapes: BackboneShapes) -> list[str]:
    """Reasons, most frequent first, with the number of structures that each leaves out; duplicates
    come last, as one line.
    """
    counts: Counter[str] = Counter()
    for reason in slot.left_out.values():
        counts[reason] += 1
    repeated = [r for r in counts if r.startswith(f"in {shapes.family} the same as")]
    others = sorted(counts.keys() - set(repeated), key=lambda r: -counts[r])
    lines = [f"{counts[reason]} left out: {reason}" for reason in others]
    if repeated:
        total = sum(counts[r] for r in repeated)
        lines.append(f"{total} left out: in {shapes.family} the same as others that are offered")
    return lines
