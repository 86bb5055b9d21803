"""LoRA as a landmark: three sizes of the space's budgets, at the best of three rates."""

from __future__ import annotations

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.policy.history import History, TrialRecord
from peftsearch.policy.seeds import Seed
from peftsearch.policy.tuned_lora import TunedLora
from peftsearch.space.decode import decode
from peftsearch.space.encode import Replay
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space

SPACE = """schema: 1
budgets: {{tuned_pct: {{log: {budgets}}}, epochs: 1}}
places: {{attn: {{at: [query+value]}}, ffn: {{at: [out]}}}}
choices:
  attn: {{form: [none, linear], composition: [add, {{scaled: {{s: [2, 4]}}}}]}}
  ffn: {{form: [none, relu]}}
train: {{lr: {lr}}}
"""
SHAPES = load_shapes("config:minilm-l6")
UNIT = 100 * 2 * (384 + 384) / SHAPES.body_parameters
"""Tuned % of r = 1 in one layer: the two factors at query and at value."""


def space(budgets: str = "[0.01, 10]", lr: str = "{log: [1e-4, 1e-1]}") -> Space:
    return Space(Document("s", SPACE.format(budgets=budgets, lr=lr)))


def tuned_pcts(seeds: tuple[Seed, ...]) -> list[float]:
    return [seed.configuration.tuned_pct(SHAPES) for seed in seeds]


def rates(seeds: tuple[Seed, ...]) -> list[float]:
    return [seed.configuration.training.lr_of("linear") for seed in seeds]


def history(*trials: TrialRecord) -> History:
    return History(trials, (0.25, 1.0))


def record(number: int, seed: Seed, metric: float | None = 0.5, state: str = "full") -> TrialRecord:
    label, digest = seed.label, seed.configuration.hash
    return TrialRecord(number, state, "seed", label, digest, metric=metric)  # type: ignore[arg-type]


def test_sizes_and_rates_are_the_middles_of_the_thirds_of_their_ranges() -> None:
    lora = TunedLora(space(), SHAPES)
    expected = [0.01 * 1000 ** (k / 6) for k in (3, 3, 3, 1, 5)]
    for found, budget in zip(tuned_pcts(lora.examples), expected, strict=True):
        assert 0.98 * budget - UNIT < found <= 1.02 * budget  # two digits, whole units
    thirds = [1e-4 * 1000 ** (k / 6) for k in (3, 1, 5, 3, 3)]
    assert rates(lora.examples) == pytest.approx(thirds, rel=0.02)
    assert len({seed.label for seed in lora.examples}) == 5


def test_its_configurations_are_points_of_the_space() -> None:
    one, lora = space(), TunedLora(space(), SHAPES)
    assert lora.is_in_the_space
    for seed in lora.examples:
        assert decode(one.on(SHAPES), Replay(seed.params or {})).configuration == seed.configuration


@pytest.mark.parametrize("best", range(3))
def test_small_and_large_have_the_rate_that_was_best_in_the_middle(best: int) -> None:
    lora = TunedLora(space(), SHAPES)
    ended = [record(n, seed, 0.9 if n == best else 0.8) for n, seed in enumerate(lora.rates)]
    small, large = lora.wanted(history(*ended))[3:]
    assert rates((small, large)) == [rates(lora.rates)[best]] * 2
    low, middle, high = tuned_pcts((small, lora.rates[best], large))
    assert low < middle < high


def test_they_wait_until_every_rate_has_ended() -> None:
    lora = TunedLora(space(), SHAPES)
    one, other, last = lora.rates
    assert lora.wanted(history()) == lora.rates
    running = record(2, last, None, "running")
    assert lora.wanted(history(record(0, one), record(1, other), running)) == lora.rates
    lost = TrialRecord(2, "failed", seed=last.label)  # its worker was killed before it was recorded
    assert lora.wanted(history(record(0, one), record(1, other), lost)) == lora.rates


def test_a_rate_that_fails_is_not_the_best_and_does_not_hold_up_the_sizes() -> None:
    lora = TunedLora(space(), SHAPES)
    failed = [record(n, seed, None, "failed") for n, seed in enumerate(lora.rates)]
    assert rates(lora.wanted(history(*failed))[3:]) == [rates(lora.rates)[0]] * 2
    worse = record(1, lora.rates[1], 0.1)
    assert (
        rates(lora.wanted(history(failed[0], worse, failed[2]))[3:]) == [rates(lora.rates)[1]] * 2
    )


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        ("0.002", [0.002]),
        ("[0.01, 0.001]", [0.01, 0.001]),
        ("[1e-4, 1e-3, 1e-2]", [1e-3, 1e-4, 1e-2]),
        ("[1, 2, 3, 4, 5, 6, 7]", [4, 2, 6]),
        ("{prefix: 0.002}", [1e-3]),  # no rule for LoRA's form: its typical rate
    ],
)
def test_a_space_with_few_rates_is_tuned_over_these(lr: str, expected: list[float]) -> None:
    assert rates(TunedLora(space(lr=lr), SHAPES).rates) == expected


def test_with_a_single_rate_no_size_waits() -> None:
    lora = TunedLora(space(lr="0.002"), SHAPES)
    assert len(lora.wanted(history())) == 3


def test_sizes_are_those_that_lora_reaches() -> None:
    lora = TunedLora(space("[0.00001, 0.1]"), SHAPES)
    assert min(tuned_pcts(lora.examples)) == pytest.approx(UNIT)
    assert TunedLora(space("[0.00001, 0.001]"), SHAPES).examples == ()
