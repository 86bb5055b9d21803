"""Measuring a model, real or on the meta device: the shapes that `design/` counts with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from peftsearch.backbone.family import AttentionPaths, Family, Part, Stack
from peftsearch.backbone.linear import LinearView
from peftsearch.design.shapes import AttentionShape, BackboneShapes, FfnShape, TensorShape

__all__ = [
    "head_dim_of",
    "measure",
    "position_tables",
    "positions_of",
    "stack_layers",
    "token_type_rows",
]

_HEAD_DIM = ("head_dim", "attention_head_size", "head_size", "key_value_proj_dim")
"""Names that attention modules give to the width of a head."""


def measure(model: Any, config: Any, family: Family) -> BackboneShapes:
    """The shapes of a body whose pooler has been removed; tied tensors are listed once."""
    attention: list[AttentionShape] = []
    ffn: list[FfnShape] = []
    sizes: list[int] = []
    for stack in family.stacks:
        layers = stack_layers(model, stack)
        for index, layer in enumerate(layers, sum(sizes)):
            attention += _attentions(index, layer, stack, config)
            ffn.append(_ffn(index, layer, stack))
        sizes.append(len(layers))
    return BackboneShapes(
        hidden=attention[0].d_out,
        attention=tuple(attention),
        ffn=tuple(ffn),
        tensors=tuple(_tensors(model, config, family)),
        family=family.name,
        stacks=tuple(sizes),
        d_embedding=int(model.get_input_embeddings().weight.shape[1]),
        # He et al. use up to 300 vectors; three quarters of the positions are left for the text.
        longest_prompt=min(300, positions_of(config) // 4),
        pre_norm=family.pre_norm,
        takes_prefix=family.takes_prefix,
        sums_attention=family.sums_attention,
    )


def positions_of(config: Any) -> int:
    """Length of the position table; 10⁹ without one, as T5's relative positions have no end."""
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(found or 10**9)


def token_type_rows(model: nn.Module) -> int:
    """Rows of the table of token types; 0 for a model without one."""
    tables = (
        module
        for path, module in model.named_modules()
        if path.endswith("token_type_embeddings") and isinstance(module, nn.Embedding)
    )
    return max((table.num_embeddings for table in tables), default=0)


def stack_layers(model: nn.Module, stack: Stack) -> list[nn.Module]:
    """The layers of one stack, lowest first."""
    return list(model.get_submodule(stack.layers).children())


def head_dim_of(layer: nn.Module, paths: AttentionPaths, config: Any) -> int:
    """Width of one attention head."""
    module = layer.get_submodule(paths.module)
    for name in _HEAD_DIM:
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    return LinearView.at(layer, paths.query).d_out // int(config.num_attention_heads)


def _attentions(
    index: int, layer: nn.Module, stack: Stack, config: Any
) -> Iterator[AttentionShape]:
    kind = "dec_self" if stack.is_decoder else "enc_self"
    yield _attention(index, layer, stack.attention, kind, config)
    if stack.cross is not None:
        yield _attention(index, layer, stack.cross, "cross", config)


def _attention(
    index: int, layer: nn.Module, paths: AttentionPaths, kind: str, config: Any
) -> AttentionShape:
    head_dim = head_dim_of(layer, paths, config)
    query, key = LinearView.at(layer, paths.query), LinearView.at(layer, paths.key)
    return AttentionShape(
        layer=index,
        d_in=query.d_in,
        heads=query.d_out // head_dim,
        kv_heads=key.d_out // head_dim,
        head_dim=head_dim,
        d_out=_whole(layer, paths.out).d_out,
        kind=kind,
        biased=_biased(
            layer,
            {
                "attn.query": paths.query.path,
                "attn.key": paths.key.path,
                "attn.value": paths.value.path,
                "attn.out": paths.out,
            },
        ),
    )


def _biased(layer: nn.Module, paths: Mapping[str, str]) -> tuple[str, ...]:
    """Places of linear layers that have a bias; `paths`: place → path of its layer."""
    modules = {place: layer.get_submodule(path) for place, path in paths.items()}
    return tuple(p for p, module in modules.items() if getattr(module, "bias", None) is not None)


def _whole(layer: nn.Module, path: str) -> LinearView:
    """The view of a linear layer that is not fused."""
    return LinearView.at(layer, Part(path))


def _ffn(index: int, layer: nn.Module, stack: Stack) -> FfnShape:
    first, second = LinearView.at(layer, stack.ffn.hidden), _whole(layer, stack.ffn.out)
    paths = {"ffn.hidden": stack.ffn.hidden.path, "ffn.out": stack.ffn.out}
    if stack.ffn.gate is not None:
        paths["ffn.gate"] = stack.ffn.gate.path
    return FfnShape(
        layer=index,
        d_in=first.d_in,
        d_hidden=second.d_in,
        d_out=second.d_out,
        gated=stack.ffn.gate is not None,
        kind="dec" if stack.is_decoder else "enc",
        biased=_biased(layer, paths),
    )


def _tensors(model: nn.Module, config: Any, family: Family) -> Iterator[TensorShape]:
    # named_parameters gives a tied tensor once, a state dictionary twice.
    norms, tables = _norm_tensors(model), position_tables(model)
    dead = _dead_stretches(model, config, family)
    for name, parameter in model.named_parameters():
        if name in tables:
            continue
        is_bias = name.endswith(".bias")
        whole = ((0, parameter.numel()),) if is_bias and name.endswith(family.dead) else ()
        yield TensorShape(
            name=name,
            shape=tuple(parameter.shape),
            layer=_layer_of(name, model, family),
            is_bias=is_bias,
            is_norm=name in norms,
            dead=whole or dead.get(name, ()),
        )


def _layer_of(name: str, model: nn.Module, family: Family) -> int | None:
    """The layer, counted over all stacks, that a tensor belongs to; None outside the layers."""
    first = 0
    for stack in family.stacks:
        if name.startswith(stack.layers + "."):
            return first + int(name[len(stack.layers) + 1 :].split(".")[0])
        first += len(stack_layers(model, stack))
    return None


def _norm_tensors(model: nn.Module) -> set[str]:
    """Names of every norm's own tensors, LayerNorm or RMSNorm under any class name."""
    return {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm")
        for name, _ in module.named_parameters(recurse=False)
    }


def position_tables(model: nn.Module) -> set[str]:
    """Names of the tables of sinusoids that some families keep as parameters: computed, not
    trained or saved.
    """
    return {
        f"{path}.weight"
        for path, module in model.named_modules()
        if "Sinusoidal" in type(module).__name__
    }


def _dead_stretches(
    model: nn.Module, config: Any, family: Family
) -> dict[str, tuple[tuple[int, int], ...]]:
    """Name of a bias → the stretches [start, stop) of it that are key biases without a gradient."""
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for stack in family.stacks if family.key_bias != "alive" else ():
        for index, layer in enumerate(stack_layers(model, stack)):
            for paths in filter(None, (stack.attention, stack.cross)):
                head_dim = head_dim_of(layer, paths, config)
                view = LinearView.at(layer, paths.key, head_dim)
                name = f"{stack.layers}.{index}.{paths.key.path}.bias"
                if getattr(view.module, "bias", None) is not None:
                    turning = _turning(layer, paths) if family.key_bias == "rotary" else 0
                    found[name] = _stretches(view, head_dim, turning)
    return found


def _turning(layer: nn.Module, paths: AttentionPaths) -> int:
    """The number of a head's first dimensions that rotary positions turn."""
    return int(layer.get_submodule(paths.module).rotary_ndims)  # type: ignore[arg-type]


def _stretches(view: LinearView, head_dim: int, turning: int) -> tuple[tuple[int, int], ...]:
    """Runs [start, stop) of the key's channels, but for the first `turning` of each head."""
    with torch.device("cpu"):  # whatever the default device is: meta tensors have no values
        channels = torch.arange(view.d_module)[view.channels].view(-1, head_dim)[:, turning:]
    runs: list[tuple[int, int]] = []
    for channel in channels.flatten().tolist():
        if runs and runs[-1][1] == channel:
            runs[-1] = (runs[-1][0], channel + 1)
        else:
            runs.append((channel, channel + 1))
    return tuple(runs)
