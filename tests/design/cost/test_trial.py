"""Predicted costs: against recorded seconds, PyTorch's own count, and known differences."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from peftsearch.backbone.loading.load import load_shapes, shapes_of
from peftsearch.design.composition import Gated
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.cost import body
from peftsearch.design.cost.body import body_layers
from peftsearch.design.cost.trial import TrialCost, Workload, scale_of, trial_cost
from peftsearch.design.form import Prompt
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.records.folder import StudyFolder
from support.shapes import config_of

STUDIES = Path(__file__).parents[3] / "studies"
LOAD = Workload(steps=100, batch=32, tokens=20, evaluated=500, evaluated_tokens=20)


@lru_cache
def bert() -> BackboneShapes:
    """12 layers."""
    return load_shapes("config:bert-base")


def cost_of(
    name: str,
    load: Workload = LOAD,
    layers: tuple[int, ...] | None = None,
    width: int | None = None,
) -> TrialCost:
    """A method's cost on BERT, in some layers."""
    modifications = tuple(m.on(layers) if layers else m for m in METHODS[name].modifications)
    if width is not None:
        modifications = tuple(m.with_width(width) for m in modifications)
    return trial_cost(Configuration(modifications).within(bert()), bert(), load)


# -- recorded seconds --------------------------------------------------------------------------


def bart_of_one_layer() -> BackboneShapes:
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in (("layers", 1), ("attention_heads", 1), ("ffn_dim", 1024))
    }
    options = {"vocab_size": 63, "max_position_embeddings": 64, "d_model": 128}
    return shapes_of(AutoConfig.for_model("bart", **options, **sides))


def smollm2() -> BackboneShapes:
    options = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }
    return shapes_of(AutoConfig.for_model("llama", **options))


RECORDED = {
    "sst2-minilm": (lambda: load_shapes("demo:minilm"), Workload(126, 32, 14, 1272, 25)),
    "mrpc-minilm": (lambda: load_shapes("demo:minilm"), Workload(126, 32, 55, 808, 55)),
    "g2p-british": (bart_of_one_layer, Workload(939, 64, 10, 1400, 10, target_tokens=10)),
    "headlines-smollm2": (smollm2, Workload(50, 16, 60, 160, 60, target_tokens=15)),
}
"""Steps, batches and evaluated texts of each study; tokens of a text are rounded guesses."""


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_seconds_are_predicted_from_one_scale_a_study(name: str) -> None:
    """Nine in ten within a factor of two, and half of them far closer: none of the four studies
    has trials that differ much more than that.
    """
    make, load = RECORDED[name]
    shapes, record = make(), StudyFolder.open(name, STUDIES).read()
    assert shapes.body_parameters == record.info.body_parameters
    full = [r for r in record.results if r.state == "full" and r.configuration is not None]
    trained = [r for r in full if (r.tuned_pct or 0) > 0]
    assert len(trained) >= 19
    costs = [
        trial_cost(
            Configuration.from_json(r.configuration or {}).within(shapes),
            shapes,
            load if r.kept_layers else load.without_kept(),
        ).total
        for r in trained
    ]
    scale = scale_of(costs, [r.cpu_s for r in trained])
    ratios = [scale * cost / r.cpu_s for cost, r in zip(costs, trained, strict=True)]
    assert sum(0.5 <= ratio <= 2 for ratio in ratios) >= 0.9 * len(ratios)
    assert median(abs(ratio - 1) for ratio in ratios) < 0.12
    assert 4e10 < 1 / scale < 2e11, "the order of `TYPICAL_S`"


# -- products ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama", "bart", "gpt2"])
def test_a_layers_products_are_those_that_pytorch_counts(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "ELEMENT", 0.0)
    config = config_of(family, attn_implementation="eager")
    model = AutoModel.from_config(config).eval()
    tokens = 7
    ids = torch.randint(3, 60, (1, tokens))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids)
    shapes = shapes_of(config)
    found = sum(layer.forward(tokens, tokens, tokens, 0) for layer in body_layers(shapes))
    counted = counter.get_total_flops() / 2
    if family == "bert":
        counted -= config.hidden_size**2  # the pooler, which is no part of the body
    assert found == pytest.approx(counted)


# -- what is expensive -------------------------------------------------------------------------


def prompt(width: int) -> Configuration:
    one = Modification(Prompt(), Place.parse("embedding"), composition=Gated(), width=width)
    return Configuration((one,)).within(bert())


def test_a_prompt_lengthens_every_text() -> None:
    short, long = (trial_cost(prompt(width), bert(), LOAD) for width in (1, 128))
    assert long.prompts > 5 * long.forward  # 148 tokens in place of 20
    assert long.total > 5 * short.total
    assert long.reason == "its prompt lengthens every text"


def test_a_sparse_change_trains_the_body() -> None:
    sparse, biases = cost_of("diff-pruning"), cost_of("bitfit")
    assert sparse.total > 1.5 * biases.total
    assert sparse.weights > 0.9 * biases.forward
    assert sparse.reason == "it tunes weights of the body themselves"
    assert biases.weights == 0


def test_upper_layers_are_cheap_and_cheaper_where_lower_states_are_kept() -> None:
    everywhere, last = cost_of("lora"), cost_of("lora", layers=(11,))
    assert last.total < 0.2 * everywhere.total
    assert last.backward == pytest.approx(everywhere.backward / 12)
    again = cost_of("lora", LOAD.without_kept(), layers=(11,))
    assert again.forward == pytest.approx(everywhere.forward)
    assert last.total < again.total < everywhere.total
    assert cost_of("lora", LOAD.without_kept()) == everywhere


def test_a_head_that_reads_one_token_saves_the_last_layer() -> None:
    last = tuple(m.on((11,)) for m in METHODS["houlsby"].modifications)
    mean, first = (
        trial_cost(Configuration(last, Head(pooling)).within(bert()), bert(), LOAD)
        for pooling in ("mean", "first")
    )
    assert first.backward < 0.4 * mean.backward  # keys and values, of every token
    assert first.modifications < 0.2 * mean.modifications


def test_a_wider_modification_costs_more() -> None:
    for name in ("lora", "prefix", "scaled-parallel-adapter", "vera"):
        costs = [cost_of(name, width=width).total for width in (2, 64, 256)]
        assert costs == sorted(costs)
    assert cost_of("prefix", width=256).prefixes > 50 * cost_of("prefix", width=4).prefixes


def test_training_twice_as_long_costs_twice_as_much_but_for_evaluation() -> None:
    once, twice = cost_of("mam"), cost_of("mam", replace(LOAD, steps=200))
    assert twice.evaluation == once.evaluation
    assert twice.total - twice.evaluation == pytest.approx(2 * (once.total - once.evaluation))


def test_checkpointing_computes_the_forward_anew_and_a_shorter_text_costs_less() -> None:
    lora = METHODS["lora"].configuration().within(bert())

    def trained(**options: Any) -> TrialCost:
        training = replace(lora.training, **options)
        return trial_cost(replace(lora, training=training), bert(), LOAD)

    plain, again = trained(), trained(checkpointing=True)
    assert again.backward == pytest.approx(2 * plain.backward)
    assert again.forward == plain.forward
    assert trained(max_length=64) == plain
    assert trained(max_length=10).total < 0.6 * plain.total


def test_a_model_that_is_not_trained_is_only_evaluated() -> None:
    cost = trial_cost(Configuration((), Head("none")), bert(), replace(LOAD, target_tokens=5))
    assert cost.total == cost.evaluation > 0


def test_a_scale_is_not_moved_by_one_slow_trial() -> None:
    assert scale_of([1.0, 2.0, 4.0], [2.0, 4.0, 80.0]) == 2.0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_cost(name: str) -> None:
    cost = cost_of(name)
    assert 0 < cost.evaluation < cost.total < math.inf
    assert cost.reason
