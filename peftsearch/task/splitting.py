"""Making the splits a user did not give: fixed by a seed, balanced by label, without leaks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from peftsearch.errors import DataError
from peftsearch.task.text import Split

__all__ = ["split_off"]


def split_off(
    split: Split, strata: NDArray[np.int64], share: float, seed: int, name: str = "data"
) -> tuple[Split, Split]:
    """(rest, part): `part` holds about `share` of the examples of each of `strata` (n,), a label's
    say, at least one of each that has more than one distinct text; rarer ones stay in `rest`.

    Equal texts go to one side together, so that none is both trained on and evaluated. `name` is
    what an error calls the data.
    """
    generator = np.random.default_rng(seed)
    taken = [
        row
        for groups in _groups_by_stratum(split, strata).values()
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


def _groups_by_stratum(split: Split, strata: NDArray[np.int64]) -> dict[int, list[list[int]]]:
    """Per stratum, lists of the rows that share one text; such a list counts as its first row's."""
    rows: dict[object, list[int]] = defaultdict(list)
    for index, text in enumerate(_keys(split)):
        rows[text].append(index)
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for members in rows.values():
        groups[int(strata[members[0]])].append(members)
    return groups


def _keys(split: Split) -> Iterable[object]:
    """What makes two examples one text: their inputs, or where those are empty what is written."""
    if isinstance(split.targets, np.ndarray) or any(split.texts):
        return split.inputs()
    return split.targets
