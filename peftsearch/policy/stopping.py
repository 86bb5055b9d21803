"""Early stopping for two objectives: stops trials unlikely to improve the frontier.

A trial that no other dominates at its rung (in metric and tuned %) always continues. Any other
continues while its predicted final metric, with a margin of one standard deviation, is above the
frontier at its tuned %. The prediction is the rung's value plus the mean gain of the trials that
continued.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from peftsearch.policy.decisions import Continue, Stop, Verdict
from peftsearch.policy.history import History

__all__ = ["Judgement", "RungPoint", "decide", "peers_of", "verdict"]

WARM_UP = 4
"""Number of full-length trials required before any trial is stopped."""
MARGIN_SD = 1.0


@dataclass(frozen=True)
class RungPoint:
    """A trial at one rung, and at full length where it got there. Metrics: higher is better."""

    number: int
    tuned_pct: float
    metric: float
    final: float | None = None


@dataclass(frozen=True)
class Judgement:
    continues: bool
    reason: str


def verdict(history: History, number: int, rung: int) -> Verdict:
    """Continue or Stop, for a trial that reached a rung. Landmarks always continue, in the space or
    outside it: they are the reference for the others, which full length alone can be compared with.
    """
    record = history.trials[number]
    score = record.at(rung)
    if record.seed is not None or record.origin == "landmark":
        return Continue(number, "a landmark")
    if score is None or record.tuned_pct is None:
        return Continue(number, "no other trial to compare with")
    candidate = RungPoint(number, record.tuned_pct, score.metric)
    judgement = decide(candidate, peers_of(history, number, rung), history.format_metric)
    return (Continue if judgement.continues else Stop)(number, judgement.reason)


def peers_of(history: History, number: int, rung: int) -> list[RungPoint]:
    """Every other trial that reached a rung."""
    peers = []
    for record in history.trials:
        score = record.at(rung)
        if record.number == number or score is None or record.tuned_pct is None:
            continue
        final = record.at(history.last_rung)
        full = None if final is None else final.metric
        peers.append(RungPoint(record.number, record.tuned_pct, score.metric, full))
    return peers


def _format(metric: float) -> str:
    return f"{metric:.3f}"


def decide(
    candidate: RungPoint,
    peers: Sequence[RungPoint],
    format_metric: Callable[[float], str] = _format,
) -> Judgement:
    """Whether `candidate` continues, given the other trials that reached its rung. `format_metric`
    formats a metric (higher is better here) for the reason.
    """
    if not any(_beats(peer, candidate) for peer in peers):
        return Judgement(True, "on the rung's own frontier")
    finished = [p for p in peers if p.final is not None]
    if len(finished) < WARM_UP:
        return Judgement(True, "too few full-length trials to compare with")
    gains = [(p.final or 0.0) - p.metric for p in finished]
    hoped = candidate.metric + statistics.fmean(gains) + MARGIN_SD * statistics.stdev(gains)
    rivals = [p.final or 0.0 for p in finished if p.tuned_pct <= candidate.tuned_pct]
    to_beat = max(rivals, default=float("-inf"))
    better = hoped > to_beat
    hope, rival = format_metric(hoped), format_metric(to_beat)
    verb = "better" if better else "not better"
    return Judgement(better, f"may reach {hope}, {verb} than {rival} at its tuned %")


def _beats(one: RungPoint, other: RungPoint) -> bool:
    """Better in one objective and worse in neither."""
    no_worse = one.metric >= other.metric and one.tuned_pct <= other.tuned_pct
    return no_worse and (one.metric > other.metric or one.tuned_pct < other.tuned_pct)
