"""A configuration on a transformers model of one's own, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attach as attach_to
from peftsearch.backbone.attachment import Attachment
from peftsearch.backbone.borrowed import Undo, borrow
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix
from peftsearch.design.methods import method
from peftsearch.errors import ConfigurationError

__all__ = ["Attached", "attach"]

MODULE = "peftsearch"
"""Under this name the model holds the tuned parameters, for optimisers and `.to(device)`."""


class Attached:
    """A configuration's tuned parameters on a model, until `detach`.

    Also a context manager: leaving it detaches.
    """

    def __init__(
        self, model: nn.Module, configuration: Configuration, made: Attachment, give_back: Undo
    ) -> None:
        self.model, self.configuration = model, configuration
        self._made, self._give_back = made, give_back
        self._attached = True

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Name → tuned parameter, in a fixed order: all that requires a gradient in the body."""
        return self._made.tensors

    @property
    def tuned_parameters(self) -> int:
        """How many numbers are stored: the count that frontiers are drawn over."""
        return sum(tensor.numel() for tensor in self.state_dict().values()) - sum(
            index.numel() for index in self._made.indices.values()
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Name → tensor, for `safetensors.torch.save_file`, and for `attach(…, tensors=…)` later.
        Re-parametrised prefixes and sparse changes are stored as what they amount to.
        """
        return self._made.stored()

    def penalty(self) -> Tensor | None:
        """A scalar to add to the loss, of forms that have one (diff-pruning's expected L0 norm)."""
        return self._made.penalty()

    def detach(self) -> None:
        """Take everything off: the model's outputs are bit-identical to before. Twice is once."""
        if not self._attached:
            return
        self._attached = False
        self._made.detach()
        if MODULE in self.model._modules:
            del self.model._modules[MODULE]
        self._give_back()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters.values())
        return f"<{self.configuration.describe()}: {count:,} trained parameters>"


def attach(
    model: nn.Module,
    configuration: Configuration | str,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
) -> Attached:
    """Freeze a transformers model's body and attach a configuration to it.

    `configuration` may be the name of a method (`"lora"`, `"mam"`; `peftsearch ls methods`). Its
    head and training settings are not used: head, loss and optimiser are the model's and yours.
    The tuned parameters are the model's own from now on, so that `Trainer`, `accelerate` and plain
    optimisers over `model.parameters()` find them. A classifier beside the body stays trainable; a
    language model's head is frozen like the body. `seed` decides the first values of what is tuned,
    unless `tensors` (an earlier `state_dict()`) has them.

    Raises ConfigurationError for a model of an unknown family, for what its family cannot take,
    and where a configuration is attached already.

    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2,
    ...     num_attention_heads=2, intermediate_size=64, vocab_size=99))
    >>> attached = attach(model, "lora")
    >>> attached.tuned_parameters
    2048
    >>> attached.detach()
    """
    if isinstance(configuration, str):
        configuration = method(configuration).configuration()
    if MODULE in model._modules:
        raise ConfigurationError("a configuration is attached to this model already: detach it")
    prefixes = any(isinstance(m.form, Prefix) for m in configuration.modifications)
    backbone, give_back = borrow(model, prefixes)
    try:
        configuration = configuration.within(backbone.shapes)
        made = attach_to(backbone, configuration, seed, finished=tensors is not None)
        if tensors is not None:
            _fill(made, tensors)
    except BaseException:
        give_back()
        raise
    model.add_module(MODULE, _holding(made))
    return Attached(model, configuration, made, give_back)


def _fill(made: Attachment, tensors: Mapping[str, Tensor]) -> None:
    """Copy stored values; ConfigurationError if names or shapes are another configuration's."""
    own: dict[str, Tensor] = {**made.tensors, **made.indices}
    odd = sorted(own.keys() ^ tensors.keys())
    odd += sorted(n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape)
    if odd:
        made.detach()
        raise ConfigurationError(f"tensors do not belong to this configuration: {odd[:3]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _holding(made: Attachment) -> nn.Module:
    """A module that holds the tuned parameters; its parameters' names may contain no dot."""
    holder: Any = nn.Module()
    for name, parameter in made.tensors.items():
        holder.register_parameter(name.replace(".", "_"), parameter)
    return holder  # type: ignore[no-any-return]
