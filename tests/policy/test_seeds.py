"""Seeds: their labels, widths for a stated tuned %, and landmarks without parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.composition import Scaled
from peftsearch.design.form import Prefix
from peftsearch.design.methods import METHODS
from peftsearch.design.shapes import BackboneShapes
from peftsearch.policy.seeds import Seed, seeds_of
from peftsearch.space.decode import decode
from peftsearch.space.encode import Replay
from peftsearch.space.file.document import Document, dump_yaml
from peftsearch.space.file.seed_method import SeedMethod
from peftsearch.space.space import Space
from support.spaces import shipped

SPACE = """schema: 1
budgets: {{tuned_pct: {{log: [0.01, 1.2]}}, epochs: 1}}
places: {{attn: {{at: [query+value]}}, ffn: {{at: [out]}}}}
choices:
  attn: {{form: [none, linear], composition: [add, {{scaled: {{s: [2, 4]}}}}]}}
  ffn: {{form: [none, relu], composition: [add, {{scaled: {{s: [2, 4]}}}}]}}
train: {{lr: {{log: [1e-4, 1e-2]}}}}
seed_with: {seeds}
"""


@pytest.fixture(scope="module")
def shapes(minilm: Path) -> BackboneShapes:
    return load_shapes("demo:minilm")


def seeds(wanted: str, shapes: BackboneShapes) -> tuple[Space, list[Seed]]:
    space = Space(Document("s", SPACE.format(seeds=wanted)))
    return space, seeds_of(space, shapes)


@pytest.mark.parametrize("name", ["unified", "demo"])
def test_a_shipped_spaces_seeds_replay_and_its_landmarks_have_no_parameters(
    name: str, shapes: BackboneShapes
) -> None:
    space = shipped(name)
    found = seeds_of(space, shapes)
    assert len({seed.label for seed in found}) == len(found) == len(space.file.seed_with)
    for seed in found:
        if METHODS[seed.method].modifications and seed.method != "full":
            assert (
                decode(space.on(shapes), Replay(seed.params or {})).configuration
                == seed.configuration
            )
        else:
            assert seed.params is None


@pytest.mark.parametrize("tuned_pct", [0.01, 0.05, 0.3, 1.1])
def test_widths_are_solved_for_a_stated_tuned_pct(tuned_pct: float, shapes: BackboneShapes) -> None:
    _, (seed,) = seeds(f"[{{method: lora, tuned_pct: {tuned_pct}}}]", shapes)
    assert seed.label == f"lora at {tuned_pct:g} %"
    assert seed.params is not None
    unit = 100 * 2 * (384 + 384) / shapes.body_parameters  # query and value of one layer, r=1
    assert tuned_pct - unit < seed.configuration.tuned_pct(shapes) <= tuned_pct


def test_a_method_without_a_stated_tuned_pct_has_its_authors_widths(
    shapes: BackboneShapes,
) -> None:
    _, (seed,) = seeds("[lora]", shapes)
    assert [m.width for m in seed.configuration.modifications] == [8]


def test_a_method_outside_the_budgets_is_scaled_to_the_nearest_bound(
    shapes: BackboneShapes,
) -> None:
    own = METHODS["scaled-parallel-adapter"].modifications[0]
    assert 100 * own.parameters(shapes) / shapes.body_parameters > 1.2
    _, (seed,) = seeds("[scaled-parallel-adapter]", shapes)
    assert seed.params is not None
    assert 1.18 < seed.configuration.tuned_pct(shapes) <= 1.2


def test_of_two_seeds_alike_one_is_kept_and_of_what_fits_nothing_none(
    shapes: BackboneShapes,
) -> None:
    _, found = seeds("[lora, head-only-mean, lora, {method: lora, tuned_pct: 0.001}]", shapes)
    assert [seed.label for seed in found] == ["lora", "head-only-mean"]


def test_a_stated_rate_is_taken_into_the_spaces_range(shapes: BackboneShapes) -> None:
    _, (stated, beyond) = seeds(
        "[{method: lora, lr: 2e-3}, {method: lora, tuned_pct: 0.1, lr: 1}]", shapes
    )
    assert stated.configuration.training.lr_of("linear") == 2e-3
    assert beyond.configuration.training.lr_of("linear") == 1e-2


def test_a_seed_may_state_its_widths_its_scale_and_how_its_prefix_is_trained(
    shapes: BackboneShapes,
) -> None:
    plain = shipped("mix-and-match")
    stated = SeedMethod(method="mam", widths=(30, 100), s=4, reparametrise="mlp", lr=2e-3)
    file = plain.file.model_copy(update={"seed_with": (stated, SeedMethod(method="mam"))})
    space = Space(Document("s.yaml", dump_yaml(file.to_plain())))
    first, second = seeds_of(space, shapes)
    prefix, adapter = first.configuration.modifications
    assert (first.label, second.label) == ("mam 30, 100", "mam")
    assert (prefix.width, adapter.width) == (30, 100)
    assert (prefix.form, adapter.composition) == (Prefix(mlp=800), Scaled(4))
    assert dict(first.configuration.training.lr) == {"prefix": 2e-3, "relu": 2e-3}
    assert decode(space.on(shapes), Replay(first.params or {})).configuration == first.configuration
