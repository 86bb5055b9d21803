"""Pareto set, hypervolume and choosing, against brute force and moocore."""

from __future__ import annotations

import math

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.errors import NothingFeasible, UsageError
from peftsearch.frontier.choose import choose
from peftsearch.frontier.hypervolume import HypervolumeScale, hypervolume, hypervolume_trace
from peftsearch.frontier.pareto import Point, pareto

GRID = st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.5, 1.0, 3.0, 10.0, 100.0])
POINTS = st.lists(
    st.tuples(st.integers(0, 20).map(lambda v: v / 20), GRID), min_size=1, max_size=30
).map(lambda pairs: [Point(i, m, t) for i, (m, t) in enumerate(pairs)])
SCALE = HypervolumeScale(0.01, 10.0, worst=0.2, best=1.0)


@given(points=POINTS)
def test_the_pareto_set_is_what_moocore_finds(points: list[Point]) -> None:
    values = np.array([[-p.metric, p.tuned_pct] for p in points])
    kept = moocore.is_nondominated(values, keep_weakly=False)
    theirs = sorted((p.tuned_pct, p.metric) for p, keep in zip(points, kept, strict=True) if keep)
    assert [(p.tuned_pct, p.metric) for p in pareto(points)] == theirs


@given(points=POINTS)
def test_of_equal_points_the_first_trial_stays(points: list[Point]) -> None:
    for point in pareto(points):
        same = [
            p.number for p in points if (p.metric, p.tuned_pct) == (point.metric, point.tuned_pct)
        ]
        assert point.number == min(same)


@given(points=POINTS)
def test_the_hypervolume_is_the_mean_over_log_budgets(points: list[Point]) -> None:
    budgets = np.exp(np.linspace(math.log(0.01), math.log(10), 4001)[:-1] + 1e-9)
    heights = []
    for budget in budgets:
        reached = [p.metric for p in points if p.tuned_pct <= budget]
        height = (max(reached) - 0.2) / 0.8 if reached else 0.0
        heights.append(min(max(height, 0.0), 1.0))
    assert hypervolume(points, SCALE) == pytest.approx(np.mean(heights), abs=2e-3)


@given(points=POINTS)
def test_the_hypervolume_is_moocores_area_in_log_budgets(points: list[Point]) -> None:
    inside = [p for p in points if p.tuned_pct <= 10.0]
    values = [[-p.metric, math.log(max(p.tuned_pct, 0.01))] for p in inside]
    if not values:
        assert hypervolume(points, SCALE) == 0
        return
    area = moocore.hypervolume(np.array(values), ref=np.array([-0.2, math.log(10.0)]))
    assert hypervolume(points, SCALE) == pytest.approx(area / (0.8 * math.log(1000)), abs=1e-9)


def test_a_point_below_the_range_counts_from_its_beginning_and_one_above_not_at_all() -> None:
    assert hypervolume([Point(0, 0.6, 0.0)], SCALE) == pytest.approx(0.5)
    assert hypervolume([Point(0, 1.0, 11.0)], SCALE) == 0


def test_a_loss_is_turned_around() -> None:
    scale = HypervolumeScale(0.01, 10.0, worst=2.0, best=0.0, maximise=False)
    points = [Point(0, 1.0, 0.0), Point(1, 1.5, 5.0)]
    assert hypervolume(points, scale) == pytest.approx(0.5)
    assert [p.number for p in pareto(points, maximise=False)] == [0]


@given(points=POINTS)
def test_the_trace_never_falls_and_ends_at_the_whole(points: list[Point]) -> None:
    trace = hypervolume_trace(points, SCALE)
    assert trace == sorted(trace)
    assert trace[-1] == pytest.approx(hypervolume(points, SCALE))


FRONT = [Point(3, 0.6, 0.0), Point(7, 0.7, 0.1), Point(5, 0.78, 0.5), Point(9, 0.8, 5.0)]


@pytest.mark.parametrize(
    ("at", "number"),
    [("best", 9), ("0.5", 5), ("0.49", 7), ("100", 9), ("0", 3), ("#7", 7), ("knee", 5), ("5%", 9)],
)
def test_a_point_is_chosen_by_name_limit_or_number(at: str, number: int) -> None:
    assert choose(FRONT, at).number == number


@pytest.mark.parametrize("at", ["beast", "#4", "-1", ""])
def test_a_choice_that_is_none_is_refused(at: str) -> None:
    with pytest.raises(UsageError):
        choose(FRONT, at)


def test_nothing_can_be_chosen_from_an_empty_frontier() -> None:
    with pytest.raises(NothingFeasible):
        choose([], "best")
