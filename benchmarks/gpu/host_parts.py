"""Host time of a cohort's steps by part: batch, transfer, pass, replay, optimisers, rest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peftsearch.training.cohort.cohort import Cohort
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import RecordedPass
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun

__all__ = ["HostParts", "host_parts"]

_PARTS: tuple[tuple[type, str, str], ...] = (
    (Cohort, "step", "rest"),
    (JointBatch, "next_of", "batch"),
    (JointBatch, "to", "transfer"),
    (SharedPass, "__call__", "pass"),
    (RecordedPass, "__call__", "replay"),
    (TrainingRun, "finish_step", "optimisers"),
)
"""Class, its method, and the part that the method's time counts towards."""


class HostParts:
    """Seconds of each part, without those of parts called within it."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._under_way: list[str] = []
        self._since = 0.0

    def timed(self, method: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The method, whose time counts towards `part`."""

        def call(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self._under_way.append(part)
            try:
                return method(*arguments, **named)
            finally:
                self._switch()
                self._under_way.pop()

        return call

    def _switch(self) -> None:
        """Charge the time since the last switch to the innermost part under way."""
        now = time.perf_counter()
        if self._under_way:
            self.spent[self._under_way[-1]] += now - self._since
        self._since = now


@contextmanager
def host_parts() -> Iterator[Counter[str]]:
    """Seconds of the host in the parts of all steps in this context, none of which wait for the
    device.
    """
    parts = HostParts()
    before = [vars(owner)[name] for owner, name, _ in _PARTS]
    for owner, name, part in _PARTS:
        method = vars(owner)[name]
        if isinstance(method, classmethod):
            timed: Any = classmethod(parts.timed(method.__func__, part))
        else:
            timed = parts.timed(method, part)
        setattr(owner, name, timed)
    try:
        yield parts.spent
    finally:
        for (owner, name, _), method in zip(_PARTS, before, strict=True):
            setattr(owner, name, method)
