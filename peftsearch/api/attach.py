"""`peftsearch.attach`: attach a configuration to your own transformers model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.attach import attach as attach_to
from peftsearch.backbone.attach.attachment import Attachment, registered_name
from peftsearch.backbone.borrow import Undo, borrow
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix
from peftsearch.design.methods import method
from peftsearch.errors import ConfigurationError

__all__ = ["Attached", "attach"]

_Make = Callable[[Mapping[str, nn.Parameter]], Attachment]
"""Attaches the configuration, with the parameters of an earlier attachment if there are any."""

MODULE = "peftsearch"
"""The model's submodule of tuned parameters, where optimisers find them."""


class Attached:
    """A configuration attached to a model; returned by `attach`, ended by `detach`.

    Also a context manager: leaving it detaches.

    >>> with peftsearch.attach("tiny-bert", "lora") as attached:
    ...     print(attached)
    <linear∥attn.query+value r=8 s=2: 2,048 trained parameters>
    """

    def __init__(
        self,
        model: nn.Module,
        configuration: Configuration,
        make: _Make,
        give_back: Undo,
        tensors: Mapping[str, Tensor] | None,
    ) -> None:
        self.model, self.configuration = model, configuration
        self._make, self._made, self._give_back = make, make({}), give_back
        self._attached = True
        if tensors is not None:
            _fill(self._made, tensors)
        self._held = _TunedParameters(self._made.tensors)
        model.add_module(MODULE, self._held)
        model._apply = self._move  # type: ignore[method-assign]  # as `to` and `double` call it

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Name → tuned parameter, in a fixed order: every body parameter that requires a gradient.

        >>> attached = peftsearch.attach("tiny-bert", "lora")
        >>> optimiser = torch.optim.AdamW(attached.parameters.values(), lr=1e-3)
        """
        return self._made.tensors

    @property
    def tuned_parameters(self) -> int:
        """The number of tuned parameters as stored: the cost that frontiers are drawn over.

        >>> peftsearch.attach("tiny-bert", "lora").tuned_parameters  # 2 layers, 2 × 2 × 8 × 32 each
        2048
        """
        return sum(tensor.numel() for tensor in self.state_dict().values()) - sum(
            index.numel() for index in self._made.indices.values()
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Name → tensor, for `safetensors.torch.save_file`, and for `attach(…, tensors=…)` later.
        Re-parametrised prefixes and sparse changes are stored merged, as used in evaluation.

        >>> attached = peftsearch.attach("tiny-bert", "lora")
        >>> stored = {name: tensor.clone() for name, tensor in attached.state_dict().items()}
        >>> attached.detach()
        >>> again = peftsearch.attach(attached.model, "lora", tensors=stored)
        """
        return self._made.stored()

    def penalty(self) -> Tensor | None:
        """A scalar to add to the loss: diff-pruning's expected L0 norm (Guo et al. 2021), with the
        configuration's weight. None if no form of the configuration has a penalty.

        >>> peftsearch.attach("tiny-bert", "lora").penalty() is None
        True
        >>> peftsearch.attach("tiny-bert", "diff-pruning").penalty().shape
        torch.Size([])
        """
        return self._made.penalty()

    def detach(self) -> None:
        """Detach the configuration: outputs are bit-identical to before. May be called again.

        >>> model = transformers.AutoModel.from_pretrained("tiny-bert").eval()
        >>> tokens = torch.arange(3, 17).view(2, 7)
        >>> before = model(tokens).last_hidden_state
        >>> attached = peftsearch.attach(model, "mam")
        >>> attached.detach()
        >>> torch.equal(model(tokens).last_hidden_state, before)
        True
        """
        if not self._attached:
            return
        self._attached = False
        self._made.detach()
        if MODULE in self.model._modules:
            del self.model._modules[MODULE]
        del self.model._apply
        self._give_back()

    def _move(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Replacement of the model's `_apply`, called by `to`, `cuda` and `double`: detaches, moves
        the model, and attaches the same parameters again, as hooks hold other tensors, too.
        """
        plain: Any = type(self.model)._apply
        if not _changes(self.model, fn):
            return self.model
        indices = self._made.indices
        self._made.detach()
        try:
            plain(self.model, fn, recurse)
        finally:
            self._made = self._make(self._held.by_name())
            for name, index in self._made.indices.items():
                index.copy_(indices[name])
        return self.model

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters.values())
        return f"<{self.configuration.describe()}: {count:,} trained parameters>"


def attach(
    model: nn.Module | str | PathLike[str],
    configuration: Configuration | str,
    seed: int = 0,
    tensors: Mapping[str, Tensor] | None = None,
) -> Attached:
    """Freeze a transformers model's body and attach a configuration to it.

    `model` may also be the folder of a saved model or a Hub name: `attached.model` is the loaded
    model. `configuration` may be the name of a method (`"lora"`, `"mam"`; see `METHODS`). Its
    head and training settings are not used: head, loss and optimiser are the model's and yours.
    The tuned parameters become parameters of the model, so that `Trainer`, `accelerate` and plain
    optimisers over `model.parameters()` find them. A classifier beside the body stays trainable; a
    language model's head is frozen like the body. `seed` determines the initial values,
    unless `tensors` (an earlier `state_dict()`) gives them.

    Raises ConfigurationError if the model's family is unknown or does not support the
    configuration, or if one is attached already; MissingError for a folder without a model.

    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=32, num_hidden_layers=2,
    ...     num_attention_heads=2, intermediate_size=64, vocab_size=99))
    >>> attached = attach(model, "lora")
    >>> attached.tuned_parameters
    2048
    >>> attached.detach()
    """
    own = _loaded(model)
    if isinstance(configuration, str):
        configuration = method(configuration).configuration()
    if MODULE in own._modules:
        raise ConfigurationError("a configuration is attached to this model already: detach it")
    prefixes = any(isinstance(m.form, Prefix) for m in configuration.modifications)
    backbone, give_back = borrow(own, prefixes)

    def make(held: Mapping[str, nn.Parameter]) -> Attachment:
        return attach_to(backbone, fitting, seed, finished=tensors is not None, held=held)

    try:
        fitting = configuration.within(backbone.shapes)
        return Attached(own, fitting, make, give_back, tensors)
    except BaseException:
        give_back()
        raise


def _loaded(model: nn.Module | str | PathLike[str]) -> nn.Module:
    """The model, loaded first if given by folder or name."""
    if not isinstance(model, str | PathLike):
        return model
    from peftsearch.api.saved_model import load_saved

    return load_saved(fspath(model))


def _fill(made: Attachment, tensors: Mapping[str, Tensor]) -> None:
    """Copy stored values; ConfigurationError if names or shapes do not match."""
    own: dict[str, Tensor] = {**made.tensors, **made.indices}
    odd = sorted(own.keys() ^ tensors.keys())
    odd += sorted(n for n in own.keys() & tensors.keys() if own[n].shape != tensors[n].shape)
    if odd:
        made.detach()
        raise ConfigurationError(f"tensors do not belong to this configuration: {odd[:3]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _changes(model: nn.Module, fn: Callable[[Tensor], Tensor]) -> bool:
    """Whether `fn` moves or casts any of the model's tensors; tried on empty tensors."""
    sorts = {(t.device, t.dtype) for t in (*model.parameters(), *model.buffers())}
    probes = ((sort, fn(torch.empty(0, device=sort[0], dtype=sort[1]))) for sort in sorts)
    return any((probe.device, probe.dtype) != sort for sort, probe in probes)


class _TunedParameters(nn.Module):
    """The tuned parameters as a submodule of the model."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self._names = tuple(parameters)
        for name, parameter in parameters.items():
            self.register_parameter(registered_name(name), parameter)

    def by_name(self) -> dict[str, nn.Parameter]:
        """Name in the attachment → parameter, wherever it was moved."""
        return {name: self.get_parameter(registered_name(name)) for name in self._names}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _TunedParameters:
        """Move and cast; tuned parameters stay fp32 if the body is in half precision."""

        def at_least_fp32(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            is_half = moved.is_floating_point() and moved.element_size() < 4
            return tensor.to(moved.device, torch.float32) if is_half else moved

        super()._apply(at_least_fp32, recurse)  # type: ignore[no-untyped-call]
        return self
