"""Frozen layers in low precision for a while: exact gradients, and no trace afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.measure import stack_layers
from peftsearch.backbone.savings.frozen_linear import frozen_layers_in
from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS, LowPrecision
from support.backbones import perturb
from support.families import TINY, backbone_of, inputs, states
from support.points import point

pytestmark = pytest.mark.skipif(
    not all(p.is_here for p in LOW_PRECISIONS.values()), reason="needs VNNI and bf16 instructions"
)
INT8 = LOW_PRECISIONS["int8"]


def fp32(name: str) -> Backbone:
    return backbone_of(name, torch.float32)


def given(name: str, precision: LowPrecision | None = None) -> Tensor:
    with frozen_layers_in(fp32(name), precision):
        return states(name, fp32(name), inputs(name))


def linears(backbone: Backbone) -> list[nn.Linear | Conv1D]:
    return [
        module
        for stack in backbone.family.stacks
        for layer in stack_layers(backbone.model, stack)
        for module in layer.modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]


@pytest.mark.parametrize("name", TINY)
def test_every_family_runs_in_it_and_comes_back_bit_for_bit(name: str) -> None:
    backbone = fp32(name)
    before, values = given(name), {k: v.clone() for k, v in backbone.model.state_dict().items()}
    for precision, most in ((LOW_PRECISIONS["bf16"], 0.15), (INT8, 0.3)):
        low = given(name, precision)
        assert 0 < (low - before).norm() / before.norm() < most
    assert torch.equal(given(name), before)
    assert all(torch.equal(values[k], v) for k, v in backbone.model.state_dict().items())
    assert not any("forward" in vars(module) for module in backbone.model.modules())


@pytest.mark.parametrize("precision", LOW_PRECISIONS.values(), ids=LOW_PRECISIONS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_gradients_go_through_the_frozen_weight_in_fp32(name: str, precision: LowPrecision) -> None:
    backbone = fp32(name)
    module = linears(backbone)[0]
    weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, weight.shape[1], generator=source, requires_grad=True)
    g = torch.randn(2, 5, weight.shape[0], generator=source)
    frozen = module.bias
    module.bias = nn.Parameter(frozen + 1)
    try:
        with frozen_layers_in(backbone, precision):
            y = module(x)
            y.backward(g)
        dx, db, away = x.grad, module.bias.grad, y[0] - precision.packed(weight)(x[0], None)
    finally:
        module.bias = frozen
    assert torch.allclose(dx, torch.einsum("bto,oi->bti", g, weight), rtol=1e-4, atol=1e-4)
    assert torch.allclose(db, g.sum((0, 1)), rtol=1e-4, atol=1e-4)
    assert torch.allclose(away, (frozen + 1).expand(5, -1), atol=0.05), "its bias is read"
    assert weight.grad is None


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("method", ["full", "diff-pruning"])
@pytest.mark.parametrize("gradients", [True, False])
def test_tuned_weights_are_left_alone(name: str, method: str, gradients: bool) -> None:
    backbone = fp32(name)
    attachment = attach(backbone, point(method, backbone.shapes))
    try:
        perturb(dict(attachment.tensors))
        with torch.set_grad_enabled(gradients):
            attachment.begin_step(0)
            exact = given(name)
            attachment.begin_step(0)
            assert torch.equal(given(name, INT8), exact)
    finally:
        attachment.detach()


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_tuned_biases_are_read_and_get_their_gradients(name: str) -> None:
    backbone = fp32(name)
    before = given(name, INT8)
    attachment = attach(backbone, point("bitfit", backbone.shapes))
    try:
        assert torch.equal(given(name, INT8), before), "untrained, it is the frozen model"
        perturb(dict(attachment.tensors))
        exact, low = given(name), given(name, INT8)
        assert (low - exact).norm() < 0.2 * (exact - before).norm()
        low.square().sum().backward()
        assert all(p.grad is not None for p in attachment.tensors.values())
    finally:
        attachment.detach()


def test_dora_reads_the_exact_weight() -> None:
    """Its norm of W is fp32's, so that untrained it leaves the quantised model as it is."""
    backbone, before = fp32("bert"), given("bert", INT8)
    attachment = attach(backbone, point("dora", backbone.shapes))
    try:
        assert torch.allclose(given("bert", INT8), before, atol=1e-4)
    finally:
        attachment.detach()


def test_a_weight_is_packed_once_a_process() -> None:
    packed: list[int] = []
    counting = replace(
        INT8, name="counting", packed=lambda weight: packed.append(1) or INT8.packed(weight)
    )
    for _ in range(3):
        given("bert", counting)
    assert len(packed) == len(linears(fp32("bert")))


def test_an_error_inside_puts_the_layers_back() -> None:
    before = given("bert")
    with pytest.raises(ZeroDivisionError), frozen_layers_in(fp32("bert"), INT8):
        raise ZeroDivisionError
    assert torch.equal(given("bert"), before)
    assert not any("forward" in vars(module) for module in fp32("bert").model.modules())
