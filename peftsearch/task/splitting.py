"""Making the splits a user did not give: fixed by a seed, balanced by label, without leaks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from peftsearch.errors import DataError
from peftsearch.task.text import Split

__all__ = ["split_off"]


def split_off(split: Split, share: float, seed: int, name: str = "data") -> tuple[Split, Split]:
    """(rest, part): `part` holds about `share` of each label's examples, at least one of each
    label that has more than one distinct text; rarer labels stay in `rest`.

    Equal texts go to one side together, so that none is both trained on and evaluated. `name` is
    what an error calls the data.
    """
    generator = np.random.default_rng(seed)
    taken = [
        row
        for groups in _groups_by_label(split).values()
        for row in _drawn(groups, share, generator)
    ]
    if not taken:
        raise DataError(
            f"{name}: no label has enough different texts to split off an evaluation set; "
            "give one with --eval"
        )
    chosen = np.zeros(len(split), bool)
    chosen[taken] = True
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def _drawn(groups: list[list[int]], share: float, generator: np.random.Generator) -> list[int]:
    """Rows of random groups, about `share` of all rows; never the only group."""
    wanted = max(1, round(share * sum(map(len, groups))))
    order = [groups[i] for i in generator.permutation(len(groups))]
    drawn: list[int] = []
    for group in order[:-1]:
        if len(drawn) + len(group) <= wanted:
            drawn += group
    return drawn or (min(order, key=len) if len(order) > 1 else [])


def _groups_by_label(split: Split) -> dict[int, list[list[int]]]:
    """Per label, lists of the rows that share one text; such a list counts as its first label's."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, text in enumerate(split.inputs()):
        rows[text].append(index)
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for members in rows.values():
        groups[int(split.labels[members[0]])].append(members)
    return groups
