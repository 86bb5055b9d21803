"""Verdicts on trials at rungs, where a test stands in for a policy."""

from __future__ import annotations

from peftsearch.policy.decisions import Continue, Stop, Verdict

__all__ = ["verdict"]


def verdict(number: int, goes_on: bool) -> Verdict:
    return Continue(number) if goes_on else Stop(number)
