"""Weights with channels that are zero, as pruned models have them, under whatever divides by a norm
or takes a matrix apart.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import peft
import pytest
import torch
from peft import get_peft_model
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, wrap
from peftsearch.design.composition import Add, Composition, CompositionContext, Dora, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Linear, Loreft
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.shapes import small
from support.stock import batch, module_path, outputs, twin

ZEROS = (3, 10)
"""Output channels of the queries and values of layer 0."""
S = 2.0


def pruned(name: str) -> Any:
    """A stock model in fp64 with those channels zero. In GPT-2's fused layer: of the queries."""
    model: Any = twin(name)
    for place in ("query", "value"):
        weight = model.get_submodule(module_path(name, f"layers.0.attn.{place}")).weight
        with torch.no_grad():
            (weight.T if name == "gpt2" else weight)[list(ZEROS)] = 0
    return model


def low_rank(composition: Composition, init: Literal["lora", "pissa"] = "lora") -> Configuration:
    form, place = Linear(init), Place.parse("attn.query+value")
    return Configuration((Modification(form, place, composition=composition, width=3),))


def gradients(ours: Backbone, configuration: Configuration) -> dict[str, Tensor]:
    """Of every tuned tensor before training, for one random weighting of the states."""
    with attach(ours, configuration) as attachment:
        states = ours.model(**batch(ours.name)).last_hidden_state
        source = torch.Generator().manual_seed(2)
        (states * torch.randn(states.shape, generator=source, dtype=states.dtype)).sum().backward()
        return {n: p.grad.clone() for n, p in attachment.tensors.items() if p.grad is not None}


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_dora_leaves_such_channels_as_they_were_and_begins_as_lora_there(name: str) -> None:
    """m / ‖W‖ is 0 / 0 there and taken to be 1: the gradient of W_up is LoRA's own."""
    ours = wrap(pruned(name), name)
    plain = outputs(ours.model, batch(name))
    with attach(ours, low_rank(Dora(S))):
        assert (outputs(ours.model, batch(name)) - plain).abs().max() <= 1e-12
    found, of_lora = gradients(ours, low_rank(Dora(S))), gradients(ours, low_rank(Scaled(S)))
    for key, gradient in found.items():
        assert gradient.isfinite().all(), key
    key = "0/layers.0.attn.query/{}"
    up, expected = found[key.format("up")], of_lora[key.format("up")]
    assert (up - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert up[:, ZEROS].abs().max() > 0
    of_m = found[key.format("m")] == 0
    assert of_m.nonzero().flatten().tolist() == list(ZEROS)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_moved_dora_is_pefts_which_begins_at_nan_there(name: str) -> None:
    """Once W_up is not zero the norm is W_down W_up's alone, for peft as for ours."""
    model = pruned(name)
    ours = wrap(copy.deepcopy(model), name)
    with attach(ours, low_rank(Dora(S))) as attachment:
        targets = sorted({module_path(name, n.split("/")[1]) for n in attachment.tensors})
        config = peft.LoraConfig(r=3, lora_alpha=3 * S, target_modules=targets, use_dora=True)
        theirs: Any = get_peft_model(model, config).double().eval()
        assert outputs(theirs, batch(name)).isnan().any(), "peft's own, untrained"
        perturb(attachment.tensors)
        names = {"down": "lora_A", "up": "lora_B", "m": "lora_magnitude_vector"}
        for tuned, tensor in attachment.tensors.items():
            _, site, key = tuned.split("/")
            layer = theirs.get_submodule(f"base_model.model.{module_path(name, site)}")
            held = getattr(layer, names[key])["default"].weight
            held.data.copy_(tensor if key == "m" else tensor.T)
        expected = outputs(theirs, batch(name))
        found = outputs(ours.model, batch(name))
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)


def test_a_channel_by_hand_alone_and_of_several_members() -> None:
    """W = (3, 4 | 0, 0), W_up = 0: h = b + xW for both channels, whatever m is at the second."""
    weight = torch.tensor([[3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    bias = torch.tensor([0.5, -1.0], dtype=torch.float64)
    x = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    h = torch.tensor([[[11.5, -1.0]]], dtype=torch.float64)
    down, up = torch.ones(2, 1, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)

    def new(m: Tensor) -> Tensor:
        context = CompositionContext(x, 1, {"down": down, "up": up}, lambda: weight, lambda: bias)
        return Dora(S).compose({"m": m}, h, torch.zeros_like(h), context)

    m = torch.tensor([5.0, 0.0], dtype=torch.float64)
    doubled = torch.tensor([10.0, 7.0], dtype=torch.float64)
    assert new(m).tolist() == [[[11.5, -1.0]]]
    assert new(doubled).tolist() == [[[22.5, -1.0]]]
    both = torch.vmap(new)(torch.stack((m, doubled)))
    assert both.flatten().tolist() == [11.5, -1.0, 22.5, -1.0]


@pytest.mark.parametrize("whole", [False, True], ids=["two channels", "all of W"])
def test_pissa_of_a_weight_with_zeros_is_finite_and_begins_at_zero(whole: bool) -> None:
    model = pruned("bert")
    if whole:
        model.get_submodule(module_path("bert", "layers.0.attn.query")).weight.data.zero_()
    ours = wrap(model, "bert")
    plain = outputs(ours.model, batch("bert"))
    one = low_rank(Add(), "pissa")
    with attach(ours, one):
        assert (outputs(ours.model, batch("bert")) - plain).abs().max() <= 1e-12
    assert all(gradient.isfinite().all() for gradient in gradients(ours, one).values())


def test_a_rotation_of_less_than_full_rank_is_orthonormal_all_the_same() -> None:
    site = Place.parse("residual.ffn").sites(small("bert"))[0]
    form = Loreft()
    shapes = form.tensors(site, 32, 3)
    tensors = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
    tensors["rotation"][:, 0] = 1.0
    tensors["source_bias"].fill_(1.0)
    h = torch.zeros(1, 1, 32, dtype=torch.float64)
    # R h = W h = 0 and b = 1: Δh is the sum of R's rows, of length √3 if they are orthonormal.
    assert form.delta(tensors, h).norm().item() == pytest.approx(3**0.5, rel=1e-12)
