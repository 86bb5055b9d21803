"""A space on one backbone: the supported structures, and the head trained with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from peftsearch.design.configuration import Head
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.space.file.schema import HeadChoices, SpaceFile
from peftsearch.space.file.values import Values
from peftsearch.space.structures.rules import Rule
from peftsearch.space.structures.slots import PlacedSlot, Slot
from peftsearch.space.structures.tree import StructureTree, trees_by_depth

__all__ = ["PlacedSpace", "place_space"]


@dataclass(frozen=True, eq=False)
class PlacedSpace:
    """A space as one backbone sees it: only structures that it has, each once.

    A sampler's choices depend on the space and the backbone alone. `decode` turns a trial into a
    configuration of it, `encode` a configuration into the parameters of a trial.

    >>> placed = load_space("lora-only").on(load_shapes("config:bert-base"))
    >>> placed.count_structures() == sum(tree.count() for tree in placed.by_depth.values())
    True
    """

    name: str
    file: SpaceFile
    """The space file, its head as this backbone can have it."""
    shapes: BackboneShapes
    slots: tuple[PlacedSlot, ...]
    rules: tuple[Rule, ...]

    @cached_property
    def tree(self) -> StructureTree[PlacedSlot]:
        """Every structure, of any depth."""
        return StructureTree(self.slots, self.rules, shares=self.file.modifications)

    @cached_property
    def by_depth(self) -> dict[str, StructureTree[PlacedSlot]]:
        """The structures of each depth, widest first."""
        depths = tuple(map(str, self.file.depth.choices))
        return trees_by_depth(self.tree, depths, self.shapes)

    def count_structures(self) -> int:
        """Number of distinct structures of all depths; widths, rates and head are not counted."""
        return sum(tree.count() for tree in self.by_depth.values())

    def head_only(self, wanted: Head) -> Head:
        """A head to be trained with nothing else, as this backbone and task can have it."""
        if "none" in self.file.head.pooling.choices:
            return Head("none")
        return Head(
            _pooling_on(wanted.pooling, self.shapes),  # type: ignore[arg-type]
            wanted.pooler,
            wanted.pooler_counts,
        )


def place_space(
    name: str, file: SpaceFile, tree: StructureTree[Slot], shapes: BackboneShapes
) -> PlacedSpace:
    """A space file and its structures on a backbone. ConfigurationError if it can take none."""
    placed = PlacedSpace(
        name=name,
        file=file.model_copy(update={"head": _head_on(file.head, shapes)}),
        shapes=shapes,
        slots=tuple(slot.on(shapes) for slot in tree.slots),
        rules=tree.rules,
    )
    if placed.count_structures() == 0:
        raise ConfigurationError(
            f"{shapes.family} supports no configuration of space '{name}' "
            f"('peftsearch check {name} --model ...' says why)"
        )
    return placed


def _head_on(head: HeadChoices, shapes: BackboneShapes) -> HeadChoices:
    names = dict.fromkeys(_pooling_on(str(name), shapes) for name in head.pooling.choices)
    return head.model_copy(update={"pooling": Values(tuple(names))})


def _pooling_on(pooling: str, shapes: BackboneShapes) -> str:
    # A decoder's first token has seen no other: its last one is the one that has seen them all.
    return "last" if pooling == "first" and shapes.is_causal else pooling
