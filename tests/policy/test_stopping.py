"""Early stopping: costlier trials are no rivals, and what may reach the frontier goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peftsearch.policy.decisions import Continue, Stop
from peftsearch.policy.history import History, RungScore, TrialRecord
from peftsearch.policy.stopping import WARM_UP, RungPoint, decide, verdict

# Four trials that gained .10 ± .008 from the rung to full length.
FINISHED = [
    RungPoint(0, 0.1, 0.60, 0.70),
    RungPoint(1, 0.5, 0.64, 0.75),
    RungPoint(2, 1.0, 0.66, 0.75),
    RungPoint(3, 5.0, 0.70, 0.80),
]


def test_a_hopeless_trial_is_stopped() -> None:
    decision = decide(RungPoint(9, 2.0, 0.55), FINISHED)
    assert not decision.continues
    assert decision.reason == "may reach 0.658, not better than 0.750 at its tuned %"


def test_a_trial_that_may_beat_the_frontier_at_its_own_cost_goes_on() -> None:
    assert decide(RungPoint(9, 2.0, 0.655), FINISHED).continues


def test_costlier_trials_are_no_rivals() -> None:
    assert decide(RungPoint(9, 0.05, 0.40), FINISHED).continues
    cheap = RungPoint(9, 0.2, 0.58)
    assert decide(cheap, FINISHED).reason.endswith("not better than 0.700 at its tuned %")


def test_nothing_is_stopped_before_enough_trials_have_finished() -> None:
    assert WARM_UP == 4
    assert decide(RungPoint(9, 2.0, 0.1), FINISHED[:3]).continues


def history(candidate: TrialRecord) -> History:
    """The finished trials of above, one that has not reached the rung, and the candidate."""
    finished = [
        TrialRecord(
            *(point.number, "full"),
            tuned_pct=point.tuned_pct,
            rungs=(RungScore(0, point.metric), RungScore(1, point.final or 0.0)),
        )
        for point in FINISHED
    ]
    young = TrialRecord(4, "running", tuned_pct=0.01)
    return History((*finished, young, candidate), (0.5, 1.0), format_metric=lambda m: f"{-m:.1f}")


def hopeless(origin: str, seed: str | None = None) -> TrialRecord:
    scores = (RungScore(0, 0.55),)
    return TrialRecord(5, "running", origin, seed, tuned_pct=2.0, rungs=scores)  # type: ignore[arg-type]


def test_a_verdict_is_decided_among_the_trials_of_the_rung_and_written_as_people_read_metrics() -> (
    None
):
    said = verdict(history(hopeless("sampled")), 5, 0)
    assert said == Stop(5, "may reach -0.7, not better than -0.8 at its tuned %")


def test_landmarks_always_go_on_in_the_space_or_outside_it() -> None:
    for record in (hopeless("landmark"), hopeless("landmark", "full"), hopeless("seed", "lora")):
        assert verdict(history(record), 5, 0) == Continue(5, "a landmark")


@given(
    peers=st.lists(
        st.builds(
            RungPoint,
            st.integers(0, 99),
            st.floats(0, 10),
            st.floats(0, 1),
            st.none() | st.floats(0, 1),
        ),
        max_size=12,
    ),
    tuned=st.floats(0, 10),
    metric=st.floats(0, 1),
)
def test_a_trial_on_the_rungs_own_frontier_always_goes_on(
    peers: list[RungPoint], tuned: float, metric: float
) -> None:
    candidate = RungPoint(100, tuned, metric)
    beaten = any(
        p.metric >= metric and p.tuned_pct <= tuned and (p.metric, p.tuned_pct) != (metric, tuned)
        for p in peers
    )
    if not beaten:
        assert decide(candidate, peers).continues
