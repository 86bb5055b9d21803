"""Layers standing aside: given the states they would give, every family ends where it would."""

from __future__ import annotations

import pytest
import torch

from peftsearch.backbone.measure import stack_layers
from peftsearch.backbone.savings.lower_layers import standing_aside, states_after
from support.families import TINY, backbone_of, inputs, states

pytestmark = pytest.mark.internals

READ = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_a_model_goes_on_from_given_states_as_from_its_own(name: str, count: int) -> None:
    backbone, batch = backbone_of(name), inputs(name)
    if count == 1 and backbone.family.first_layer_shares:
        pytest.skip("its first layer is never left out")
    whole = states(name, backbone, batch)
    given = states_after(backbone, count, {k: v for k, v in batch.items() if k in READ})
    with standing_aside(backbone, count, given):
        assert torch.equal(states(name, backbone, batch), whole)
    assert torch.equal(states(name, backbone, batch), whole)


@pytest.mark.parametrize("name", TINY)
def test_layers_that_stand_aside_compute_nothing(name: str) -> None:
    backbone, batch = backbone_of(name), inputs(name)
    given = states_after(backbone, 2, {k: v for k, v in batch.items() if k in READ})
    ran: list[int] = []
    layers = list(stack_layers(backbone.model, backbone.family.stacks[0]))[:2]
    hooks = [
        layer.get_submodule(backbone.family.stacks[0].ffn.out).register_forward_hook(
            lambda *_, index=index: ran.append(index)
        )
        for index, layer in enumerate(layers)
    ]
    with standing_aside(backbone, 2, given):
        states(name, backbone, batch)
    for hook in hooks:
        hook.remove()
    assert ran == ([0] if backbone.family.first_layer_shares else [])


def test_an_error_inside_puts_the_layers_back() -> None:
    backbone, batch = backbone_of("bert"), inputs("bert")
    whole = states("bert", backbone, batch)
    with pytest.raises(ZeroDivisionError), standing_aside(backbone, 1, torch.zeros(1)):
        raise ZeroDivisionError
    assert torch.equal(states("bert", backbone, batch), whole)
