"""Row ownership: the configuration that owns each row of a shared forward, and whose code runs.

Below `slices.py` and `shared_module.py`, which both read it, so that neither imports the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["Owner", "Shares", "Span"]


@dataclass(eq=False)
class Owner:
    """One configuration among those that share a backbone; compared and hashed by identity."""

    tensors: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict)
    """Module → name of a parameter → the tensor that replaces it in this owner's rows."""


Span = tuple[Owner, slice]
"""An owner and its rows, a stretch of a tensor's first dimension."""


class Shares:
    """The owners of the rows of the current forward, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[Owner, int]] = []
        """(owner, its number of texts); empty outside `sharing`."""
        self._total = 0
        self._running: Owner | None = None

    @contextmanager
    def sharing(self, rows: Sequence[tuple[Owner, int]]) -> Iterator[None]:
        """Context of forwards (and their backwards) with given numbers of texts of each owner."""
        before = self.rows, self._total
        self.rows, self._total = list(rows), sum(count for _, count in rows)
        try:
            yield
        finally:
            self.rows, self._total = before

    @contextmanager
    def running(self, owner: Owner, module: nn.Module) -> Iterator[None]:
        """Context in which an owner's hooks run: `module` has the owner's tensors as parameters."""
        own = dict(module._parameters)
        module._parameters.update(owner.tensors.get(module, {}))  # type: ignore[arg-type]
        before, self._running = self._running, owner
        try:
            yield
        finally:
            self._running = before
            module._parameters.update(own)

    @property
    def someone_runs(self) -> bool:
        """Whether an owner's hooks are running now."""
        return self._running is not None

    def spans(self, rows: int) -> list[Span]:
        """Each owner's stretch of a tensor with `rows` rows: one row a text, or k of them (OPT's
        ffn reads all tokens as rows, [texts · tokens, hidden]).

        ValueError where `rows` is no multiple of the number of texts.
        """
        # One owner has all rows, however many: `Member.alone` counts its texts as 1.
        if len(self.rows) == 1:
            return [(self.rows[0][0], slice(0, rows))]
        if not self._total or rows % self._total:
            raise ValueError(f"{rows} rows cannot be shared among {self._total} texts")
        times, found, start = rows // self._total, [], 0
        for owner, count in self.rows:
            found.append((owner, slice(start, start + count * times)))
            start += count * times
        return found
