"""Tuned tensors of the body (BitFit, norm tuning, full fine-tuning): copies that replace them.

The frozen tensors themselves are never written, so that detaching gives back the same bits. A copy
of the body's dtype and whole shape replaces the frozen tensor once. One that must be computed (cast
to the body's dtype, joined with a frozen part, or a sparse change) is computed for every forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.build import TensorBuilder
from peftsearch.backbone.attach.hooks import Hooks, Undo
from peftsearch.backbone.backbone import Backbone
from peftsearch.design.shapes import SiteShape

__all__ = ["Replacement", "Substitutes", "attach_copies"]


def attach_copies(builder: TensorBuilder) -> None:
    """Tune a copy of each of the place's tensors, of the tensor's shape, or [live] where a part of
    it gets no gradient and stays frozen.
    """
    backbone, attachment = builder.backbone, builder.attachment
    substitutes = Substitutes(backbone.hooks)
    # The form's one tensor name, `bias` or `weight`, asked with a site that has only a shape.
    (key,) = builder.modification.form.tensors(SiteShape("", "", None, tensor=(1,)), 0, 0)
    for site, _ in builder.modification.sources(backbone.shapes):
        frozen = backbone.model.get_parameter(site.key)
        live = backbone.live(site)
        value = frozen.detach().to(builder.dtype)
        value = value.clone() if live is None else value.flatten()[live]
        parameter = builder.parameter(f"{site.key}/{key}", value)
        replacement = Replacement.of(backbone, frozen)
        attachment.undo.append(replacement.restore)
        if live is None and frozen.dtype == builder.dtype:
            replacement.put(parameter)
        else:
            substitutes.add(parameter, replacement, _cast(frozen, parameter, live))
    if substitutes.trained:
        attachment.undo += substitutes.begin(builder)


def _cast(frozen: Tensor, tuned: Tensor, live: Tensor | None) -> Callable[[], Tensor]:
    """A function that computes the replacement of a frozen tensor, of its shape and dtype."""

    def whole() -> Tensor:
        return tuned.to(frozen.dtype)

    def joined() -> Tensor:
        """The frozen tensor with its live entries replaced: a fused bias keeps its dead keys."""
        assert live is not None
        flat = frozen.detach().flatten()
        return flat.index_copy(0, live, tuned.to(frozen.dtype)).view_as(frozen)

    return whole if live is None else joined


@dataclass(frozen=True)
class Replacement:
    """The place of one frozen tensor, wherever the body uses it."""

    frozen: Tensor
    uses: list[tuple[nn.Module, str]]
    """(module, name of its parameter)."""
    hooks: Hooks

    @classmethod
    def of(cls, backbone: Backbone, frozen: Tensor) -> Replacement:
        """The place of a tensor of the body."""
        # All uses: tied weights (T5's embeddings, a language model's head) are one tensor in
        # several modules. `named_parameters` would list it once.
        uses = [
            (module, key)
            for module in backbone.model.modules()
            for key, parameter in module._parameters.items()
            if parameter is frozen
        ]
        return cls(frozen, uses, backbone.hooks)

    def put(self, tensor: Tensor) -> None:
        """Use another tensor of the same shape."""
        for module, key in self.uses:
            self.hooks.substitute(module, key, tensor)

    def restore(self) -> None:
        """Use the frozen tensor itself again."""
        for module, key in self.uses:
            self.hooks.restore(module, key, self.frozen)


class Substitutes:
    """Replacements of frozen tensors that are computed from trained ones.

    With gradients they are computed once in every forward of the configuration's texts, whose
    autograd graph they then belong to; without, only when a trained tensor has changed since.
    """

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.trained: list[Tensor] = []
        self.replaced: list[Replacement] = []
        self.compute_all: Callable[[], Iterable[Tensor]] | None = None
        """Computes all replacements at once, in the order of `replaced`; None: each by itself."""
        self._each: list[Callable[[], Tensor]] = []
        self._state: object = None
        self._inside = False

    def add(self, trained: Tensor, replaced: Replacement, compute: Callable[[], Tensor]) -> None:
        """One more replacement, which `compute` makes of a trained tensor, of the frozen shape."""
        self.trained.append(trained)
        self.replaced.append(replaced)
        self._each.append(compute)

    def begin(self, builder: TensorBuilder) -> list[Undo]:
        """Refresh before each forward of the model, and of a stack that runs on its own, as an
        encoder does in generation; returns the functions that take the hooks off.
        """
        model, stacks = builder.backbone.model, builder.backbone.family.stacks
        parts = [model.get_submodule(stack.module) for stack in stacks if stack.module]
        with torch.no_grad():
            self.compute()
        builder.attachment.release.append(self.release)
        return [
            model.register_forward_pre_hook(self._enter).remove,
            # Also after a forward that raised (`states_after` ends one so), else `_inside` stays.
            model.register_forward_hook(self._leave, always_call=True).remove,
            *(part.register_forward_pre_hook(self._enter_part).remove for part in parts),
        ]

    def _enter(self, module: nn.Module, args: object) -> None:
        self.refresh()
        self._inside = True

    def _leave(self, module: nn.Module, args: object, output: object) -> None:
        self._inside = False

    def _enter_part(self, module: nn.Module, args: object) -> None:
        # Within the model's forward it is done already. Done again for the decoder, it would draw
        # other noise for a mask than the encoder has had, whose layers gradient checkpointing
        # computes a second time in the backward, with the tensors that are in place then.
        if not self._inside:
            self.refresh()

    def refresh(self) -> None:
        """Compute the replacements for a forward that has texts of the configuration."""
        # Computed in a pass of other members, they would hold a graph that nobody releases.
        if self.hooks.has_texts:
            self.compute()

    def compute(self) -> None:
        """Compute the replacements: with gradients always, since a graph serves one backward."""
        # data_ptr and version tell a trained tensor that was stepped, loaded or moved.
        state = [(t.data_ptr(), t._version) for t in self.trained]
        if torch.is_grad_enabled() or state != self._state:
            computed = self.compute_all() if self.compute_all else [one() for one in self._each]
            for replaced, tensor in zip(self.replaced, computed, strict=True):
                replaced.put(tensor)
            self._state = None if torch.is_grad_enabled() else state

    def release(self) -> None:
        """Put the frozen values in place of tensors that hold a graph, until the next forward."""
        # Their graph ends in the nodes that accumulate the trained tensors' gradients: while it
        # lives, the next pass uses those nodes again, on the stream that they were made on.
        if self._state is None:
            for replaced in self.replaced:
                replaced.put(replaced.frozen.detach())
