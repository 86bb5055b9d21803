"""Sampling a space: never invalid, never over budget, and back again exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.configuration import Configuration
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.allocate import allocate, cost_range
from peftsearch.space.decode import Sample, decode
from peftsearch.space.encode import NotExpressible, Replay, encode
from peftsearch.space.file.document import Document
from peftsearch.space.random_samples import RandomSuggestions
from peftsearch.space.space import Space
from support.spaces import shipped

SAMPLES = 2000


@pytest.fixture(scope="module")
def shapes(minilm: object) -> BackboneShapes:
    return load_shapes("demo:minilm")


class Recording(RandomSuggestions):
    """Random suggestions that keep what was offered and given."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.offered: dict[str, set[tuple[Any, ...]]] = {}
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        self.offered.setdefault(name, set()).add(tuple(choices))
        self.params[name] = super().suggest_categorical(name, choices)
        return self.params[name]

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.offered.setdefault(name, set()).add((low, high, log))
        self.params[name] = super().suggest_float(name, low, high, log=log)
        return float(self.params[name])


@pytest.fixture(scope="module", params=[pytest.param("unified", marks=pytest.mark.slow), "demo"])
def sampled(
    request: pytest.FixtureRequest, shapes: BackboneShapes
) -> tuple[Space, list[Sample], Recording]:
    space = shipped(request.param)
    source = Recording(7)
    return space, [decode(space.on(shapes), source) for _ in range(SAMPLES)], source


def fitting(samples: list[Sample]) -> Iterator[tuple[Sample, Configuration]]:
    for sample in samples:
        if sample.configuration is not None:
            yield sample, sample.configuration


@pytest.mark.slow
def test_the_cost_never_exceeds_the_budget(
    sampled: tuple[Space, list[Sample], Recording], shapes: BackboneShapes
) -> None:
    for sample, configuration in fitting(sampled[1]):
        if sample.budget_pct is not None:
            assert configuration.tuned_pct(shapes) <= sample.budget_pct * (1 + 1e-12)


@pytest.mark.slow
def test_the_budget_is_used_wherever_the_structure_reaches_it(
    sampled: tuple[Space, list[Sample], Recording], shapes: BackboneShapes
) -> None:
    _, samples, _ = sampled
    used = []
    for sample, configuration in fitting(samples):
        if sample.budget_pct is None:
            continue
        filled = [s for s in sample.structure if not s.is_empty]
        open_modifications = [s.modification(shapes, 2.0, sample.depth) for s in filled]
        budget = sample.budget_pct / 100 * shapes.body_parameters
        low, high = cost_range(open_modifications, shapes)
        if low <= budget <= high:
            used.append(configuration.tuned_parameters(shapes) / budget)
    share = sum(u >= 0.8 for u in used) / len(used)
    assert len(used) > SAMPLES / 2
    assert share >= 0.95


def test_few_samples_fit_nothing_and_they_say_by_how_much(
    sampled: tuple[Space, list[Sample], Recording],
) -> None:
    infeasible = [s for s in sampled[1] if s.configuration is None]
    assert len(infeasible) < 0.02 * SAMPLES
    assert all(s.log_excess > 0 for s in infeasible)


@pytest.mark.slow
def test_every_sample_is_canonical_and_tunes_something(
    sampled: tuple[Space, list[Sample], Recording], shapes: BackboneShapes
) -> None:
    for _, configuration in fitting(sampled[1]):
        assert configuration.modifications
        assert configuration.within(shapes) == configuration
        for modification in configuration.modifications:
            assert Modification.from_json(modification.to_json()) == modification


def test_a_parameter_offers_the_same_choices_in_every_trial(
    sampled: tuple[Space, list[Sample], Recording],
) -> None:
    assert all(len(offers) == 1 for offers in sampled[2].offered.values())


def test_forbidden_combinations_never_appear(
    sampled: tuple[Space, list[Sample], Recording],
) -> None:
    space, samples, _ = sampled
    names = [slot.name for slot in space.slots]
    for sample in samples:
        words = {
            f"{name}.{key}": value
            for name, structure in zip(names, sample.structure, strict=True)
            for key, value in vars(structure).items()
        }
        for rule in space.file.forbid:
            assert any(words[key] != value for key, value in rule.items())


@pytest.mark.slow
def test_decoding_what_was_encoded_gives_the_configuration_back(
    sampled: tuple[Space, list[Sample], Recording], shapes: BackboneShapes
) -> None:
    """About one sample in 500 of `unified` has no parameters but those of what it had to leave out:
    a place that took up, in fewer layers, what others were dropped for.
    """
    space, samples, _ = sampled
    refused = 0
    for _, configuration in itertools.islice(fitting(samples), 400):
        try:
            params = encode(space.on(shapes), configuration)
        except NotExpressible:
            refused += 1
            continue
        assert decode(space.on(shapes), Replay(params)).configuration == configuration
    assert refused <= 2


LANDMARKS = ("head-only-first", "head-only-mean", "full", "bitfit-all")
"""At 0 %, at 100 %, and with dead biases among the tuned."""


@pytest.mark.parametrize("name", METHODS)
def test_unified_expresses_every_method_but_the_landmarks(
    name: str, shapes: BackboneShapes
) -> None:
    space = shipped("unified")
    forms = [m.form.name for m in METHODS[name].modifications]
    configuration = METHODS[name].configuration(
        space.nearest_head(METHODS[name].head), space.nearest_training(forms)
    )
    if name not in LANDMARKS:
        params = encode(space.on(shapes), configuration)
        assert decode(space.on(shapes), Replay(params)).configuration == configuration.within(
            shapes
        )
    else:
        with pytest.raises(NotExpressible):
            encode(space.on(shapes), configuration)


def test_optunas_own_trials_decode_alike(shapes: BackboneShapes) -> None:
    space = shipped("unified")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(50):
        trial = study.ask()
        sample = decode(space.on(shapes), trial)
        again = decode(space.on(shapes), Replay(trial.params))
        assert again.configuration == sample.configuration


SMALL = """schema: 1
budgets: {tuned_pct: {log: [0.1, 10]}, epochs: 1}
places: {a: {at: [attn.query+value, attn.heads]}, f: {at: [ffn.out]}}
choices:
  a: {form: [none, linear, prefix], insertion: [parallel, sequential], composition: [add, gated]}
  f: {form: [none, relu], insertion: [parallel, sequential], composition: [add, scaled]}
forbid: [{a.form: prefix, f.insertion: sequential}, {a.form: none, f.form: none}]
"""


def test_structures_are_counted_as_brute_force_counts_them() -> None:
    space = Space(Document("small", SMALL))
    # a: none; linear at q+v, at heads (parallel, add); prefix at heads (add, gated)
    # f: none; relu parallel or sequential, add or scaled
    assert [len(slot.structures) for slot in space.slots] == [5, 5]
    allowed = [
        (a, f)
        for a, f in itertools.product(*(slot.structures for slot in space.slots))
        if not (a.form == "prefix" and f.insertion == "sequential")
        and not (a.is_empty and f.is_empty)
    ]
    assert space.count_structures() == len(allowed) == 20
    seen = {space.tree.walk(RandomSuggestions(seed)) for seed in range(600)}
    assert seen == set(allowed)


# -- budgets → widths --------------------------------------------------------------------------


def solved(names: list[str], shares: list[float], pct: float, shapes: BackboneShapes) -> Any:
    modifications = [m.with_width(None) for n in names for m in METHODS[n].modifications]
    budget = int(pct / 100 * shapes.body_parameters)
    return budget, allocate(modifications, shares, budget, shapes)


@pytest.mark.parametrize("name", ["lora", "prefix", "scaled-parallel-adapter", "lora-all"])
def test_a_larger_budget_never_buys_less(name: str, shapes: BackboneShapes) -> None:
    places = len(METHODS[name].modifications)
    costs = []
    for step in range(120):
        budget, allocation = solved(
            [name], [1 / places] * places, 0.01 * math.exp(step * 0.06), shapes
        )
        if allocation.fits:
            assert allocation.cost <= budget
            costs.append(allocation.cost)
    if places == 1:
        assert costs == sorted(costs)
    assert len(costs) > 100


def test_what_is_left_over_widens_the_upper_layers(shapes: BackboneShapes) -> None:
    _, allocation = solved(["lora"], [1.0], 0.06, shapes)  # r=1 in all costs .0408 %
    assert allocation.modifications[0].width == (1, 1, 1, 1, 2, 2)


def test_too_small_a_budget_thins_layers_and_keeps_the_upper_ones(shapes: BackboneShapes) -> None:
    _, allocation = solved(["lora"], [1.0], 0.03, shapes)
    assert allocation.modifications[0].place.layers == (2, 3, 4, 5)
    assert allocation.modifications[0].width == 1


def test_a_place_whose_share_buys_nothing_is_dropped_and_its_share_passes_on(
    shapes: BackboneShapes,
) -> None:
    budget, allocation = solved(["lora", "scaled-parallel-adapter"], [0.999, 0.001], 0.4, shapes)
    assert [m.form.name for m in allocation.modifications] == ["linear"]
    assert allocation.cost > 0.95 * budget


def test_the_surplus_of_a_capped_place_passes_on(shapes: BackboneShapes) -> None:
    budget, allocation = solved(["lora", "scaled-parallel-adapter"], [0.9, 0.1], 20.0, shapes)
    by_form = {m.form.name: m.width for m in allocation.modifications}
    assert by_form["linear"] == 384
    assert allocation.cost > 0.99 * budget


def test_what_has_no_width_is_paid_first_and_left_out_where_it_does_not_fit(
    shapes: BackboneShapes,
) -> None:
    _, both = solved(["bitfit", "lora"], [1.0], 0.2, shapes)
    assert {m.form.name for m in both.modifications} == {"constant", "linear"}
    _, one = solved(["bitfit", "lora"], [1.0], 0.1, shapes)
    assert {m.form.name for m in one.modifications} == {"linear"}


def test_where_not_even_one_layer_fits_the_least_cost_is_told(shapes: BackboneShapes) -> None:
    _, allocation = solved(["lora"], [1.0], 0.005, shapes)
    assert not allocation.fits
    assert allocation.cost == 2 * (384 + 384)
