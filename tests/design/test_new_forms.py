"""Forms and compositions beyond the paper: where each is valid, and how each is written."""

from __future__ import annotations

import pytest
import torch

from peftsearch.design.composition import (
    COMPOSITIONS,
    Add,
    Composition,
    Dora,
    Gated,
    RankStabilised,
    Scaled,
    TanhGate,
)
from peftsearch.design.configuration import Configuration, Training
from peftsearch.design.form import (
    FORMS,
    Constant,
    Form,
    Gelu,
    Kronecker,
    Linear,
    Loreft,
    Prefix,
    Prompt,
    Relu,
    Rescale,
    Sparse,
    Swiglu,
    Vera,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES, Place
from peftsearch.design.validity import why_invalid
from peftsearch.errors import ConfigurationError
from support.shapes import small

PARALLEL, PROJECTION, SEQUENTIAL = Parallel(), Parallel("projection_input"), Sequential()
STREAM, ADD = Parallel("residual_stream"), Add()


@pytest.mark.parametrize(
    ("form", "place", "insertion", "composition", "reason"),
    [
        (Prompt(), "attn.heads", PARALLEL, Gated(), "belongs at place 'embedding'"),
        (Prompt(), "embedding", PARALLEL, ADD, "write parallel and gated"),
        (Relu(), "embedding", PARALLEL, ADD, "takes the prompt form only"),
        (Sparse(), "biases", PARALLEL, ADD, "belongs at place 'weights'"),
        (Constant(), "weights", PARALLEL, ADD, "dense and sparse"),
        (Constant(), "ffn.activated", PARALLEL, ADD, "write ffn.out"),
        (Rescale(), "attn.query", SEQUENTIAL, ADD, "write attn.key"),
        (Rescale(), "attn.heads", SEQUENTIAL, ADD, "this is attn.value"),
        (Rescale(), "ffn.hidden", SEQUENTIAL, ADD, "write ffn.activated"),
        (Rescale(), "residual.ffn", SEQUENTIAL, ADD, "belongs at keys, values"),
        (Rescale(), "attn.key", PARALLEL, ADD, "write sequential and add"),
        (Rescale(), "attn.key", SEQUENTIAL, Scaled(2), "write sequential and add"),
        (Loreft(), "ffn.out", SEQUENTIAL, ADD, "belongs at residual"),
        (Loreft(), "residual.ffn", PARALLEL, ADD, "write sequential and add"),
        (Vera(), "attn.query", PARALLEL, Scaled(2), "absorb a scale"),
        (Vera(), "attn.heads", PARALLEL, ADD, "adapts a linear layer"),
        (Vera(), "ffn.out", PARALLEL, ADD, "adapts a linear layer"),
        (Linear("pissa"), "attn.query", PARALLEL, Scaled(2), "fix its scale"),
        (Linear("pissa"), "attn.heads", PARALLEL, ADD, "adapts a linear layer"),
        (Relu(), "attn.query", PARALLEL, Dora(), "write the linear form"),
        (Linear(), "ffn.out", SEQUENTIAL, Dora(), "adapts a linear layer"),
        (Linear(bias=True), "attn.query", PARALLEL, Dora(), "bias: false"),
        (Linear(), "attn.query", PARALLEL, TanhGate(), "never opened"),
        (Prefix(), "attn.heads", PARALLEL, TanhGate(), "never opened"),
        (Prefix(), "attn.heads", PARALLEL, RankStabilised(), "belongs to low-rank forms"),
        (Kronecker(), "ffn.out", PARALLEL, RankStabilised(), "no rank"),
        (Gelu(), "ffn.activated", PARALLEL, ADD, "this is ffn.out"),
        (Relu(), "attn.query", STREAM, ADD, "may read the residual stream"),
        (Swiglu(), "attn.out", PARALLEL, ADD, "absorbs the up-projection"),
        (Kronecker(), "attn.heads", SEQUENTIAL, ADD, "absorbs both projections"),
    ],
)
def test_an_invalid_or_repeated_combination_is_refused_with_the_reason(
    form: Form, place: str, insertion: Insertion, composition: Composition, reason: str
) -> None:
    assert reason in str(why_invalid(form, Place.parse(place), insertion, composition))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_has_a_method_that_shows_it(name: str) -> None:
    assert any(m.form.name == name for method in METHODS.values() for m in method.modifications)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_every_composition_has_a_method_that_shows_it(name: str) -> None:
    shown = {m.composition.name for method in METHODS.values() for m in method.modifications}
    # One width for all layers writes rank-stabilised as the scale it is.
    assert name in shown | {"rank_stabilised"}


def test_one_width_writes_a_rank_stabilised_scale_as_a_number() -> None:
    place = Place.parse("attn.query+value")
    one = Modification(Linear(), place, composition=RankStabilised(8), width=16)
    assert one == Modification(Linear(), place, composition=Scaled(2), width=16)
    plain = Modification(Linear(), place, composition=RankStabilised(4), width=16)
    assert plain.composition == Add()
    several = Modification(Linear(), place, composition=RankStabilised(8), width=(4, 16))
    assert several.composition == RankStabilised(8)


@pytest.mark.parametrize(
    ("modification", "model", "reason"),
    [
        (METHODS["prefix"].modifications[0], "deberta-v2", "takes no further keys and values"),
        (
            Modification(Relu(), Place.parse("ffn.out"), STREAM, width=2),
            "bart",
            "residual stream is the sub-layer's input",
        ),
        (
            Modification(Kronecker(n=5), Place.parse("ffn.out"), SEQUENTIAL, width=2),
            "bert",
            "not divisible by n=5",
        ),
        (METHODS["bitfit"].modifications[0], "llama", "has no place 'biases'"),
    ],
)
def test_what_a_backbone_cannot_take_is_refused_by_name(
    modification: Modification, model: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        modification.within(small(model))


def test_the_residual_stream_can_be_read_where_it_is_not_the_sublayers_input() -> None:
    modification = Modification(Relu(), Place.parse("ffn.out"), STREAM, width=2)
    assert modification.within(small("mbart")) == modification


def test_widths_follow_the_layers_that_a_backbone_has() -> None:
    place = Place(("attn.heads",), (1, 4, 5), ("cross",))
    within = Modification(Relu(), place, width=(1, 2, 3)).within(small("bart"))
    assert (within.place.layers, within.width) == ((4, 5), (2, 3))


def test_no_more_entries_are_changed_than_the_body_has() -> None:
    shapes = small("bert")
    most = Modification(Sparse(), Place.parse("weights"), width=10**9).within(shapes)
    assert most.parameters(shapes) == shapes.body_parameters


def test_a_reparametrised_prefix_trains_more_than_it_stores() -> None:
    shapes = small("bert")
    direct, mlp = (METHODS[name].configuration() for name in ("prefix", "prefix-mlp"))
    assert direct.tuned_parameters(shapes) == mlp.tuned_parameters(shapes)
    outputs = 3 * 2 * 32  # keys and values of three layers
    trained = 16 * 32 + 32 * 800 + 800 + 800 * outputs + outputs
    head = 32 * 2 + 2
    assert mlp.trained_parameters(shapes, 2) == trained + head
    assert direct.trained_parameters(shapes, 2) == 16 * outputs + head


def test_a_ratio_of_learning_rates_is_kept_only_where_something_has_it() -> None:
    training = Training(up_lr_ratio=16)
    assert METHODS["lora"].configuration(training=training).training.up_lr_ratio == 16
    assert METHODS["prefix"].configuration(training=training).training.up_lr_ratio == 1
    assert METHODS["lora-plus"].configuration().training.up_lr_ratio == 16


def test_places_that_share_tensors_are_one_modification() -> None:
    biases, norm = (Modification(Constant(), Place.parse(p)) for p in ("biases", "norm"))
    with pytest.raises(ConfigurationError, match=r"write one modification at 'biases\+norm'"):
        Configuration((biases, norm))
    with pytest.raises(ConfigurationError, match="write it without the other"):
        Configuration((biases, Modification(Sparse(), Place.parse("weights"), width=9)))
    added = Modification(Constant(), Place.parse("attn.out"))
    with pytest.raises(ConfigurationError, match="holds biases already"):
        Configuration((biases, added))
    assert len(Configuration((norm, added)).modifications) == 2


def test_cross_attention_and_self_attention_do_not_clash() -> None:
    cross, own = (
        Modification(Relu(), Place.parse(f"attn.heads@{kind}"), width=2)
        for kind in ("cross", "enc_self+dec_self")
    )
    assert len(Configuration((cross, own)).modifications) == 2
    everywhere = Modification(Relu(), Place.parse("attn.heads"), width=2)
    with pytest.raises(ConfigurationError, match="the sum of their widths"):
        Configuration((cross, everywhere))


@pytest.mark.parametrize("name", FORMS)
def test_options_are_read_back_from_json(name: str) -> None:
    for method in METHODS.values():
        if any(m.form.name == name for m in method.modifications):
            configuration = method.configuration()
            again = Configuration.from_json(configuration.to_json())
            assert again == configuration
            assert again.hash == configuration.hash


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Prefix(mlp=0), "not a number of hidden units"),
        (lambda: Prefix(init="zro"), "init 'zro' unknown; did you mean 'zero'"),  # type: ignore[arg-type]
        (lambda: Sparse(l0=2), "not between 0 and 1"),
        (lambda: Kronecker(n=1), "not between 2 and 64"),
        (lambda: Relu(init="pissa"), "init 'pissa' unknown"),
        (lambda: Dora(s=0), "must be a positive number"),
        (lambda: RankStabilised(alpha=True), "must be a positive number"),
        (lambda: Training(up_lr_ratio=0), "up_lr_ratio 0 is not between"),
    ],
)
def test_an_option_out_of_range_is_refused(make: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        make()  # type: ignore[operator]


def test_loreft_begins_at_zero_and_its_rotation_is_orthonormal() -> None:
    site = Place.parse("residual.ffn").sites(small("bert"))[0]
    form, generator = Loreft(), torch.Generator().manual_seed(0)
    shapes = form.tensors(site, 32, 4)
    tensors = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
    form.initialise_site(tensors, generator, lambda: torch.empty(0))
    h = torch.randn(2, 3, 32, generator=generator, dtype=torch.float64)
    assert torch.equal(form.delta(tensors, h), torch.zeros_like(h))
    eye = tensors["rotation"].T @ tensors["rotation"]
    assert torch.allclose(eye, torch.eye(4, dtype=torch.float64), atol=1e-12)


def test_pissas_beginning_is_exact_where_singular_values_lie_close_together() -> None:
    """Of every processor the same: A₀B₀ is no part of an export, and computed anew by whoever loads
    it. In single precision it would be off by a rounding over the gap, 1e-4 here.
    """
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.linalg.qr(torch.randn(48, 48, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    )
    values = 1 - 1e-3 * torch.arange(48, dtype=torch.float64)
    weight = ((left * values) @ right).float()
    tensors = {"down": torch.empty(48, 4), "up": torch.empty(4, 48)}
    Linear("pissa").initialise_site(tensors, generator, lambda: weight)
    _, vectors = torch.linalg.eigh(weight.double() @ weight.double().T)
    leading = vectors[:, -4:] @ vectors[:, -4:].T @ weight.double()
    product = tensors["down"].double() @ tensors["up"].double()
    assert (product - leading).abs().max() <= 1e-6 * weight.abs().max()


def test_a_place_of_every_kind_of_sublayer_occurs() -> None:
    taken = {n for m in METHODS.values() for x in m.modifications for n in x.place.names}
    missing = set(PLACES) - taken
    assert missing == {"residual.attn"}


def test_no_form_and_composition_name_a_tensor_alike() -> None:
    """They stand in one mapping at a site, and in one file when stored."""
    site = Place.parse("ffn.out").sites(small("bert"))[0]
    of_forms = {
        name
        for form in FORMS.values()
        for name in (*form().tensors(site, 32, 2), *form().shared([(site, 32)], 2))
    } | {"down_bias", "up_bias", "down_0", "up_0", "A", "B"}
    of_compositions = {name for kind in COMPOSITIONS.values() for name in kind().tensors(site, 32)}
    assert len(of_compositions) >= 5
    assert not of_forms & of_compositions
