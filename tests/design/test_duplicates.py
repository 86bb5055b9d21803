"""Refused repetitions: the form that validity advises computes the same function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftsearch.design.composition import Add, Composition, CompositionContext, Gated, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Form, Gelu, Linear, Prefix, Relu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import SiteShape
from peftsearch.errors import ConfigurationError

D, R = 6, 3
NOWHERE = CompositionContext(torch.empty(0))
SITE = SiteShape("layers.0.attn.heads", "attn.heads", 0, D, D, D, kv_heads=2, head_dim=3)
PROJECTION = Parallel("projection_input")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bottleneck(form: Form, seed: int, d_in: int = D) -> dict[str, Tensor]:
    shapes = form.tensors(SITE, d_in, R)
    return {n: random(*s, seed=seed + i) for i, (n, s) in enumerate(shapes.items())}


@pytest.mark.parametrize("form", [Linear(), Relu(), Gelu(), Relu(bias=True)])
def test_rule_6_two_modules_at_one_site_are_one_of_the_sum_of_their_widths(form: Form) -> None:
    first, second, x = bottleneck(form, 1), bottleneck(form, 5), random(2, 4, D, seed=9)
    both = {
        "down": torch.cat((first["down"], second["down"]), 1),
        "up": torch.cat((first["up"], second["up"]), 0),
    }
    if "up_bias" in first:
        both["down_bias"] = torch.cat((first["down_bias"], second["down_bias"]))
        both["up_bias"] = first["up_bias"] + second["up_bias"]
    apart = form.delta(first, x) + form.delta(second, x)
    assert (apart - form.delta(both, x)).abs().max() < 1e-12


def test_rule_3_an_ungated_prefix_of_one_vector_is_a_constant_and_its_key_is_dead() -> None:
    keys, values = random(2, 1, 3, seed=1).requires_grad_(), random(2, 1, 3, seed=2)
    delta = Prefix().delta({"keys": keys, "values": values}, random(5, 2, 4, 3))
    assert torch.equal(delta, values.expand(5, 2, 4, 3))
    delta.pow(2).sum().backward()  # type: ignore[no-untyped-call]
    assert keys.grad is not None
    assert not keys.grad.any()


def test_rule_4_a_scale_of_one_is_plain_addition() -> None:
    h, delta = random(2, 3, seed=1), random(2, 3, seed=2)
    ones = {"s": torch.ones(1, dtype=torch.float64)}
    assert torch.equal(
        Scaled("learned").compose(ones, h, delta, NOWHERE), Add().compose({}, h, delta, NOWHERE)
    )


def test_rule_5_parallel_linear_at_a_linear_layer_merges_into_it() -> None:
    w, bias, x = random(D, D, seed=1), random(D, seed=2), random(2, 4, D, seed=3)
    t = bottleneck(Linear(), 4)
    beside = Scaled(4).compose({}, x @ w + bias, Linear().delta(t, x), NOWHERE)
    merged = x @ (w + 4 * t["down"] @ t["up"]) + bias
    assert (beside - merged).abs().max() < 1e-12


def test_rule_5_sequential_linear_merges_where_h_is_a_linear_layers_output() -> None:
    w, bias, x = random(D, D, seed=1), random(D, seed=2), random(2, 4, D, seed=3)
    t = bottleneck(Linear(), 4)
    h = x @ w + bias
    after = Add().compose({}, h, Linear().delta(t, h), NOWHERE)
    grown = torch.eye(D, dtype=torch.float64) + t["down"] @ t["up"]
    assert (after - (x @ (w @ grown) + bias @ grown)).abs().max() < 1e-12


def test_rule_6_before_and_after_the_output_projection_have_one_capacity() -> None:
    """ReLU(x A) B at the heads is ReLU(x A) (B W_o) after W_o: the one that is kept."""
    x, w_o, t = random(2, 4, D, seed=1), random(D, D, seed=2), bottleneck(Relu(), 3)
    before = Relu().delta(t, x) @ w_o
    after = Relu().delta({"down": t["down"], "up": t["up"] @ w_o}, x)
    assert (before - after).abs().max() < 1e-12


def test_rule_7_a_bias_on_the_keys_changes_no_attention_weight() -> None:
    q, k, b = random(4, D, seed=1), random(4, D, seed=2), random(D, seed=3)
    plain, biased = (q @ k.T).softmax(-1), (q @ (k + b).T).softmax(-1)
    assert (plain - biased).abs().max() < 1e-12


def test_a_bias_on_the_values_is_a_bias_on_the_heads() -> None:
    weights, v, b = random(4, 4).softmax(-1), random(4, D, seed=2), random(D, seed=3)
    assert (weights @ (v + b) - (weights @ v + b)).abs().max() < 1e-12


# -- what meets at one site --------------------------------------------------------------------


def modification(
    form: Form, place: str, insertion: Insertion, composition: Composition = Add()
) -> Modification:
    width = 4 if form.width_symbol else None
    return Modification(form, Place.parse(place), insertion, composition, width)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            modification(Linear(), "attn.query+value", Parallel(), Scaled(2)),
            modification(Linear(), "attn.query+key+value+out", PROJECTION),
        ),
        (
            modification(Linear(), "ffn.hidden", Parallel()),
            modification(Linear(init="bert"), "ffn.hidden+out", PROJECTION),
        ),
        (
            modification(Prefix(), "attn.heads", Parallel(), Gated()),
            modification(Prefix(), "attn.heads", Parallel()),
        ),
        (
            modification(Constant(), "attn.out", Parallel()),
            modification(Constant(), "attn.query+out", Parallel()),
        ),
        (
            modification(Constant(), "ffn.out", Parallel()),
            modification(Constant(), "biases", Parallel()),
        ),
    ],
)
def test_two_of_one_form_that_read_one_vector_at_one_site_are_refused(
    first: Modification, second: Modification
) -> None:
    for pair in ((first, second), (second, first)):
        with pytest.raises(ConfigurationError, match=r"one modification with the sum|holds biases"):
            Configuration(pair)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            modification(Relu(), "ffn.out", Parallel()),
            modification(Relu(), "ffn.out", PROJECTION),
        ),
        (
            modification(Relu(), "ffn.out", Parallel()),
            modification(Relu(), "ffn.out", Sequential()),
        ),
        (
            modification(Relu(), "ffn.out", Parallel()),
            modification(Gelu(), "ffn.out", Parallel()),
        ),
        (
            modification(Linear(), "attn.query", Parallel()),
            modification(Linear(), "attn.value", Parallel()),
        ),
    ],
)
def test_what_reads_another_vector_or_is_another_form_may_meet(
    first: Modification, second: Modification
) -> None:
    assert len(Configuration((first, second)).modifications) == 2


@pytest.mark.parametrize("composition", [Gated(), Scaled(2), Scaled("learned")])
def test_rule_1_the_exact_gate_stands_with_a_prefix_alone(composition: Composition) -> None:
    assert modification(Prefix(), "attn.heads", Parallel(), composition).form == Prefix()
    for form in (Linear(), Relu(), Gelu()):
        if isinstance(composition, Gated):
            with pytest.raises(ConfigurationError, match="needs the softmax form"):
                modification(form, "attn.heads", Parallel(), composition)
        else:
            modification(form, "attn.heads", Parallel(), composition)


@pytest.mark.parametrize("s", [0, -1, float("inf"), float("nan"), "4", None, True], ids=str)
def test_a_scale_is_positive_finite_and_not_one(s: object) -> None:
    with pytest.raises(ConfigurationError, match="scale s="):
        Scaled(s)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "layers", "sentence"),
    [
        (0, None, "width 0 is below 1"),
        (True, None, "width True is below 1"),
        ((2, 0), (0, 1), r"width \(2, 0\) is below 1"),
        ((2, 3, 4), (0, 1), "3 widths for 2 layers"),
        ((2, 2, 2), (0, 1), "3 widths for 2 layers"),
    ],
)
def test_widths_are_whole_positive_and_one_a_layer(
    width: int | tuple[int, ...], layers: tuple[int, ...] | None, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Modification(Relu(), Place(("ffn.out",), layers), width=width)


def test_equal_widths_are_written_as_one() -> None:
    assert Modification(Relu(), Place(("ffn.out",), (0, 1)), width=(3, 3)).width == 3


def test_a_form_without_a_width_refuses_one() -> None:
    with pytest.raises(ConfigurationError, match="form 'constant' has no width"):
        Modification(Constant(), Place.parse("biases"), width=4)
