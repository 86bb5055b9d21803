"""The backbone with one configuration attached and its head: what is trained, exported, loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attach
from peftsearch.backbone.language import shifted
from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import ConfigurationError
from peftsearch.training.head import ClassificationHead

__all__ = ["TunedModel"]


class TunedModel:
    """Logits (batch, outputs) from token ids (batch, seq), with a configuration attached; with no
    outputs the language model `backbone.lm` writes with what is attached, and has no head of ours.

    Only one may be attached to a backbone at a time; leaving the context detaches it.
    """

    def __init__(
        self,
        backbone: Backbone,
        configuration: Configuration,
        outputs: int,
        seed: int = 0,
        finished: bool = False,
    ) -> None:
        self.backbone = backbone
        self.configuration = configuration.within(backbone.shapes)
        self.outputs = outputs
        self.head: ClassificationHead | None = None
        if outputs:
            self.head = ClassificationHead(backbone, self.configuration.head, outputs, seed)
        self.attachment = attach(backbone, self.configuration, seed, finished)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        if self.head is None:
            raise ValueError("a model without a head has no outputs of its own")
        options: dict[str, Any] = {}
        if token_type_ids is not None:
            options["token_type_ids"] = token_type_ids
        if self.backbone.shapes.reads_forward:
            options["use_cache"] = False  # nothing is written after it
        if self.backbone.family.is_encoder_decoder:
            # The decoder reads the text too, one place later, as in BART's own classification.
            body, padding = self.backbone.model, self.backbone.tokenizer.pad_token_id or 0
            options["decoder_input_ids"] = shifted(body.config, input_ids, padding)
            options["decoder_attention_mask"] = attention_mask
        states = self.backbone.model(
            input_ids=input_ids, attention_mask=attention_mask, **options
        ).last_hidden_state
        logits: Tensor = self.head(states, attention_mask)
        return logits

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything trained: `tuned/…` and `head/…`."""
        tuned = {f"tuned/{name}": p for name, p in self.attachment.tensors.items()}
        return tuned | self._head_parameters()

    def _head_parameters(self) -> dict[str, nn.Parameter]:
        own = self.head.named_parameters() if self.head is not None else ()
        return {f"head/{name}": parameter for name, parameter in own}

    def stored(self) -> dict[str, Tensor]:
        """What is saved: `tuned/…` as stored (see `Attachment.stored`), and `head/…`."""
        tuned = {f"tuned/{name}": t for name, t in self.attachment.stored().items()}
        return tuned | {name: p.detach() for name, p in self._head_parameters().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into every trained tensor (of a finished model, every stored one); raises
        ConfigurationError if any does not fit.
        """
        indices = {f"tuned/{name}": t for name, t in self.attachment.indices.items()}
        own: dict[str, Tensor] = {**self.parameters, **indices}
        if own.keys() != tensors.keys():
            missing = sorted(own.keys() ^ tensors.keys())
            raise ConfigurationError(f"tensors do not belong to this configuration: {missing[:3]}")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != tensors[name].shape:
                    raise ConfigurationError(
                        f"tensor '{name}' has shape {tuple(tensors[name].shape)}, "
                        f"not {tuple(parameter.shape)}"
                    )
                parameter.copy_(tensors[name])

    def detach(self) -> None:
        self.attachment.detach()

    def __enter__(self) -> TunedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
