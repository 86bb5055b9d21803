"""Capturable runs: those whose passes a GPU can capture, as forms declare and failures show.

One operation that cannot be captured makes the capture of a whole pass fail, and the error does not
say whose it was. The kinds of modification in that pass are then suspects, except those captured
before, until captures without them leave one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peftsearch.training.loop import TrainingRun

__all__ = ["Capturable"]

Kind = tuple[str, str, str]
"""Names of a modification's form, insertion and composition."""


class Capturable:
    """Divides a cohort into runs whose pass may be captured, and others."""

    def __init__(self) -> None:
        self._captured: set[Kind] = set()
        self._suspects: list[frozenset[Kind]] = []
        """In each set is a kind that made a capture fail; a set of one is the culprit."""

    def split(self, runs: Sequence[TrainingRun]) -> tuple[list[TrainingRun], list[TrainingRun]]:
        """(runs whose pass may be captured, the others), each in order.

        Of suspects, one kind at a time has another chance.
        """
        capturable: list[TrainingRun] = []
        others: list[TrainingRun] = []
        suspects, tried = frozenset().union(*self._suspects), frozenset[Kind]()
        for run in runs:
            doubtful = _kinds(run) & suspects
            if _is_capturable(run) and self._may_try(tried | doubtful):
                tried |= doubtful
                capturable.append(run)
            else:
                others.append(run)
        return capturable, others

    def _may_try(self, suspects: frozenset[Kind]) -> bool:
        """Whether there is at most one suspect, which is not known to be a culprit."""
        return len(suspects) <= 1 and suspects not in self._suspects

    def captured(self, runs: Iterable[TrainingRun]) -> None:
        """Clear the kinds of these runs, whose pass was captured without an error."""
        self._captured |= _all_kinds(runs)
        left = (one - self._captured for one in self._suspects)
        self._suspects = [one for one in left if one]

    def failed(self, runs: Iterable[TrainingRun]) -> bool:
        """Suspect the kinds of these runs, whose capture ended with an error, except for those
        captured before; returns whether there are others.
        """
        new = _all_kinds(runs) - self._captured
        if new:
            # A larger set with these kinds in it is explained: its others are no suspects any more.
            self._suspects = [one for one in self._suspects if not new <= one] + [new]
        return bool(new)


def _is_capturable(run: TrainingRun) -> bool:
    return all(m.form.is_capturable for m in run.model.configuration.modifications)


def _kinds(run: TrainingRun) -> frozenset[Kind]:
    return frozenset(
        (m.form.name, m.insertion.name, m.composition.name)
        for m in run.model.configuration.modifications
    )


def _all_kinds(runs: Iterable[TrainingRun]) -> frozenset[Kind]:
    return frozenset().union(*map(_kinds, runs))
