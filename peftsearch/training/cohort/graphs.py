"""Shared passes played from recordings: where that is right, and where it pays.

A model that is computed faster than the host can ask for it waits for the host; a recording (a CUDA
graph) asks for a whole forward and backward with one call. None is trusted: the first batch after
the one it was recorded with is computed both ways and compared, which also shows whether a value
that differs from batch to batch was frozen into it, and then both are timed. Whatever goes wrong
costs time alone: passes go on as without recordings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import RecordedPass, add, addresses, alike, result_of
from peftsearch.training.cohort.recorder import Recorder
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun

__all__ = ["Graphs", "ReplayFailed"]

PAYS = 0.9
"""A replay must take at most this part of an ordinary pass's time."""
_SEEN = 2
"""Ordinary passes of a kind before one is recorded: a kind that is rare is not worth it."""
_TIMED = 3
"""Replays that are timed; of them and of ordinary passes the fastest counts."""
_MOST = 8
"""Recordings at a time."""
_STALE = 100
"""Passes after which a recording that was not used gives way to another one."""
_KINDS = 64
"""Kinds of passes that are remembered."""
_FAILURES = 3
"""Recordings that failed, by error or by what they computed, after which there are no more."""


class ReplayFailed(Exception):
    """A replay ended with an error: gradients of some runs may have been added. No recording is
    used from then on, so that the same pass, begun anew, is an ordinary one.
    """


@dataclass
class _Kind:
    """Passes that differ in numbers alone: how often there was one, and its recording."""

    seen: int = 0
    used: int = 0
    """The pass in which there last was one."""
    recorded: RecordedPass | None = None
    is_right: bool = False
    pays: bool | None = None
    """Whether replays are faster; None: not known yet."""
    ordinary: list[tuple[Any, Any]] = field(default_factory=list)
    replays: list[tuple[Any, Any]] = field(default_factory=list)

    def begin_anew(self) -> None:
        """As one that was never seen."""
        self.__init__()  # type: ignore[misc]


class Graphs:
    """Recordings of the passes of a cohort; `say` is told, once each, why there is none."""

    def __init__(self, recorder: Recorder, say: Callable[[str], None] = lambda _: None) -> None:
        self.recorder, self.say = recorder, say
        self.is_usual = True
        """Whether the last pass was like the next ones: nothing was recorded or compared."""
        self._runs: list[TrainingRun] = []
        self._places: list[int] = []
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._passes = self._failures = 0
        self._is_off = False
        """For these runs."""

    @property
    def held(self) -> int:
        """Recordings that there are."""
        return sum(kind.recorded is not None for kind in self._kinds.values())

    def forget(self) -> None:
        """Give back whatever is recorded: runs have joined or left, or memory is needed."""
        self._kinds.clear()
        self._runs, self._places = [], []

    def give_up(self, why: str) -> None:
        """No recordings while these runs are together; after a few failures none any more."""
        self._kinds.clear()
        self._is_off = True
        self._failures += 1
        rest = "" if self._failures < _FAILURES else ", and none is recorded any more"
        self.say(f"passes go on without CUDA graphs: {why}{rest}")

    def __call__(self, do: SharedPass, joint: JointBatch) -> Tensor:
        """What `do(joint)` gives, and its gradients."""
        self.is_usual = True
        self._passes += 1
        self._meet(do)
        if self._is_off or self._failures >= _FAILURES:
            return do(joint)
        kind = self._kind(joint.key)
        if kind.recorded is not None and not kind.is_right:
            return self._check(kind, kind.recorded, do, joint)
        if kind.recorded is not None and self._pays(kind):
            return self._play(kind, kind.recorded, do, joint)
        if kind.seen > _SEEN and kind.pays is None and self._has_room():
            return self._record(kind, do, joint)
        if kind.pays is not None:
            return do(joint)
        with self._timed(kind.ordinary):
            return do(joint)

    def _meet(self, do: SharedPass) -> None:
        """Recordings are of runs in an order, and of parameters where they are."""
        places = addresses(do)
        if do.runs == self._runs and places == self._places:
            return
        self.forget()
        self._runs, self._places, self._is_off = do.runs, places, False

    # -- kinds of passes -----------------------------------------------------------------------

    def _kind(self, key: Hashable) -> _Kind:
        kind = self._kinds.setdefault(key, _Kind())
        self._kinds.move_to_end(key)
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        kind.seen += 1
        kind.used = self._passes
        return kind

    def _has_room(self) -> bool:
        """For one more, if need be in the place of one that is no longer used."""
        held = [kind for kind in self._kinds.values() if kind.recorded is not None]
        if len(held) >= _MOST and self._passes - held[0].used > _STALE:
            held.pop(0).begin_anew()
        return len(held) < _MOST

    def _pays(self, kind: _Kind) -> bool:
        """Decided once a few replays were timed; if not, its recording is given back."""
        if kind.pays is None and len(kind.replays) >= _TIMED:
            ordinary_s, replay_s = map(self._fastest_s, (kind.ordinary, kind.replays))
            kind.pays = replay_s <= PAYS * ordinary_s
            if not kind.pays:
                kind.recorded = None
        return kind.pays is not False

    def _fastest_s(self, timed: list[tuple[Any, Any]]) -> float:
        return min(self.recorder.seconds(*marks) for marks in timed)

    @contextmanager
    def _timed(self, marks: list[tuple[Any, Any]]) -> Iterator[None]:
        """One of the first few passes of its sort."""
        if len(marks) >= _TIMED:
            yield
            return
        begin = self.recorder.mark()
        yield
        marks.append((begin, self.recorder.mark()))

    # -- ways of a pass ------------------------------------------------------------------------

    def _record(self, kind: _Kind, do: SharedPass, joint: JointBatch) -> Tensor:
        """An ordinary pass, and a recording of it, which computes nothing."""
        self.is_usual = False
        static = joint.cloned()
        losses = self.recorder.ordinary(lambda: do(static))
        try:
            kind.recorded = RecordedPass(self.recorder, do, static)
        except torch.OutOfMemoryError as error:
            self.give_up(_line(error))
        except Exception as error:  # of whatever kind: what is asked for has been computed
            self._failures = _FAILURES  # a device that cannot record this must not be asked again
            self.give_up(_line(error))
        return losses

    def _check(
        self, kind: _Kind, recorded: RecordedPass, do: SharedPass, joint: JointBatch
    ) -> Tensor:
        """An ordinary pass, which counts, and a replay that must agree with it."""
        self.is_usual = False
        expected = result_of(do, do.parameters, joint)
        add(do.parameters, expected[1])
        try:
            agrees = alike(result_of(recorded, do.parameters, joint), expected, do)
        except Exception as error:
            self.give_up(_line(error))
            return expected[0]
        if agrees is None:
            kind.begin_anew()
        elif agrees:
            kind.is_right = True
        else:
            self.give_up("a recorded pass did not compute what an ordinary one did")
        return expected[0]

    def _play(
        self, kind: _Kind, recorded: RecordedPass, do: SharedPass, joint: JointBatch
    ) -> Tensor:
        try:
            with self._timed(kind.replays):
                return recorded(joint)
        except Exception as error:
            self.give_up(_line(error))
            raise ReplayFailed from error


def _line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
