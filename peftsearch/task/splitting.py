"""Making the splits a user did not give: fixed by a seed, balanced by label, without leaks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from peftsearch.errors import DataError
from peftsearch.task.text import Split

__all__ = ["split_off"]


def split_off(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """(rest, part): `part` holds about `share` of each label's examples, at least one each.

    Equal texts go to one side together, so that none is both trained on and evaluated.
    """
    generator = np.random.default_rng(seed)
    taken: list[int] = []
    for groups in _groups_by_label(split).values():
        wanted = max(1, round(share * sum(map(len, groups))))
        if len(groups) < 2:
            raise DataError(
                f"a label has {sum(map(len, groups))} distinct example(s): too few to split off an "
                "evaluation set; give one with --eval"
            )
        count = 0
        for index in generator.permutation(len(groups))[:-1]:
            if count >= wanted:
                break
            taken += groups[index]
            count += len(groups[index])
    chosen = np.zeros(len(split), bool)
    chosen[taken] = True
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def _groups_by_label(split: Split) -> dict[int, list[list[int]]]:
    """Per label, lists of the rows that share one text."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, text in enumerate(split.texts):
        pair = split.pairs[index] if split.pairs else ""
        rows[text, pair].append(index)
    groups: dict[int, list[list[int]]] = defaultdict(list)
    for members in rows.values():
        groups[int(split.labels[members[0]])].append(members)
    return groups
