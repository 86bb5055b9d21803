"""From a model (real, or on the meta device) to the plain numbers that `design/` counts with."""

from __future__ import annotations

from typing import Any

from torch import nn

from peftsearch.backbone.families import Family
from peftsearch.design.shapes import AttentionShape, BackboneShapes, FfnShape, TensorShape

__all__ = ["measure"]


def measure(model: nn.Module, config: Any, family: Family) -> BackboneShapes:
    """Shapes of a body whose pooler has been removed; tied tensors are listed once."""
    layers = list(model.get_submodule(family.layers).children())
    return BackboneShapes(
        hidden=int(config.hidden_size),
        attention=tuple(_attention(i, layer, config, family) for i, layer in enumerate(layers)),
        ffn=tuple(_ffn(i, layer, family) for i, layer in enumerate(layers)),
        tensors=tuple(_tensor(name, p, family) for name, p in model.named_parameters()),
    )


def _linear(layer: nn.Module, path: str) -> nn.Linear:
    module = layer.get_submodule(path)
    assert isinstance(module, nn.Linear), f"{path} is {type(module).__name__}, not Linear"
    return module


def _attention(index: int, layer: nn.Module, config: Any, family: Family) -> AttentionShape:
    query, key = _linear(layer, family.query), _linear(layer, family.key)
    head_dim = query.out_features // int(config.num_attention_heads)
    return AttentionShape(
        layer=index,
        d_in=query.in_features,
        heads=query.out_features // head_dim,
        kv_heads=key.out_features // head_dim,
        head_dim=head_dim,
        d_out=_linear(layer, family.attn_out).out_features,
    )


def _ffn(index: int, layer: nn.Module, family: Family) -> FfnShape:
    first, second = _linear(layer, family.ffn_hidden), _linear(layer, family.ffn_out)
    return FfnShape(index, first.in_features, second.in_features, second.out_features)


def _tensor(name: str, parameter: nn.Parameter, family: Family) -> TensorShape:
    layer = None
    if name.startswith(family.layers + "."):
        layer = int(name[len(family.layers) + 1 :].split(".")[0])
    return TensorShape(
        name=name,
        shape=tuple(parameter.shape),
        layer=layer,
        is_bias=name.endswith(".bias"),
        dead=family.key_bias_dead and name.endswith(f".{family.key}.bias"),
    )
