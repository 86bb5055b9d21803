"""Prompts: learned vectors before the token embeddings of the first stack that reads them.

In an encoder-decoder that is the encoder, whose output keeps them, so that cross-attention reads
them too; elsewhere they are cut off the output, which then has the tokens' length again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.errors import ConfigurationError
from peftsearch.wording import counted

__all__ = ["attach_prompt"]


def attach_prompt(backbone: Backbone, prompt: Tensor) -> Callable[[], None]:
    """Prepend `prompt` (l, d) in every forward; returns what takes it off."""
    stacks = backbone.family.stacks
    reader = backbone.model.get_submodule(stacks[0].module)
    inserted = _Inserted(backbone, prompt, reader)
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


class _Inserted:
    """The hooks of one prompt."""

    def __init__(self, backbone: Backbone, prompt: Tensor, reader: nn.Module) -> None:
        self.prompt, self.length = prompt, len(prompt)
        self.embed = backbone.model.get_input_embeddings()
        self.positions = backbone.positions
        self.names = list(inspect.signature(reader.forward).parameters)
        self._cut = False

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Token ids become embeddings with the prompt before them; masks and positions follow."""
        given = dict(zip(self.names, args, strict=False)) | kwargs
        ids = given.pop("input_ids", None)
        embedded = given.get("inputs_embeds")
        embedded = self.embed(ids) if embedded is None else embedded
        placed = given.get("position_ids") is not None
        order = self._order(given.get("attention_mask")) if placed else None
        past = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        self._cut = past is None or past.get_seq_length() == 0
        if self._cut:
            embedded = _taken(torch.cat((self._expanded(embedded), embedded), dim=1), order)
        if embedded.shape[1] > self.positions:
            raise ConfigurationError(
                f"a prompt of {counted(self.length, 'token')} before texts of "
                f"{embedded.shape[1] - self.length} exceeds the model's {self.positions} "
                "positions: use shorter texts (--max-length)"
            )
        given["inputs_embeds"] = embedded
        for name, fill in (("attention_mask", 1), ("token_type_ids", 0)):
            if given.get(name) is not None and (self._cut or name == "attention_mask"):
                given[name] = _taken(_padded(given[name], self.length, fill), order)
        for name in ("position_ids", "cache_position"):
            if given.get(name) is not None:
                given[name] = self._shifted(given[name], order)
        return (), given

    def _order(self, mask: Tensor | None) -> Tensor | None:
        """Where texts with positions of their own are padded on the left: which of prompt, padding
        and text stands at each place (batch, l + seq), so that the prompt follows the padding.
        Attention over a window of places would else see padding in the prompt's stead.
        """
        if mask is None or mask.ndim != 2 or bool(mask[:, 0].all()):
            return None
        padding = (mask.cumsum(1) == 0).sum(1, keepdim=True)
        places = torch.arange(self.length + mask.shape[1], device=mask.device).expand(len(mask), -1)
        from_prompt = torch.where(places < padding + self.length, places - padding, places)
        return torch.where(places < padding, places + self.length, from_prompt)

    def _expanded(self, embedded: Tensor) -> Tensor:
        return self.prompt.to(embedded.dtype).expand(len(embedded), -1, -1)

    def _shifted(self, positions: Tensor, order: Tensor | None) -> Tensor:
        moved = positions + self.length
        if not self._cut:
            return moved
        own = torch.arange(self.length, device=positions.device).expand(*moved.shape[:-1], -1)
        both = torch.cat((own, moved), dim=-1)
        return both if both.ndim == 1 else _taken(both, order)

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """The tokens' states alone."""
        if self._cut:
            output.last_hidden_state = output.last_hidden_state[:, self.length :]
        return output

    def in_decoder(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The decoder sees the prompt's states in the encoder's output."""
        mask, states = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
        missing = 0 if mask is None or states is None else states.shape[1] - mask.shape[1]
        if mask is not None and missing == self.length:
            kwargs["encoder_attention_mask"] = _padded(mask, self.length, 1)
        return args, kwargs


def _padded(mask: Tensor, length: int, fill: int) -> Tensor:
    return torch.cat((mask.new_full((len(mask), length), fill), mask), dim=1)


def _taken(values: Tensor, order: Tensor | None) -> Tensor:
    """Values (batch, seq) or (batch, seq, d) in another order of places."""
    if order is None:
        return values
    values = values.expand(len(order), *values.shape[1:])
    wanted = order if values.ndim == 2 else order.unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, wanted)
