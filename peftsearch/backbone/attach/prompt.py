"""Prompts: learned vectors before the token embeddings of the first stack that reads them.

In an encoder-decoder that is the encoder, whose output keeps them, so that cross-attention reads
them too; elsewhere they are cut off the output, which then has the tokens' length again.
Shapes: l prompt vectors, `tokens` of the text, d_embedding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.backbone import Backbone
from peftsearch.errors import ConfigurationError
from peftsearch.wording import counted

__all__ = ["attach_prompt"]


def attach_prompt(backbone: Backbone, prompt: Tensor) -> Callable[[], None]:
    """Prepend `prompt` [l, d_embedding] in every forward; returns the function that removes it."""
    stacks = backbone.family.stacks
    reader = backbone.model.get_submodule(stacks[0].module)
    inserted = _PromptHooks(backbone, prompt, reader)
    handles = [reader.register_forward_pre_hook(inserted.before, with_kwargs=True)]
    if backbone.family.is_encoder_decoder:
        decoder = backbone.model.get_submodule(stacks[1].module)
        handles.append(decoder.register_forward_pre_hook(inserted.in_decoder, with_kwargs=True))
    else:
        handles.append(reader.register_forward_hook(inserted.after))

    def undo() -> None:
        for handle in handles:
            handle.remove()

    return undo


_CACHES = ("cache", "past_key_values")
"""Keys and values of earlier tokens: transformers renamed the argument in 5.24."""


class _PromptHooks:
    """The hooks of one prompt on the stack that reads it, and on a decoder."""

    def __init__(self, backbone: Backbone, prompt: Tensor, reader: nn.Module) -> None:
        self.prompt, self.length = prompt, len(prompt)
        self.embed = backbone.model.get_input_embeddings()
        self.positions = backbone.positions
        self.names = list(inspect.signature(reader.forward).parameters)
        self._cut = False
        """Whether the current forward has the prompt in it: not when a cache holds it already."""

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of the stack with [batch, l + tokens, d_embedding] as its input.

        `attention_mask` and `token_type_ids` [batch, tokens] and positions are extended. Raises
        ConfigurationError for more tokens than the model has positions.
        """
        inputs = dict(zip(self.names, args, strict=False)) | kwargs
        ids = inputs.pop("input_ids", None)
        embedded = inputs.get("inputs_embeds")
        embedded = self.embed(ids) if embedded is None else embedded
        # Without position ids the model numbers places from the left, prompt and padding included;
        # with them (generation) the prompt may be put behind left padding.
        placed = inputs.get("position_ids") is not None
        order = self._order(inputs.get("attention_mask")) if placed else None
        # While generating, the cache holds the prompt's keys and values after the first forward:
        # only the mask and the positions still count it.
        past = next((inputs[name] for name in _CACHES if inputs.get(name) is not None), None)
        self._cut = past is None or past.get_seq_length() == 0
        if self._cut:
            embedded = _reordered(torch.cat((self._expanded(embedded), embedded), dim=1), order)
        if embedded.shape[1] > self.positions:
            raise ConfigurationError(
                f"a prompt of {counted(self.length, 'token')} before texts of "
                f"{embedded.shape[1] - self.length} exceeds the model's {self.positions} "
                "positions: use shorter texts (--max-length)"
            )
        inputs["inputs_embeds"] = embedded
        for name, fill in (("attention_mask", 1), ("token_type_ids", 0)):
            if inputs.get(name) is not None and (self._cut or name == "attention_mask"):
                inputs[name] = _reordered(_padded(inputs[name], self.length, fill), order)
        for name in ("position_ids", "cache_position"):
            if inputs.get(name) is not None:
                inputs[name] = self._shifted(inputs[name], order)
        return (), inputs

    def _order(self, mask: Tensor | None) -> Tensor | None:
        """For texts padded on the left, the index in (prompt, padding, text) that belongs at each
        place, [batch, l + tokens], so that the prompt follows the padding; None to leave the order.

        `mask`: [batch, tokens]. Attention over a window of places (Mistral, Gemma 2) would else see
        padding instead of the prompt.
        """
        if mask is None or mask.ndim != 2 or bool(mask[:, 0].all()):
            return None
        padding = (mask.cumsum(1) == 0).sum(1, keepdim=True)
        places = torch.arange(self.length + mask.shape[1], device=mask.device).expand(len(mask), -1)
        from_prompt = torch.where(places < padding + self.length, places - padding, places)
        return torch.where(places < padding, places + self.length, from_prompt)

    def _expanded(self, embedded: Tensor) -> Tensor:
        """The prompt as [batch, l, d_embedding] beside `embedded` [batch, tokens, d_embedding]."""
        return self.prompt.to(embedded.dtype).expand(len(embedded), -1, -1)

    def _shifted(self, positions: Tensor, order: Tensor | None) -> Tensor:
        """Positions [tokens] or [batch, tokens], later by l, after the prompt's own 0 … l − 1."""
        moved = positions + self.length
        if not self._cut:
            return moved
        own = torch.arange(self.length, device=positions.device).expand(*moved.shape[:-1], -1)
        both = torch.cat((own, moved), dim=-1)
        return both if both.ndim == 1 else _reordered(both, order)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The stack's output with the tokens' states alone, [batch, tokens, d]."""
        if self._cut:
            output.last_hidden_state = output.last_hidden_state[:, self.length :]
        return output

    def in_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The decoder's arguments, with the cross-attention mask [batch, tokens] extended to the
        encoder's [batch, l + tokens] where the caller's does not count the prompt.
        """
        mask, states = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
        missing = 0 if mask is None or states is None else states.shape[1] - mask.shape[1]
        if mask is not None and missing == self.length:
            kwargs["encoder_attention_mask"] = _padded(mask, self.length, 1)
        return args, kwargs


def _padded(mask: Tensor, length: int, fill: int) -> Tensor:
    """[batch, length + tokens] with `fill` before a mask [batch, tokens]."""
    return torch.cat((mask.new_full((len(mask), length), fill), mask), dim=1)


def _reordered(values: Tensor, order: Tensor | None) -> Tensor:
    """Values [batch, places] or [batch or 1, places, d] in another order [batch, places]."""
    if order is None:
        return values
    values = values.expand(len(order), *values.shape[1:])
    wanted = order if values.ndim == 2 else order.unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, wanted)
