"""Recognising a model's family: by its type, or by its layout where the type is unknown."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from peftsearch.backbone.families import FAMILIES
from peftsearch.backbone.family import AttentionPaths, Family, FfnPaths, Part, Stack
from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.measure import stack_layers
from peftsearch.errors import ConfigurationError

__all__ = ["family_of"]

_HARMLESS = ("q_norm", "k_norm", "relative_attention_bias")
"""Modules inside attention that no place touches."""


def family_of(config: Any) -> Family:
    """The row for a transformers config, or a ConfigurationError that says what was looked for.

    A model type that no row names is compared with every row's layout, module by module; what is
    recognised gets that row's paths and a note.

    >>> from transformers import RobertaConfig
    >>> from peftsearch.backbone.recognise import family_of
    >>> family_of(RobertaConfig()).stacks[0].attention.query.path
    'attention.self.query'
    """
    for family in FAMILIES:
        if config.model_type in family.model_types and family.when(config):
            return family
    return _recognised(config.model_type, _Config(config))


class _Config:
    """A config as a key of a cache: equal where its JSON is."""

    def __init__(self, config: Any) -> None:
        self.config, self.text = config, config.to_json_string(use_diff=False)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config) and other.text == self.text


@lru_cache(maxsize=32)
def _recognised(model_type: str, key: _Config) -> Family:
    """The first family whose layout a model of unknown type has, or a ConfigurationError."""
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(copy.deepcopy(key.config))
    except (ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"model type '{model_type}': {_first_line(error)}") from error
    misfits = []
    for family in FAMILIES:
        misfit = _misfit(model, family)
        if misfit is None:
            return _as_recognised(model_type, family, model)
        misfits.append(f"{family.name}: {misfit}")
    known = ", ".join(sorted({t for family in FAMILIES for t in family.model_types}))
    raise ConfigurationError(
        f"model type '{model_type}' is not in the table of families ({known}), and its layout is "
        f"none of theirs: {'; '.join(dict.fromkeys(misfits))}. "
        "A new family is one row in peftsearch/backbone/families.py"
    )


def _as_recognised(model_type: str, family: Family, model: Any) -> Family:
    """A family's row for a model of another type, without what its layout does not show."""
    pooler = getattr(model, str(family.pooler), None)
    through_interface = bool(
        getattr(model, "_supports_attention_backend", False) or getattr(model, "_supports_sdpa", 0)
    )
    return replace(
        family,
        name=f"{model_type} (as {family.name})",
        takes_prefix=family.takes_prefix and through_interface,
        classifier=None,  # its head may be another
        # Whether the stream is a plain sum cannot be seen in the modules' names.
        sums_attention=family.sums_attention and not family.pre_norm,
        pooler=family.pooler if hasattr(pooler, "dense") else None,
        note=f"'{model_type}' is not in the table of families; its layout is that of {family.name}",
    )


def _misfit(model: nn.Module, family: Family) -> str | None:
    """The first difference of a model's modules from a family's, or None."""
    for stack in family.stacks:
        try:
            layers = stack_layers(model, stack)
        except AttributeError:
            return f"no '{stack.layers}'"
        if _ends_in_norm(model, stack) != family.pre_norm:
            return f"{'no' if family.pre_norm else 'a'} norm after '{stack.layers}'"
        if any(part.of > 1 for part in _parts(stack.attention)):
            return "one projection for queries, keys and values, whose order names do not tell"
        for layer in layers[:1] + layers[-1:]:
            reason = _layer_misfit(layer, stack)
            if reason:
                return reason
    return None


def _ends_in_norm(model: nn.Module, stack: Stack) -> bool:
    """Whether a norm follows the last layer, as in pre-norm stacks and no others."""
    parent = model.get_submodule(stack.layers.rpartition(".")[0])
    return any(
        (isinstance(module, nn.LayerNorm) or type(module).__name__.endswith("Norm"))
        and "emb" not in name
        for name, module in parent.named_children()
    )


def _layer_misfit(layer: nn.Module, stack: Stack) -> str | None:
    """The first module that a row names and the layer lacks, or has besides; None if none."""
    sublayers = [p for p in (stack.attention, stack.cross, stack.ffn) if p is not None]
    parts = [part for paths in sublayers for part in _parts(paths)]
    for part in parts:
        try:
            LinearView.at(layer, part)
        except (AttributeError, ConfigurationError):
            return f"no linear layer '{part.path}'"
    norms = {path for paths in sublayers for path in (paths.norm, paths.added) if path}
    modules = dict(layer.named_modules())
    missing = norms - modules.keys()
    if missing:
        return f"no '{min(missing)}'"
    holders = {path for path, m in modules.items() if any(True for _ in m.parameters(False))}
    extra = holders - norms - {part.path for part in parts}
    extra = {path for path in extra if not path.endswith(_HARMLESS)}
    return f"'{min(extra)}' besides" if extra else None


def _parts(paths: AttentionPaths | FfnPaths) -> list[Part]:
    """The linear layers of one sub-layer."""
    if isinstance(paths, AttentionPaths):
        return [paths.query, paths.key, paths.value, Part(paths.out)]
    return [part for part in (paths.hidden, paths.gate, Part(paths.out)) if part]


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
