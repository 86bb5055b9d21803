"""Kinds of members that cannot be captured are found from the captures that failed."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from peftsearch.design.form import FORMS
from peftsearch.design.methods import METHODS
from peftsearch.training.cohort.capturable import Capturable

LORA, HOULSBY, BITFIT, IA3, MAM, LOREFT = "lora", "houlsby", "bitfit", "ia3", "mam", "loreft"


def runs(*names: str) -> list[Any]:
    """With as much of a training run as is read."""
    configurations = [METHODS[name].configuration() for name in names]
    return [
        SimpleNamespace(name=name, model=SimpleNamespace(configuration=configuration))
        for name, configuration in zip(names, configurations, strict=True)
    ]


def split(capturable: Capturable, *names: str) -> tuple[list[str], list[str]]:
    together, apart = capturable.split(runs(*names))
    return [run.name for run in together], [run.name for run in apart]


def simulated(culprits: set[str], cohort: Sequence[str], passes: int = 10) -> tuple[list[str], int]:
    """The members that are captured in the end, and the captures that failed until then."""
    capturable, failures = Capturable(), 0
    for _ in range(passes):
        together, _ = capturable.split(runs(*cohort))
        if any(run.name in culprits for run in together):
            failures += 1
            assert capturable.failed(together)
        elif together:
            capturable.captured(together)
    return [run.name for run in together], failures


def test_all_are_captured_together_but_for_forms_that_declare_otherwise() -> None:
    assert split(Capturable(), LORA, LOREFT, MAM, LOREFT) == ([LORA, MAM], [LOREFT, LOREFT])
    assert [name for name, form in FORMS.items() if not form.is_capturable] == ["loreft"]


@pytest.mark.parametrize("culprit", [LORA, HOULSBY, BITFIT, IA3])
def test_one_culprit_among_four_new_kinds_is_found(culprit: str) -> None:
    cohort = [LORA, HOULSBY, BITFIT, IA3]
    captured, failures = simulated({culprit}, cohort)
    assert captured == [name for name in cohort if name != culprit]
    assert failures == (1 if culprit == cohort[-1] else 2), "the last one is what is left"


def test_a_culprit_beside_kinds_that_were_captured_is_known_at_once() -> None:
    capturable = Capturable()
    capturable.captured(runs(LORA, BITFIT))
    assert capturable.failed(runs(LORA, HOULSBY, BITFIT))
    assert split(capturable, LORA, HOULSBY, BITFIT, IA3) == ([LORA, BITFIT, IA3], [HOULSBY])


def test_a_kind_by_itself_is_the_culprit_and_keeps_others_like_it_apart() -> None:
    capturable = Capturable()
    assert capturable.failed(runs(LORA))
    assert split(capturable, "lora-all", LORA, BITFIT) == ([BITFIT], ["lora-all", LORA])


def test_two_culprits_are_found() -> None:
    captured, failures = simulated({HOULSBY, IA3}, [LORA, HOULSBY, BITFIT, IA3])
    assert captured == [LORA, BITFIT]
    assert failures == 3


def test_a_failure_of_kinds_that_were_captured_before_names_nobody() -> None:
    capturable = Capturable()
    capturable.captured(runs(LORA, BITFIT))
    assert not capturable.failed(runs(LORA, BITFIT))
    assert split(capturable, LORA, BITFIT) == ([LORA, BITFIT], [])
