"""Trials under way: how far they are, how much longer they take, and how a terminal shows them."""

from __future__ import annotations

import pytest

from peftsearch.api.progress.live import Overview, lines_of
from peftsearch.api.progress.running import RunningTrials
from peftsearch.workers.events import TrialBegan, TrialProgress


def two_trials() -> RunningTrials:
    """Trial 0 does 2 steps a second and is at 20 of 100; trial 1 one, and is at 90 of 100."""
    running = RunningTrials()
    running.begin(TrialBegan(0, 0, "linear∥attn.query+value r=1 s=2, layer 5", "lora"))
    running.begin(TrialBegan(1, 1, "relu∥ffn.out r=64"))
    for number, steps, first in ((0, (0, 10, 20), 50.0), (1, (80, 90), 50.0)):
        for beat, step in enumerate(steps):
            second = first + (5 * beat if number == 0 else 10 * beat)
            running.update(TrialProgress(number, number, step, 100, 0.6123), second)
    return running


def test_the_time_left_is_that_of_the_slowest_at_its_own_pace() -> None:
    running = two_trials()
    # Trial 0: 20 steps in 10 s, 80 left: 40 s. Trial 1: 10 steps in 10 s, 10 left: 10 s.
    assert running.left_s(60.0) == pytest.approx(40.0)
    assert running.left_s(65.0) == pytest.approx(35.0)
    running.end(0)
    assert running.left_s(60.0) == pytest.approx(10.0)
    running.end(1)
    assert running.left_s(60.0) == 0.0


def test_the_time_left_is_unknown_before_there_is_a_pace() -> None:
    running = two_trials()
    running.begin(TrialBegan(2, 7, "x"))
    assert running.left_s(60.0) is None
    running.update(TrialProgress(2, 7, 3, 100), 60.0)
    assert running.left_s(60.0) is None


def test_a_trial_resumed_has_the_pace_of_what_is_trained_now() -> None:
    running = RunningTrials()
    running.begin(TrialBegan(0, 0, "x"))
    running.update(TrialProgress(0, 0, 900, 1000), 0.0)
    running.update(TrialProgress(0, 0, 910, 1000), 10.0)
    assert running.left_s(10.0) == pytest.approx(90.0)


def test_what_a_worker_trained_ends_with_it() -> None:
    running = two_trials()
    running.end_all_of(0)
    assert [trial.number for trial in running.all()] == [1]


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_lines_fit_the_terminal_and_the_name_gives_way_to_how_far_a_trial_is(width: int) -> None:
    counts = "3 full, 2 stopped, 0 failed, hypervolume 0.512"
    overview = Overview(counts, 0.5, "3:05 left", two_trials().all())
    lines = [line.plain for line in lines_of(overview, width, 10)]
    assert all(len(line) <= width for line in lines)
    if width >= 60:
        assert lines[0].endswith("3:05 left")
        assert lines[1].startswith("  #0 lora: linear∥attn")
        assert lines[1].endswith("step 20 of 100, loss 0.612")
    assert len(lines) == 3


def test_many_trials_leave_room_for_the_rest_of_the_terminal() -> None:
    running = RunningTrials()
    for number in range(40):
        running.begin(TrialBegan(number, number, "x\x1b[2J"))
    lines = [line.plain for line in lines_of(Overview("", 0.0, "", running.all()), 80, 12)]
    assert len(lines) == 1 + 12 + 1
    assert lines[-1] == "  … and 28 more"
    assert lines[1] == r"  #0 x\x1b[2J  begins"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (TrialProgress(0, 0, 0, 94, 1.1, "prepares"), "step 0 of 94, frozen layers first"),
        (TrialProgress(0, 0, 94, 94, 0.5, "evaluates"), "step 94 of 94, evaluated"),
        (TrialProgress(0, 0, 1200, 9400, None), "step 1,200 of 9,400"),
    ],
)
def test_what_a_trial_does_now_is_said(event: TrialProgress, text: str) -> None:
    running = RunningTrials()
    running.begin(TrialBegan(0, 0, "x"))
    running.update(event, 0.0)
    assert running.all()[0].progress == text
