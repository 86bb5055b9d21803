"""The predicted seconds of random samples, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftsearch.wording import duration

__all__ = ["samples_line"]


def samples_line(facts: Mapping[str, Any]) -> str:
    """The facts of a `PredictedTime` as `show` and `search --dry-run` print them."""
    median, most, longest = (duration(facts[key]) for key in ("median_s", "most_s", "longest_s"))
    return (
        f"random samples, predicted: half take at most {median}, nine in ten at most {most}, "
        f"the longest {longest} ({facts['longest']}: {facts['reason']})"
    )
