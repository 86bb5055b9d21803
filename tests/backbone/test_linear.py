"""Parts of fused layers: the queries, keys and values that the family's own code takes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.phi3 import modeling_phi3

from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.measure import head_dim_of, stack_layers
from support.stock import backbone, batch

pytestmark = pytest.mark.internals


def parts_of(name: str, layer: nn.Module, output: Tensor) -> list[Tensor]:
    """Queries, keys and values (batch, seq, heads, head_dim) by our table."""
    ours = backbone(name)
    paths = ours.family.stacks[0].attention
    head_dim = head_dim_of(layer, paths, ours.model.config)
    views = [LinearView.at(layer, p, head_dim) for p in (paths.query, paths.key, paths.value)]
    return [view.read(output).unflatten(-1, (-1, head_dim)) for view in views]


def first_fused_output(name: str, path: str) -> tuple[nn.Module, Tensor]:
    """The first layer, and what its fused layer gives."""
    ours = backbone(name)
    layer = stack_layers(ours.model, ours.family.stacks[0])[0]
    kept: list[Tensor] = []
    hook = layer.get_submodule(path).register_forward_hook(lambda m, a, out: kept.append(out))
    with torch.no_grad():
        ours.model(**batch(name))
    hook.remove()
    return layer, kept[0]


@pytest.mark.parametrize("name", ["falcon", "falcon-11b", "falcon-40b", "falcon-rw"])
def test_falcons_heads_are_those_that_it_splits(name: str) -> None:
    layer, output = first_fused_output(name, "self_attention.query_key_value")
    attention: Any = layer.self_attention
    theirs = attention._split_heads(output)
    for own, split in zip(parts_of(name, layer, output), theirs, strict=True):
        copies = split.shape[2] // own.shape[2]  # each key and value for all queries of its group
        assert torch.equal(own.repeat_interleave(copies, dim=2), split)


def test_phi3s_heads_are_those_that_it_turns_and_attends_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turned: list[tuple[Tensor, Tensor]] = []
    original = modeling_phi3.apply_rotary_pos_emb

    def kept(q: Tensor, k: Tensor, *args: Any) -> Any:
        turned.append((q, k))
        return original(q, k, *args)

    monkeypatch.setattr(modeling_phi3, "apply_rotary_pos_emb", kept)
    layer, output = first_fused_output("phi3", "self_attn.qkv_proj")
    query, key, value = parts_of("phi3", layer, output)
    assert torch.equal(query.transpose(1, 2), turned[0][0])
    assert torch.equal(key.transpose(1, 2), turned[0][1])
    assert value.shape == key.shape == (3, 9, 2, 8)
    assert torch.equal(torch.cat((query, key, value), 2).flatten(2), output)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "falcon", "falcon-40b", "falcon-rw"])
def test_parts_are_disjoint_and_leave_nothing_out(name: str) -> None:
    ours = backbone(name)
    paths = ours.family.stacks[0].attention
    layer = stack_layers(ours.model, ours.family.stacks[0])[0]
    head_dim = head_dim_of(layer, paths, ours.model.config)
    views = [LinearView.at(layer, p, head_dim) for p in (paths.query, paths.key, paths.value)]
    found = torch.cat([torch.arange(view.d_module)[view.channels] for view in views])
    assert sorted(found.tolist()) == list(range(views[0].d_module))
    assert [len(torch.arange(v.d_module)[v.channels]) for v in views] == [v.d_out for v in views]
