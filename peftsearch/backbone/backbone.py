"""Backbones: a frozen pretrained body without its pooler, ready for modifications."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.hooks import DIRECT_HOOKS, Hooks
from peftsearch.backbone.family import Family, Stack
from peftsearch.backbone.measure import measure, positions_of, stack_layers, token_type_rows
from peftsearch.backbone.recognise import family_of
from peftsearch.design.shapes import BackboneShapes, SiteShape
from peftsearch.errors import MissingError
from peftsearch.wording import counted

__all__ = ["Backbone", "shapes_of", "take_pooler", "wrap"]


@dataclass(frozen=True)
class Backbone:
    """A frozen pretrained model, shared by every trial of a process.

    `model` is the body: without pooler and language-model head.
    """

    name: str
    model: Any
    tokenizer: Any
    family: Family
    shapes: BackboneShapes
    pooler: dict[str, torch.Tensor] | None
    """The pretrained pooler's `weight` [hidden, hidden] and `bias` [hidden], if it has one."""
    fingerprint: str
    """16 hex digits that tell a checkpoint's weights from another's."""
    max_length: int
    """The most tokens of a text, by the model's positions and its tokenizer's limit."""
    positions: int = 10**9
    """The most tokens that the model's position table has room for, those of prompts included."""
    lm: Any = None
    """The whole language model, head frozen like body (`model`), where texts are written."""
    target_tokenizer: Any = None
    """The tokenizer of target texts; for nearly every model the same as `tokenizer`."""
    note: str = ""
    """A sentence for the user on how it was loaded; empty for none."""
    tf32: bool = False
    """Whether a GPU is to compute its matrix products in TF32; weights and states are in fp32."""
    hooks: Hooks = DIRECT_HOOKS
    """The hooks that attaching uses: direct ones, or those of one of several configurations
    (`sharing/slices.py`).
    """

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(self.model.parameters()).dtype  # type: ignore[no-any-return]

    def layer(self, index: int) -> nn.Module:
        """A layer by its number, counted over all stacks."""
        return self.stack_and_layer(index)[1]

    def stack_and_layer(self, index: int) -> tuple[Stack, nn.Module]:
        """(stack, layer) by the layer's number, counted over all stacks."""
        for stack, size in zip(self.family.stacks, self.shapes.stacks, strict=True):
            if index < size:
                return stack, stack_layers(self.model, stack)[index]
            index -= size
        raise IndexError(index)

    def refuse_unknown_tokens(self, *tokens: torch.Tensor) -> None:
        """Raise MissingError if a token id, in tensors of any shape, has no row of embeddings."""
        # Looked up, it would raise far from here; on a GPU a device assert without a message.
        rows = self.model.get_input_embeddings().weight.shape[0]
        for ids in tokens:
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < rows:
                raise MissingError(
                    f"the tokenizer of '{self.name}' gives token {int(ids.max()):,}, but the "
                    f"model has only {rows:,}: they do not match; get a complete copy of it, or "
                    "give --tokenizer"
                )

    @cached_property
    def type_rows(self) -> int:
        """Rows of the model's table of token types; 0 without one."""
        return token_type_rows(self.model)

    def live(self, site: SiteShape) -> torch.Tensor | None:
        """Indices [live] of the tuned entries in a site's flattened body tensor; None where it is
        tuned whole.
        """
        shape = next(t for t in self.shapes.tensors if t.name == site.key)
        if site.tensor == shape.shape:
            return None
        alive = torch.ones(shape.parameters, dtype=torch.bool)
        for start, stop in shape.dead:
            alive[start:stop] = False
        return alive.nonzero().flatten().to(self.device)


def wrap(
    model: Any,
    name: str = "model",
    tokenizer: Any = None,
    pooler: dict[str, torch.Tensor] | None = None,
) -> Backbone:
    """A backbone of a body in memory, which is frozen in place and loses its pooler.

    Given `lm.model` of a language model, `lm.generate` then uses whatever is attached. `pooler`:
    `weight` [hidden, hidden] and `bias` [hidden], if it was taken off before.
    Raises ConfigurationError for an unknown family.

    >>> from transformers import BertConfig, BertModel
    >>> from peftsearch.backbone.backbone import wrap
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...     intermediate_size=16, vocab_size=20)
    >>> wrap(BertModel(config)).shapes.layers
    2
    """
    family = family_of(model.config)
    pooler = pooler or take_pooler(model, family)
    if family.takes_prefix:
        attention.register()
        model.set_attn_implementation(attention.NAME)
    model.requires_grad_(False).eval()
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        family=family,
        shapes=measure(model, model.config, family),
        pooler=pooler,
        fingerprint=_fingerprint(model),
        max_length=_max_length(name, model.config, tokenizer, family),
        positions=_positions(model.config, family),
        target_tokenizer=tokenizer,
    )


def shapes_of(config: Any) -> BackboneShapes:
    """The shapes of the model that a transformers config describes."""
    family = family_of(config)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    take_pooler(model, family)
    return measure(model, config, family)


def take_pooler(model: Any, family: Family) -> dict[str, torch.Tensor] | None:
    """Remove the pooler; returns its `weight` [hidden, hidden] and `bias` [hidden], or None."""
    pooler = getattr(model, family.pooler, None) if family.pooler else None
    if pooler is None:
        return None
    setattr(model, str(family.pooler), None)
    return {key: value.detach().clone() for key, value in pooler.dense.named_parameters()}


def _fingerprint(model: nn.Module) -> str:
    """16 hex digits of SHA-256 over every tensor's name, shape and a sample of 64 values."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def _positions(config: Any, family: Family) -> int:
    """The number of tokens that fit the position table."""
    return positions_of(config) - (
        int(config.pad_token_id) + 1 if family.positions_after_padding else 0
    )


def _max_length(name: str, config: Any, tokenizer: Any, family: Family) -> int:
    """The most tokens of a text, by positions and tokenizer; MissingError if it is none."""
    if tokenizer is None:
        return positions_of(config)
    found = min(_positions(config, family), int(min(tokenizer.model_max_length, 10**9)))
    if found < 1:
        raise MissingError(
            f"model '{name}' allows texts of only {counted(found, 'token')}, from its positions "
            "and its tokenizer's model_max_length: get a complete copy of it"
        )
    return found
