"""How many share a pass: doubled while each costs less, within the memory there is."""

from __future__ import annotations

import pytest
import torch

from peftsearch.training.cohort.size import CohortSize, Memory

GB = 10**9


def grown(size: CohortSize, pass_s: dict[int, float], memory: dict[int, Memory]) -> list[int]:
    """The sizes that it goes through when passes take so long."""
    sizes = [size.size]
    while not size.is_settled:
        size.measured(size.size, pass_s[size.size], memory.get(size.size))
        sizes.append(size.size)
    return sizes


def test_it_doubles_while_a_member_gets_cheaper_and_goes_back_when_none_does() -> None:
    """A host-bound device, until passes of 8 keep it busy: 16 cost twice as much as 8."""
    pass_s = {1: 1.0, 2: 1.05, 4: 1.2, 8: 1.6, 16: 3.2}
    assert grown(CohortSize(64), pass_s, {}) == [1, 2, 4, 8, 16, 8]


def test_where_one_keeps_the_device_busy_it_stays_at_one() -> None:
    assert grown(CohortSize(64), {1: 1.0, 2: 1.95}, {}) == [1, 2, 1]


def test_it_ends_at_the_most_that_is_allowed() -> None:
    assert grown(CohortSize(4), {1: 1.0, 2: 1.0, 4: 1.0}, {}) == [1, 2, 4]


def test_it_stops_before_the_memory_does() -> None:
    """1 GB before, 2 GB a member, 16 GB in all: 8 members would need 17."""
    memory = {n: Memory(GB, GB + 2 * n * GB, 16 * GB) for n in (1, 2, 4, 8)}
    assert grown(CohortSize(64), {1: 1.0, 2: 1.0, 4: 1.0}, memory) == [1, 2, 4, 4]


def test_passes_of_fewer_members_say_nothing() -> None:
    size = CohortSize(64)
    size.measured(1, 1.0, None)
    size.measured(1, 5.0, None)
    assert (size.size, size.is_settled) == (2, False)


def test_what_did_not_fit_is_not_tried_again() -> None:
    size = CohortSize(64, 8)
    size.shrink(4)
    assert (size.size, size.is_settled) == (4, True)


@pytest.mark.parametrize(
    ("asked", "device", "most", "begins"),
    [(None, "cpu", 1, 1), (None, "cuda", 64, 1), (5, "cpu", 5, 5), (1, "cuda", 1, 1)],
)
def test_a_number_is_kept_and_without_one_a_gpu_is_measured(
    asked: int | None, device: str, most: int, begins: int
) -> None:
    size = CohortSize.of(asked, torch.device(device))
    assert (size.most, size.size) == (most, begins)
