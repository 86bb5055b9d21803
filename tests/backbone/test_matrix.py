"""Every family × every method that it can take: the ✓ of docs/families.md."""

from __future__ import annotations

import pytest

from support.families import TINY
from support.matrix import CHECKS, failures


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", TINY)
def test_every_method_holds(family: str, check: str) -> None:
    assert failures(family, check) == []
