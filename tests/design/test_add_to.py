"""h + s Δh in one product is h + s Δh in three passes, and falls back where it cannot be one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftsearch.design.composition import Add, Dora, RankStabilised, Scaled, SigmoidGate, TanhGate
from peftsearch.design.form import FORMS, Bottleneck, Constant, Form, Linear, Relu, Rescale, Swiglu
from peftsearch.design.forms.base import Shapes
from peftsearch.design.shapes import SiteShape

SITE = SiteShape("layers.0.ffn.out", "ffn.out", 0, d_h=6, d_sublayer=5, d_projection=5, kind="enc")


def tensors_of(form: Form, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: Shapes = form.tensors(SITE, 5, 3)
    made = {n: torch.randn(s, generator=generator, dtype=dtype) for n, s in shapes.items()}
    if getattr(form, "init", "") == "pissa":
        made |= {"down_0": made["down"] * 0.5, "up_0": made["up"] * 2}
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def states(width: int, dtype: torch.dtype = torch.float64, tokens: int = 4) -> Tensor:
    made = torch.randn(2, tokens, width, generator=torch.Generator().manual_seed(width))
    return made.to(dtype).requires_grad_()


BOTTLENECKS = [cls() for cls in FORMS.values() if issubclass(cls, Bottleneck)]
PLAIN = [Constant(), Rescale()]


@pytest.mark.parametrize("s", [1.0, 2.5])
@pytest.mark.parametrize(
    "form",
    [*BOTTLENECKS, Relu("bert", bias=True), Swiglu(bias=True), Linear("pissa")],
    ids=lambda form: f"{form.name}-{form.init}-{form.bias}",
)
def test_values_and_gradients_are_those_of_three_passes(form: Bottleneck, s: float) -> None:
    tensors, source, h = tensors_of(form), states(5), states(6)
    found = form.add_to(tensors, source, h, s)
    expected = h + s * form.delta(tensors, source)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(9)).double()
    leaves = (source, h, *tensors.values())
    one, three = (torch.autograd.grad((out * weights).sum(), leaves) for out in (found, expected))
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize(
    "form",
    [*BOTTLENECKS, Relu("bert", bias=True), Swiglu(bias=True), Linear("pissa"), *PLAIN],
    ids=lambda form: f"{form.name}-{getattr(form, 'init', '')}-{getattr(form, 'bias', '')}",
)
@pytest.mark.parametrize("scales", [[2.5, 2.5], [0.5, 3.0]])
def test_several_members_at_once_get_what_each_gets(form: Form, scales: list[float]) -> None:
    """Also one of width 2 beside one of width 3, padded with zeros."""
    assert form.batches
    wide = {name: tensor.detach() for name, tensor in tensors_of(form).items()}
    narrow = {
        name: tensor.narrow(form.padded[name], 0, 2) if name in form.padded else 2 * tensor
        for name, tensor in wide.items()
    }
    held = [wide, narrow]
    stacked = {name: stacked_of([own[name] for own in held]) for name in wide}
    source, h = states(5 if form.is_projection else 6), states(6)
    s = scales[0] if len(set(scales)) == 1 else torch.tensor(scales).double().view(-1, 1, 1)
    found = form.add_to(stacked, source, h, s)
    for i in (0, 1):
        alone = form.add_to(held[i], source[i : i + 1], h[i : i + 1], scales[i])
        assert torch.allclose(found[i : i + 1], alone, rtol=0, atol=1e-12)


def stacked_of(values: list[Tensor]) -> Tensor:
    """Matrices [members, a, b], vectors [members, 1, a], with zeros where the second is smaller."""
    whole = torch.zeros(2, *values[0].shape, dtype=values[0].dtype)
    for i, value in enumerate(values):
        whole[i][tuple(slice(n) for n in value.shape)] = value
    return whole if whole.ndim == 3 else whole.unsqueeze(1)


def test_a_delta_of_zero_leaves_h_bit_for_bit() -> None:
    form, h = Linear(), states(6, torch.float32)
    tensors = tensors_of(form, torch.float32) | {"up": torch.zeros(3, 6)}
    assert torch.equal(form.add_to(tensors, states(5, torch.float32), h, 3.0), h)


def test_h_in_half_precision_stays_so_beside_tuned_tensors_in_fp32() -> None:
    form, h = Relu(), states(6, torch.bfloat16)
    tensors, source = tensors_of(form, torch.float32), states(5, torch.float32)
    found = form.add_to(tensors, source, h, 2.0)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, h + form.delta(tensors, source).to(torch.bfloat16) * 2.0)
    stacked = {name: tensor.expand(2, -1, -1) for name, tensor in tensors.items()}
    scales = torch.tensor([2.0, 2.0]).view(-1, 1, 1)
    assert torch.equal(form.add_to(stacked, source, h, scales), found), "several members at once"


def test_one_row_of_h_beside_a_source_of_all_tokens_is_spread_as_a_sum_is() -> None:
    form, h, source = Relu(), states(6, tokens=1), states(5)
    tensors = tensors_of(form)
    found = form.add_to(tensors, source, h, 2.0)
    assert torch.allclose(found, h + 2 * form.delta(tensors, source))


def test_a_part_of_a_fused_output_is_added_to_as_well() -> None:
    form, whole = Relu(), states(12)
    tensors, source, h = tensors_of(form), states(5), whole[..., 6:]
    assert not h.is_contiguous()
    found = form.add_to(tensors, source, h, 2.0)
    assert torch.allclose(found, h + 2 * form.delta(tensors, source))


def test_only_compositions_that_are_a_number_have_a_factor() -> None:
    assert Add().factor(4) == 1
    assert Scaled(3.0).factor(4) == 3
    assert RankStabilised(8.0).factor(4) == 4
    for more in (Scaled("learned"), SigmoidGate(), TanhGate(), Dora(2.0)):
        assert more.factor(4) is None
