"""Shares: rows belong to owners in order, and an owner's tensors are in place while it runs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from peftsearch.backbone.sharing.shares import Owner, Shares


@given(counts=st.lists(st.integers(1, 5), min_size=2, max_size=6), times=st.integers(1, 4))
def test_rows_are_dealt_out_in_order_and_none_twice(counts: list[int], times: int) -> None:
    shares, owners = Shares(), [Owner() for _ in counts]
    dealt = [owner for owner, count in zip(owners, counts, strict=True) for _ in range(count)]
    expected = [owner for owner in dealt for _ in range(times)]
    with shares.sharing(list(zip(owners, counts, strict=True))):
        spans = shares.spans(len(expected))
    assert [owner for owner, span in spans for _ in range(span.start, span.stop)] == expected
    assert [span.start for _, span in spans[1:]] == [span.stop for _, span in spans[:-1]]


def test_rows_that_no_number_of_texts_divides_are_refused() -> None:
    shares = Shares()
    two = [(Owner(), 2), (Owner(), 1)]
    with shares.sharing(two), pytest.raises(ValueError, match="4 rows cannot be shared among 3"):
        shares.spans(4)
    with pytest.raises(ValueError, match="among 0 texts"):
        shares.spans(3)


def test_one_owner_has_all_rows() -> None:
    shares, owner = Shares(), Owner()
    with shares.sharing([(owner, 1)]):
        assert shares.spans(7) == [(owner, slice(0, 7))]


def test_tensors_are_in_place_while_their_owner_runs_and_gone_after_an_error() -> None:
    module = nn.Linear(2, 2)
    frozen, tuned = module.bias, nn.Parameter(torch.ones(2))
    shares, owner = Shares(), Owner({module: {"bias": tuned}})
    seen: list[tuple[object, bool]] = []

    def run() -> None:
        with shares.running(owner, module):
            seen.append((module.bias, shares.someone_runs))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    ((inside, ran),) = seen
    assert inside is tuned
    assert ran
    assert module.bias is frozen
    assert not shares.someone_runs
