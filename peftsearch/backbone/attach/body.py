"""Tuned tensors of the body: copies stand in the frozen tensors' places, which are never written.

A copy that is the tensor itself is put there once. One that must be computed (cast to the body's
dtype, joined with a frozen part, or a sparse change) is computed anew for every training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.build import TensorBuilder
from peftsearch.backbone.attach.hooks import Undo
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.shapes import SiteShape

__all__ = ["Substitutes", "attach_copies", "replace_tensor"]


def attach_copies(builder: TensorBuilder) -> None:
    """Copies of tensors of the body: swapped in as they are, or cast and joined."""
    backbone, attachment = builder.backbone, builder.attachment
    substitutes = Substitutes()
    (key,) = builder.modification.form.tensors(SiteShape("", "", None, tensor=(1,)), 0, 0)
    for site, _ in builder.modification.sources(backbone.shapes):
        frozen = backbone.model.get_parameter(site.key)
        live = backbone.live(site)
        value = frozen.detach().to(builder.dtype)
        value = value.clone() if live is None else value.flatten()[live]
        parameter = builder.parameter(f"{site.key}/{key}", value)
        put, undo = replace_tensor(backbone, frozen)
        attachment.undo.append(undo)
        if live is None and frozen.dtype == builder.dtype:
            put(parameter)
        else:
            substitutes.add(parameter, put, _cast(frozen, parameter, live))
    if substitutes.trained:
        attachment.undo += substitutes.begin(builder)


def _cast(frozen: Tensor, tuned: Tensor, live: Tensor | None) -> Callable[[], Tensor]:
    """The tensor that stands in a frozen one's place: cast, and joined with what is not tuned."""

    def whole() -> Tensor:
        return tuned.to(frozen.dtype)

    def joined() -> Tensor:
        assert live is not None
        flat = frozen.detach().flatten()
        return flat.index_copy(0, live, tuned.to(frozen.dtype)).view_as(frozen)

    return whole if live is None else joined


def replace_tensor(backbone: Backbone, frozen: Tensor) -> tuple[Callable[[Tensor], None], Undo]:
    """(put, undo) for every use of one frozen tensor, tied ones too."""
    uses = [
        (module, key)
        for module in backbone.model.modules()
        for key, parameter in module._parameters.items()
        if parameter is frozen
    ]

    def put(tensor: Tensor) -> None:
        for module, key in uses:
            backbone.hooks.put(module, key, tensor)

    def undo() -> None:
        for module, key in uses:
            backbone.hooks.take_back(module, key, frozen)

    return put, undo


class Substitutes:
    """Computed tensors in the places of frozen ones.

    Without gradients they are computed only when a trained tensor has changed since.
    """

    def __init__(self) -> None:
        self.trained: list[Tensor] = []
        self.puts: list[Callable[[Tensor], None]] = []
        self.compute: Callable[[], Iterable[Tensor]] = lambda: [one() for one in self._each]
        self._each: list[Callable[[], Tensor]] = []
        self._state: object = None
        self._inside = False

    def add(
        self, trained: Tensor, put: Callable[[Tensor], None], compute: Callable[[], Tensor]
    ) -> None:
        """One tensor that `compute` makes of a trained one."""
        self.trained.append(trained)
        self.puts.append(put)
        self._each.append(compute)

    def begin(self, builder: TensorBuilder) -> list[Undo]:
        """Refresh before each forward of the model, and of a part of it that runs on its own, as an
        encoder does in generation; returns the ways back.
        """
        model, stacks = builder.backbone.model, builder.backbone.family.stacks
        parts = [model.get_submodule(stack.module) for stack in stacks if stack.module]
        with torch.no_grad():
            self.refresh()
        return [
            model.register_forward_pre_hook(self._enter).remove,
            model.register_forward_hook(self._leave, always_call=True).remove,
            *(part.register_forward_pre_hook(self._enter_part).remove for part in parts),
        ]

    def _enter(self, module: nn.Module, args: object) -> None:
        self.refresh()
        self._inside = True

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self._inside = False

    def _enter_part(self, module: nn.Module, args: object) -> None:
        if not self._inside:
            self.refresh()

    def refresh(self) -> None:
        """Compute anew: with gradients always, since a graph is good for one backward."""
        state = [(t.data_ptr(), t._version) for t in self.trained]
        if torch.is_grad_enabled() or state != self._state:
            for put, tensor in zip(self.puts, self.compute(), strict=True):
                put(tensor)
            self._state = None if torch.is_grad_enabled() else state
