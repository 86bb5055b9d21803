"""Every exception of the package.

PeftsearchError            a sentence for a person, and an exit code
├── UsageError         2   an invalid flag, name or study
├── SpaceError         2   a space file: file, line, key, nearest name
├── ConfigurationError 2   an invalid modification or configuration
├── DataError          2   a data file, column, label or row
├── MissingError       3   a model, data set, package or device that is not available
├── PolicyError        2   a search policy that returned an invalid decision
├── NothingFeasible    1   finished without a usable result
├── Interrupted      130   stopped by the user, state saved
└── TrialFailure           ends one trial with a cause; the study continues
    ├── NotANumber
    ├── Diverged
    └── OutOfMemory
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "ConfigurationError",
    "DataError",
    "Diverged",
    "Interrupted",
    "MissingError",
    "NotANumber",
    "NothingFeasible",
    "OutOfMemory",
    "PeftsearchError",
    "PolicyError",
    "SpaceError",
    "TrialFailure",
    "UsageError",
    "did_you_mean",
]


class PeftsearchError(Exception):
    """Base of all errors: the message is one sentence that says what, where and what to do;
    `exit_code` is what the command line ends with.

    >>> try:
    ...     peftsearch.open_study("nowhere")
    ... except peftsearch.PeftsearchError as error:
    ...     print(type(error).__name__, error.exit_code)
    UsageError 2
    """

    exit_code: ClassVar[int] = 2


class UsageError(PeftsearchError):
    """An invalid flag, name or study.

    >>> peftsearch.open_study("sst2-minilmm")
    Traceback (most recent call last):
    peftsearch.errors.UsageError: no study 'sst2-minilmm' in ...; did you mean 'sst2-minilm'?
    """


class SpaceError(PeftsearchError):
    """A space file that cannot be read; the message starts with `file:line:`.

    >>> _ = Path("odd.yaml").write_text("scema: 1")
    >>> peftsearch.load_space("odd.yaml")
    Traceback (most recent call last):
    peftsearch.errors.SpaceError: odd.yaml:1: scema: unknown key; did you mean 'schema'?
    """


class ConfigurationError(PeftsearchError):
    """A modification or configuration that is invalid, or equivalent to a simpler one.

    >>> peftsearch.attach("tiny-bert", "lorra")
    Traceback (most recent call last):
    peftsearch.errors.ConfigurationError: method 'lorra' unknown; did you mean 'lora'?
    """


class DataError(PeftsearchError):
    """A data file, column, label or row that cannot be used.

    >>> peftsearch.search("space.yaml", "tiny-bert", train="review.csv")
    Traceback (most recent call last):
    peftsearch.errors.DataError: review.csv: no such file; did you mean 'reviews.csv'?
    """


class MissingError(PeftsearchError):
    """A model, data set, package or device that this machine does not have.

    >>> peftsearch.attach("./no-bert", "lora")
    Traceback (most recent call last):
    peftsearch.errors.MissingError: no model at './no-bert': a folder with a config.json is needed
    """

    exit_code = 3


class PolicyError(PeftsearchError):
    """A search policy returned an invalid decision (checked in `policy/validation.py`)."""


class NothingFeasible(PeftsearchError):
    """The command finished without a usable result, such as after a very short search.

    >>> peftsearch.NothingFeasible.exit_code
    1
    """

    exit_code = 1


class Interrupted(PeftsearchError):
    """Stopped by the user with all state saved: `search(study=…, resume=True)` continues.

    >>> peftsearch.Interrupted.exit_code
    130
    """

    exit_code = 130


class TrialFailure(PeftsearchError):
    """Ends one trial; ``cause`` is recorded with it and the study continues."""

    cause: ClassVar[str] = "failed"


class NotANumber(TrialFailure):
    """The training loss became NaN or infinite."""

    cause = "nan"


class Diverged(TrialFailure):
    """The training loss left the range in which it can recover."""

    cause = "diverged"


class OutOfMemory(TrialFailure):
    """The device or the machine ran out of memory."""

    cause = "out_of_memory"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'lora'?"`` for the nearest of ``known``, or the list of all of them."""
    options = sorted(known)
    nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; known: {listed(options)}" if options else ""


def listed(names: Iterable[str], most: int = 40) -> str:
    """Names for a message, the first `most` of them."""
    every = [name[:80] for name in names]
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
