"""Shared inputs: a module's input in the current forward, which several members captured."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from peftsearch.backbone.sharing.shares import Owner, Shares

__all__ = ["MemberInput", "SharedInput"]


class SharedInput:
    """The input [rows, ...] of all members, and each one's rows of it."""

    def __init__(self, shares: Shares) -> None:
        self.readers = 0
        """Members that capture it."""
        self._shares = shares
        self._x: list[Tensor] = []
        self._parts: dict[Owner, Tensor] = {}

    def put(self, x: Tensor) -> None:
        """Keep x [rows, ...] for this forward."""
        self._x, self._parts = [x], {}

    def whole(self) -> Tensor:
        """All rows."""
        return self._x[0]

    def of(self, owner: Owner) -> Tensor:
        """The rows of one owner."""
        if not self._parts:
            # One split for all of them: a slice's backward writes a whole tensor of zeros.
            (x,), spans = self._x, self._shares.spans(len(self._x[0]))
            parts = x.split([rows.stop - rows.start for _, rows in spans])
            self._parts = {own: part for (own, _), part in zip(spans, parts, strict=True)}
        return self._parts[owner]

    def clear(self) -> None:
        """Forget it until the next forward."""
        self._x, self._parts = [], {}


@dataclass(frozen=True)
class MemberInput:
    """One member's rows of a shared input, as `Captured`."""

    shared: SharedInput
    member: Owner

    @property
    def key(self) -> Hashable:
        return self.shared

    def own(self) -> Tensor:
        return self.shared.of(self.member)

    def whole(self) -> Tensor:
        return self.shared.whole()

    def clear(self) -> None:
        self.shared.clear()
