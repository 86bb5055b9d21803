"""Attaching: exact counts, identity where it is promised, gradients, and no trace afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Linear, Prefix
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError
from support.backbones import backbone_at, padded_batch, perturb, states
from support.strategies import configurations

pytestmark = pytest.mark.internals

PROPERTY = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
GRADIENT_FLOOR = 1e-6


@pytest.fixture(params=["tiny_bert", "tiny_roberta"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def promises_identity(configuration: Configuration) -> bool:
    return all(m.identity_at_init for m in configuration.modifications)


@PROPERTY
@given(configuration=configurations())
def test_the_counts_from_shapes_are_what_requires_grad_and_what_is_stored(
    configuration: Configuration, folder: Path
) -> None:
    backbone = backbone_at(folder)
    shapes = backbone.shapes
    with attach(backbone, configuration) as attachment:
        leaves = [*leaves_of(backbone), *attachment.tensors.values()]
        trained = {id(p): p.numel() for p in leaves if p.requires_grad}
        stored = attachment.stored().items()
        kept = sum(t.numel() for name, t in stored if not name.endswith("indices"))
    placed = configuration.within(shapes)
    pooler = placed.head.pooler_parameters(32) if placed.head.pooler_counts else 0
    assert kept == placed.tuned_parameters(shapes) - pooler
    assert sum(trained.values()) == sum(m.trained_parameters(shapes) for m in placed.modifications)


def leaves_of(backbone: Backbone) -> list[torch.Tensor]:
    """Its tensors but those that are computed from tuned ones while something is attached."""
    return [p for p in backbone.model.parameters() if p.is_leaf]


@pytest.mark.slow
@PROPERTY
@given(configuration=configurations())
def test_identity_at_initialisation_holds_exactly_where_it_is_promised(
    configuration: Configuration, folder: Path
) -> None:
    backbone = backbone_at(folder)
    same = []
    # A narrow ReLU may be off for every token of one draw.
    for seed in range(6):
        with torch.no_grad():
            before = states(backbone)
            with attach(backbone, configuration, seed):
                # But for rounding, which differs from processor to processor.
                same.append(float((before - states(backbone)).abs().max()) <= 1e-10)
    assert all(same) == promises_identity(configuration)


@pytest.mark.slow
@PROPERTY
@given(configuration=configurations())
def test_after_detaching_outputs_are_bit_identical_and_nothing_requires_grad(
    configuration: Configuration, folder: Path
) -> None:
    backbone = backbone_at(folder)
    with torch.no_grad():
        before = states(backbone)
        weights = {n: p.clone() for n, p in backbone.model.named_parameters()}
        moved = False
        with attach(backbone, configuration) as attachment:
            for seed in range(8):
                perturb(attachment.tensors, seed)
                moved = moved or not torch.equal(before, states(backbone))
        after = states(backbone)
    assert torch.equal(before, after)
    assert moved == bool(configuration.modifications)
    assert all(torch.equal(weights[n], p) for n, p in backbone.model.named_parameters())
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.model.modules())


@pytest.mark.slow
@PROPERTY
@given(configuration=configurations())
def test_every_tuned_tensor_gets_a_gradient_and_nothing_else_does(
    configuration: Configuration, folder: Path
) -> None:
    backbone = backbone_at(folder)
    if not configuration.modifications:
        return
    weight = torch.randn(32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    alive: set[str] = set()
    # A ReLU unit may be off for every token of one draw; no draw at all means it is dead.
    for seed in range(8):
        with attach(backbone, configuration) as attachment:
            tuned = attachment.tensors
            perturb(tuned, seed)
            (states(backbone) @ weight).pow(2).sum().backward()  # type: ignore[no-untyped-call]
            ids = {id(p) for p in tuned.values()}
            frozen = [p for p in leaves_of(backbone) if id(p) not in ids]
        assert all(p.grad is None for p in frozen)
        assert all(p.grad is not None for p in tuned.values())
        alive |= {n for n, p in tuned.items() if relative_gradient(p) > GRADIENT_FLOOR}
    assert set(tuned) - alive == dead_tensors(configuration)


def relative_gradient(parameter: torch.nn.Parameter) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.abs().max() * parameter.detach().abs().max())


def dead_tensors(configuration: Configuration) -> set[str]:
    """Full fine-tuning holds tensors that plain attention gives no gradient: the key biases."""
    return {
        f"0/encoder.layer.{layer}.attention.self.key.bias/weight"
        for modification in configuration.modifications
        if modification.form.name == "dense"
        for layer in (0, 1)
    }


@pytest.mark.parametrize("name", METHODS)
def test_padding_does_not_leak_into_any_method(name: str, folder: Path) -> None:
    backbone = backbone_at(folder)
    batch = padded_batch()
    alone = {k: v[2:3, :3] for k, v in batch.items()}
    with (
        torch.no_grad(),
        attach(backbone, METHODS[name].configuration()) as attachment,
    ):
        perturb(attachment.tensors)
        together = states(backbone, batch)[2, :3]
        single = states(backbone, alone)[0]
    assert (together - single).abs().max() < 1e-10


def test_a_failed_attachment_leaves_no_trace(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    wrong = Configuration((Modification(Linear(), Place(("attn.query",), (7,)), width=2),))
    with pytest.raises(
        ConfigurationError, match="names layer 7, but the backbone has layers 0 to 1"
    ):
        attach(backbone, wrong)
    assert not any(m._forward_hooks for m in backbone.model.modules())


def test_beginnings_depend_on_the_seed_alone(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    configuration = METHODS["mam"].configuration()
    values = []
    for seed in (5, 5, 6):
        torch.rand(3)  # the global generator moves on, and must not matter
        with attach(backbone, configuration, seed) as attachment:
            values.append({n: p.detach().clone() for n, p in attachment.tensors.items()})
    assert all(torch.equal(values[0][n], values[1][n]) for n in values[0])
    assert any(not torch.equal(values[0][n], values[2][n]) for n in values[0])


def test_a_prefix_begins_with_zero_values(tiny_bert: Path) -> None:
    modification = Modification(Prefix(), Place.parse("attn.heads"), width=2)
    with attach(backbone_at(tiny_bert), Configuration((modification,))) as attachment:
        values = [p for n, p in attachment.tensors.items() if n.endswith("values")]
    assert values
    assert all(bool((p == 0).all()) for p in values)
