"""(IA)³, norm tuning, prompt tuning and VeRA in peft's format."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.loading.load import Backbone
from peftsearch.export.peft.parts import PREFIX, Adapter, Layers, SitePart

__all__ = ["ia3", "norm_tuning", "prompt", "vera"]


def ia3(backbone: Backbone, parts: list[SitePart]) -> Adapter:
    """A factor for each output of a layer, or (`ffn.activated`) for each input of one."""
    layers = Layers(backbone)
    views: dict[str, LinearView] = {}
    factors: dict[str, Tensor] = {}
    of_inputs = set()
    for part in parts:
        view = layers.at(part.site)
        name = layers.name(view)
        views[name] = view
        if part.site.place == "ffn.activated":
            of_inputs.add(name)
            factors[name] = part.tensors["l"][None, :]
        else:  # of a fused layer, the outputs of other parts stay as they are
            outputs = factors.setdefault(name, torch.ones(view.d_module, 1))
            outputs[view.channels, 0] = part.tensors["l"].float()
    config: dict[str, object] = {
        "target_modules": sorted(factors),
        "feedforward_modules": sorted(of_inputs),
        "fan_in_fan_out": layers.is_transposed(list(views.values())),
        "modules_to_save": None,
    }
    return Adapter(config, {f"{PREFIX}{name}.ia3_l": f for name, f in factors.items()})


def norm_tuning(backbone: Backbone, parts: list[SitePart]) -> Adapter:
    """A copy of every norm. Of those tuned in part peft keeps the rest as it was."""
    tensors, modules = {}, set()
    for part in parts:
        (tuned,) = part.tensors.values()
        module, _, key = part.site.key.rpartition(".")
        modules.add(module)
        tensors[f"{PREFIX}{module}.ln_tuning_layers.{key}"] = tuned
    config: dict[str, object] = {"target_modules": sorted(modules), "modules_to_save": None}
    return Adapter(config, tensors)


def prompt(backbone: Backbone, parts: list[SitePart]) -> Adapter:
    """Vectors before the token embeddings."""
    (part,) = parts
    vectors, shapes = part.tensors["prompt"], backbone.shapes
    config: dict[str, object] = {
        "num_virtual_tokens": vectors.shape[0],
        "token_dim": vectors.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": shapes.attention[0].heads,
        "num_layers": shapes.layers,
        "prompt_tuning_init": "RANDOM",
    }
    return Adapter(config, {"prompt_embeddings": vectors})


def vera(backbone: Backbone, parts: list[SitePart]) -> Adapter:
    """The two vectors of each layer, and the random matrices, drawn again from their seed."""
    layers, modification = Layers(backbone), parts[0].modification
    rank = modification.widest
    tensors = _projections(backbone, parts)
    views = [layers.at(part.site) for part in parts]
    for view, part in zip(views, parts, strict=True):
        d = torch.zeros(rank)  # peft has one rank for all: the dimensions beyond a layer's are off
        d[: len(part.tensors["d"])] = part.tensors["d"].float()
        prefix = f"{PREFIX}{layers.name(view)}.vera_lambda_"
        tensors |= {f"{prefix}d": d, f"{prefix}b": part.tensors["b"]}
    config: dict[str, object] = {
        "r": rank,
        "target_modules": sorted(layers.name(view) for view in views),
        "save_projection": True,
        "vera_dropout": 0.0,
        "fan_in_fan_out": layers.is_transposed(views),
        "bias": "none",
        "modules_to_save": None,
    }
    return Adapter(config, tensors)


def _projections(backbone: Backbone, parts: list[SitePart]) -> dict[str, Tensor]:
    """A (r, d_in) and B (d_out, r)."""
    modification = parts[0].modification
    sources = modification.sources(backbone.shapes)
    constant = Generator().manual_seed(0)  # as they are attached
    drawn = {}
    for name, shape in modification.form.constants(sources, modification.widest).items():
        value = torch.empty(shape)
        modification.form.initialise(name, value, constant)
        drawn[f"base_model.vera_{name}"] = value.T
    return drawn
