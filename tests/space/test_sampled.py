"""Thousands of configurations of every shipped space: none invalid, none twice, none degenerate.

The rules of the design space (docs/design-space.md) are written out here once more, on sites and
tensors, independently of `design/validity.py`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import combinations

import pytest
from transformers import AutoConfig

from peftsearch.backbone.loading.load import shapes_of
from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.allocate import cost_range, layer_costs
from peftsearch.space.decode import Sample, decode
from peftsearch.space.file.shipped import shipped_spaces
from peftsearch.space.random_samples import RandomSuggestions
from peftsearch.space.space import Space
from support.spaces import shipped

_TIMES = int(os.environ.get("PEFTSEARCH_MANY_SAMPLES", "1"))
SAMPLES = {"minilm": 2_000 * _TIMES, "bart-base": 1_000 * _TIMES, "llama-1b": 500 * _TIMES}
"""Samples of every shipped space; with PEFTSEARCH_MANY_SAMPLES=6 six times as many: 21,000."""


@lru_cache
def shapes_named(name: str) -> BackboneShapes:
    """Public configuration values; no weights, no download."""
    if name == "minilm":
        options = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
        return shapes_of(AutoConfig.for_model("bert", num_attention_heads=12, **options))
    if name == "bart-base":
        sides = {
            f"{side}_{key}": value
            for side in ("encoder", "decoder")
            for key, value in (("layers", 6), ("attention_heads", 12), ("ffn_dim", 3072))
        }
        return shapes_of(AutoConfig.for_model("bart", d_model=768, **sides))
    return shapes_of(
        AutoConfig.for_model(
            "llama",
            vocab_size=128256,
            hidden_size=2048,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=64,
            intermediate_size=8192,
            tie_word_embeddings=True,
        )
    )


def broken_rule(modification: Modification) -> str | None:
    """The rule of methods.md's list that a modification breaks, said in its own words."""
    form, names = modification.form.name, set(modification.place.names)
    insertion, composition = modification.insertion.name, modification.composition
    reads = getattr(modification.insertion, "reads", "h")
    widths = modification.width if isinstance(modification.width, tuple) else (modification.width,)
    bottleneck = form in ("linear", "relu", "gelu", "silu", "swiglu", "kronecker")
    if composition.name == "gated" and (form, insertion) not in (
        ("prefix", "parallel"),
        ("prompt", "parallel"),
    ):
        return "1: the exact gate without a softmax"
    if form in ("prefix", "prefix_relu") and (names != {"attn.heads"} or insertion != "parallel"):
        return "2: a form per head elsewhere"
    if form == "prefix" and composition.name != "gated" and min(w or 0 for w in widths) < 2:
        return "3: an ungated softmax over one key"
    if getattr(composition, "s", None) == 1 and composition.name == "scaled":
        return "4: s = 1"
    if form == "linear" and insertion == "sequential" and names & {"attn.out"}:
        return "5: LoRA on W_o in disguise"
    if bottleneck and "attn.out" in names and (insertion, reads) == ("parallel", "sublayer_input"):
        return "6: before W_o in disguise"
    if bottleneck and insertion == "sequential" and any(n.startswith("attn.") for n in names):
        return None if names == {"attn.out"} else "6: absorbed by a projection"
    if form == "constant" and names & {"attn.key", "attn.value", "attn.heads"}:
        return "7: a bias that gets no gradient, or is one at attn.out"
    if composition.name == "tanh_gate" and modification.form.identity_at_init:
        return "a gate that never opens"
    if any(w is not None and w < 1 for w in widths):
        return "a width below one"
    return None


def vectors_read(modification: Modification, shapes: BackboneShapes) -> set[tuple[str, str, str]]:
    """(form, site, what it reads there): two modules that share one are one."""
    reads = getattr(modification.insertion, "reads", "h")
    found = set()
    for site in modification.place.sites(shapes):
        own_input = site.place not in ("attn.out", "ffn.out", "attn.heads")
        same = reads in ("sublayer_input", "projection_input") and own_input
        found.add((modification.form.name, site.key, "x" if same else reads))
    return found


def check(sample: Sample, shapes: BackboneShapes) -> None:
    configuration = sample.configuration
    if configuration is None:
        assert sample.log_excess > 0
        return
    for modification in configuration.modifications:
        assert broken_rule(modification) is None, modification.describe()
        assert modification.within(shapes) == modification
        widest = max(modification.maximum_width(shapes), modification.minimum_width)
        assert modification.widest <= widest or not modification.has_width
    for first, second in combinations(configuration.modifications, 2):
        assert not vectors_read(first, shapes) & vectors_read(second, shapes)
    if sample.budget_pct is not None:
        assert configuration.tuned_pct(shapes) <= sample.budget_pct * (1 + 1e-9)


def assert_written_once(space: Space, shapes: BackboneShapes) -> None:
    """Structures of a slot are written differently, each from every other."""
    within = space.on(shapes).by_depth.values()
    for slot in (slot for offered in within for slot in offered.slots):
        written = [
            m.with_width(m.minimum_width if m.has_width else None) for m in slot.written.values()
        ]
        assert len(written) == sum(not s.is_empty for s in slot.structures)
        tuned = [
            (*facts_of(m), *((t.name, t.shape) for t in m.tuned_tensors(shapes))) for m in written
        ]
        assert len(set(tuned)) == len(tuned)


def facts_of(modification: Modification) -> tuple[object, ...]:
    """The dimensions but the place, of which its tensors speak."""
    return modification.form, modification.insertion, modification.composition


def unit(configuration: Configuration, shapes: BackboneShapes) -> int:
    """Least cost of one more unit of width in one layer: no less than it can be spent."""
    open_ones = [m.with_width(None) for m in configuration.modifications if m.has_width]
    costs = [layer_costs(m, shapes) for m in open_ones]
    return min((own for cost in costs for _, own in cost.each), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("model", SAMPLES)
@pytest.mark.parametrize("name", shipped_spaces())
def test_no_sample_is_invalid_or_degenerate_and_no_structure_is_there_twice(
    name: str, model: str
) -> None:
    space, shapes = shipped(name), shapes_named(model)
    assert_written_once(space, shapes)
    placed, source = space.on(shapes), RandomSuggestions(7)
    seen: dict[Configuration, tuple[str, object]] = {}
    reached = used = 0
    # The recipes are smaller spaces of places and forms that the others have as well.
    few = space.file.recommended is not None
    for _ in range(SAMPLES[model] // (10 if few else 1)):
        sample = decode(space.on(shapes), source)
        check(sample, shapes)
        if sample.configuration is None:
            continue
        # Rates are continuous: a configuration that comes twice came from one structure twice.
        here = (sample.depth, sample.structure)
        first = seen.setdefault(sample.configuration, here)
        assert first == here or len(sample.configuration.modifications) < 2
        if sample.budget_pct is None:
            continue
        budget = int(sample.budget_pct / 100 * shapes.body_parameters + 1e-6)
        asked = [
            slot.written[structure]
            for slot, structure in zip(
                placed.by_depth[sample.depth].slots, sample.structure, strict=True
            )
            if not structure.is_empty
        ]
        least, greatest = cost_range(asked, shapes)
        if least <= budget <= greatest:
            reached += 1
            tuned = sample.configuration.tuned_parameters(shapes)
            used += tuned >= 0.8 * budget or budget - tuned < unit(sample.configuration, shapes)
    assert used >= 0.95 * reached
