"""Splitting off validation and test examples: fixed by a seed, balanced by label, without leaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from peftsearch.errors import DataError
from peftsearch.task.split import Split

__all__ = ["VALIDATION", "split_off"]

VALIDATION = ("validation", "validation_matched", "dev", "valid")
"""Usual names of validation splits."""

Rows = NDArray[np.int64]


def split_off(
    split: Split, strata: NDArray[np.int64], share: float, seed: int, name: str = "data"
) -> tuple[Split, Split]:
    """(rest, part): `part` has about `share` of the examples of each stratum (such as a label),
    and at least one of each with more than one distinct text; rarer ones stay in `rest`. `strata`
    is (n,).

    Equal texts go to the same side, so that none is both trained on and evaluated. `name` is the
    data's name in errors.
    """
    generator = np.random.default_rng(seed)
    groups = _Groups.of(split)
    stratum = np.asarray(strata, np.int64)[groups.first_row]
    taken = [
        group
        for of_one in _in_order(stratum)
        for group in _drawn(of_one, groups.sizes, share, generator)
    ]
    if not taken:
        raise DataError(
            f"{name}: no label has enough different texts to split off an evaluation set; "
            "give one with --eval"
        )
    chosen = np.isin(groups.of_row, taken)
    return split.take(np.flatnonzero(~chosen)), split.take(np.flatnonzero(chosen))


def _drawn(groups: Rows, sizes: Rows, share: float, generator: np.random.Generator) -> list[int]:
    """Random groups with about `share` of the rows of all `groups`; never the only group."""
    wanted = max(1, round(share * int(sizes[groups].sum())))
    order = groups[generator.permutation(len(groups))]
    drawn: list[int] = []
    rows = 0
    for group, size in zip(order[:-1].tolist(), sizes[order[:-1]].tolist(), strict=True):
        if rows + size <= wanted:
            drawn.append(group)
            rows += size
    if drawn or len(order) < 2:
        return drawn
    return [int(order[sizes[order].argmin()])]


@dataclass(frozen=True)
class _Groups:
    """Groups of rows with the same text, in order of appearance: `of_row` (n,) is the group of a
    row, `first_row` and `sizes` (groups,) describe a group.
    """

    of_row: Rows
    first_row: Rows
    sizes: Rows

    @classmethod
    def of(cls, split: Split) -> _Groups:
        of_row, texts = pd.factorize(_keys(split))
        first_row = np.full(len(texts), len(split), np.int64)
        np.minimum.at(first_row, of_row, np.arange(len(split)))
        return cls(of_row, first_row, np.bincount(of_row, minlength=len(texts)))


def _in_order(stratum: Rows) -> Iterator[Rows]:
    """The groups of each stratum; strata in order of appearance."""
    codes, names = pd.factorize(stratum)
    for code in range(len(names)):
        yield np.flatnonzero(codes == code)


def _keys(split: Split) -> NDArray[Any]:
    """Keys (n,) by which examples count as the same text: inputs, or targets where all inputs are
    empty.
    """
    if not isinstance(split.targets, np.ndarray) and not any(split.texts):
        return _array(split.targets)
    if split.pairs is None:
        return _array(split.texts)
    first, second = (pd.factorize(_array(column))[0] for column in (split.texts, split.pairs))
    return np.asarray(first * len(split) + second)


def _array(texts: Sequence[str]) -> NDArray[Any]:
    return np.array(texts, dtype=object)
