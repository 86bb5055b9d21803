"""Graph cache: shared passes replayed as CUDA graphs where that is correct and faster.

A small model computes faster than the host can launch its kernels; a graph launches a whole forward
and backward with one call. No graph is trusted: the first batch after the one it was captured with
is computed both ways and compared, which also shows whether a value that differs from batch to
batch was baked into it, and then both ways are timed. Whatever goes wrong costs time alone: passes
continue without graphs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peftsearch.training.cohort.capturable import Capturable
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import RecordedPass, add, addresses, agree, result_of
from peftsearch.training.cohort.recorder import Recorder
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun

__all__ = ["GraphCache", "ReplayFailed"]

PAYS = 0.9
"""A replay must take at most this share of an ordinary pass's time."""
_ORDINARY_FIRST = 2
"""Ordinary passes of a kind before one is recorded: a rare kind is not worth a recording."""
_TIMED = 3
"""Replays, and ordinary passes, that are timed; the fastest of each counts."""
_MAX_RECORDINGS = 8
_STALE = 100
"""Passes after which a recording that was not used gives way to another one."""
_MAX_KINDS = 64
"""Kinds of passes to remember."""
_MAX_FAILURES = 3
"""Recordings that failed, by an error or a wrong result, after which no more are made. Errors while
recording are counted in a row: they say something of a kind of modification, not of the device,
where others were recorded.
"""

Marks = list[tuple[Any, Any]]
"""Beginnings and ends of passes, on the device's clock."""


class ReplayFailed(Exception):
    """A replay ended with an error: gradients of some runs may have been added. No recording is
    used from then on, so that the same pass, begun again, is an ordinary one.
    """


@dataclass
class _Kind:
    """Passes of one `JointBatch.key`, and their recording if there is one."""

    seen: int = 0
    used: int = 0
    """Number of the last pass of this kind."""
    recorded: RecordedPass | None = None
    is_correct: bool = False
    """Whether a replay was compared with an ordinary pass, and agreed."""
    pays: bool | None = None
    """Whether replays are faster; None: not known yet."""
    ordinary: Marks = field(default_factory=list)
    replays: Marks = field(default_factory=list)


class GraphCache:
    """Recordings of a cohort's passes. `notify` is called with each reason why there are none."""

    def __init__(self, recorder: Recorder, notify: Callable[[str], None] = lambda _: None) -> None:
        self.recorder, self.notify = recorder, notify
        self.is_ordinary = True
        """Whether the last pass is a measure of the next ones: nothing was recorded or compared."""
        self._runs: list[TrainingRun] = []
        self._addresses: list[int] = []
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        """The least recently used first."""
        self._capturable = Capturable()
        self._passes = self._failures = 0
        self._errors = 0
        """Errors while recording since the last recording that was correct."""
        self._is_off = False
        """Whether recordings are off for the present members."""

    @property
    def held(self) -> int:
        """Number of recordings."""
        return sum(kind.recorded is not None for kind in self._kinds.values())

    def clear(self) -> None:
        """Free all recordings: runs have joined or left, or memory is needed."""
        self._kinds.clear()
        self._runs, self._addresses = [], []

    @property
    def is_over(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._failures + self._errors >= _MAX_FAILURES

    def split(self, runs: Sequence[TrainingRun]) -> tuple[list[TrainingRun], list[TrainingRun]]:
        """(runs to call this with, runs that need an ordinary pass of their own), each in order."""
        self.is_ordinary = True
        return (list(runs), []) if self.is_over else self._capturable.split(runs)

    def disable(self, why: str) -> None:
        """No recordings for the present members; after a few failures none any more."""
        self._failures += 1
        self._stop(why)

    def _stop(self, why: str) -> None:
        self._kinds.clear()
        self._is_off = True
        rest = ", and none is recorded any more" if self.is_over else ""
        self.notify(f"continuing without CUDA graphs: {why}{rest}")

    def __call__(self, do: SharedPass, joint: JointBatch) -> Tensor:
        """The result of `do(joint)`: losses [runs] on the device, gradients with the parameters.

        Raises ReplayFailed if a replay ends with an error.
        """
        self.is_ordinary = True
        self._passes += 1
        self._clear_if_changed(do)
        if self._is_off or self.is_over:
            return do(joint)
        kind = self._kind(joint.key)
        if kind.recorded is not None and not kind.is_correct:
            return self._check(kind, kind.recorded, do, joint)
        if kind.recorded is not None and self._pays(kind):
            return self._replay(kind, kind.recorded, joint)
        if kind.seen > _ORDINARY_FIRST and kind.pays is None and self._has_room():
            return self._record(kind, do, joint)
        if kind.pays is not None:
            return do(joint)
        with self._timed(kind.ordinary):
            return do(joint)

    def _clear_if_changed(self, do: SharedPass) -> None:
        """Drop all recordings if members, their order or their parameters' addresses changed."""
        found = addresses(do)
        if do.runs == self._runs and found == self._addresses:
            return
        self.clear()
        self._runs, self._addresses, self._is_off = do.runs, found, False

    # -- kinds of passes -----------------------------------------------------------------------

    def _kind(self, key: Hashable) -> _Kind:
        kind = self._kinds.setdefault(key, _Kind())
        self._kinds.move_to_end(key)
        if len(self._kinds) > _MAX_KINDS:
            self._kinds.popitem(last=False)
        kind.seen += 1
        kind.used = self._passes
        return kind

    def _has_room(self) -> bool:
        """Whether there may be one more recording, in the place of a stale one if need be."""
        held = [key for key, kind in self._kinds.items() if kind.recorded is not None]
        if len(held) >= _MAX_RECORDINGS and self._passes - self._kinds[held[0]].used > _STALE:
            self._kinds[held.pop(0)] = _Kind()
        return len(held) < _MAX_RECORDINGS

    def _pays(self, kind: _Kind) -> bool:
        """Whether replays are fast enough, decided after a few; a slow recording is freed."""
        if kind.pays is None and len(kind.replays) >= _TIMED:
            ordinary_s, replay_s = map(self._fastest_s, (kind.ordinary, kind.replays))
            kind.pays = replay_s <= PAYS * ordinary_s
            if not kind.pays:
                kind.recorded = None
        return kind.pays is not False

    def _fastest_s(self, timed: Marks) -> float:
        return min(self.recorder.seconds(*marks) for marks in timed)

    @contextmanager
    def _timed(self, marks: Marks) -> Iterator[None]:
        """Mark the beginning and end of a pass, if it is one of the first few of its sort."""
        if len(marks) >= _TIMED:
            yield
            return
        begin = self.recorder.mark()
        yield
        marks.append((begin, self.recorder.mark()))

    # -- ways of a pass ------------------------------------------------------------------------

    def _record(self, kind: _Kind, do: SharedPass, joint: JointBatch) -> Tensor:
        """An ordinary pass, then a recording of it: recording computes nothing."""
        self.is_ordinary = False
        static = joint.cloned()
        losses, why_not = self.recorder.ordinary(lambda: do(static))
        if why_not is not None:
            self._not_recorded(do, why_not)
            return losses
        try:
            kind.recorded = RecordedPass(self.recorder, do, static)
        except torch.OutOfMemoryError as error:
            self.disable(_reason(error))
        except Exception as error:  # of whatever kind: the pass itself has been computed
            if not self.recorder.survives_errors:
                self._failures = _MAX_FAILURES
            self._not_recorded(do, _reason(error))
        else:
            self._capturable.captured(do.runs)
        return losses

    def _not_recorded(self, do: SharedPass, why: str) -> None:
        """Have members of the kinds that cannot be recorded, as far as is known, pass by
        themselves.
        """
        if self._capturable.failed(do.runs):
            self._errors += 1
        else:  # nothing was learned, so that it may happen again
            self._failures += 1
        self._stop(why)

    def _check(
        self, kind: _Kind, recorded: RecordedPass, do: SharedPass, joint: JointBatch
    ) -> Tensor:
        """An ordinary pass, whose result is used, and a replay that must agree with it."""
        self.is_ordinary = False
        expected = result_of(do, do.parameters, joint)
        add(do.parameters, expected[1])
        try:
            agrees = agree(result_of(recorded, do.parameters, joint), expected, do)
        except Exception as error:
            self.disable(_reason(error))
            return expected[0]
        if agrees is None:
            self._kinds[joint.key] = _Kind()
        elif agrees:
            kind.is_correct = True
            self._errors = 0
        else:
            self.disable("a recorded pass did not compute what an ordinary one did")
        return expected[0]

    def _replay(self, kind: _Kind, recorded: RecordedPass, joint: JointBatch) -> Tensor:
        try:
            with self._timed(kind.replays):
                return recorded(joint)
        except Exception as error:
            self.disable(_reason(error))
            raise ReplayFailed from error


def _reason(error: BaseException) -> str:
    """The first line of an error, after that of the error behind it: ending a capture that failed
    raises one that does not say why.
    """
    own = str(error).split("\n")[0] or type(error).__name__
    cause = error.__context__
    return own if cause is None else f"{_reason(cause)}; {own}"
