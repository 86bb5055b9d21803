"""Grouping stored tensors by site and module, as input for the peft writers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.attach.sites import SiteModules
from peftsearch.backbone.families import Part
from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import SiteShape

__all__ = ["PREFIX", "Adapter", "Layers", "SitePart", "site_parts"]

PREFIX = "base_model.model."
"""Prefix of tensor names in an adapter file, except those of a prompt."""


@dataclass(frozen=True)
class Adapter:
    """One adapter in peft's format: the part of its config that depends on its type, and
    tensors.
    """

    config: dict[str, object]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class SitePart:
    """One site of a modification, and its stored tensors."""

    modification: Modification
    site: SiteShape
    d_source: int
    tensors: Mapping[str, Tensor]


def site_parts(
    configuration: Configuration, tensors: Mapping[str, Tensor], backbone: Backbone
) -> list[SitePart]:
    """Every site of a configuration that is canonical on the backbone, in its order."""
    parts = []
    for index, modification in enumerate(configuration.modifications):
        for site, d_source in modification.sources(backbone.shapes):
            prefix = f"tuned/{index}/{site.key}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            parts.append(SitePart(modification, site, d_source, own))
    return parts


class Layers:
    """A backbone's linear layers, with their names."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._names: dict[nn.Module, str] = {
            module: name for name, module in backbone.model.named_modules()
        }

    def at(self, site: SiteShape) -> LinearView:
        """The linear layer whose output h is, or (`ffn.activated`) whose input."""
        modules = SiteModules.of(self._backbone, site)
        if site.place == "ffn.activated":
            return LinearView.at(modules.layer, Part(modules.paths.out))
        view = modules.linear
        assert view is not None
        return view

    def name(self, view: LinearView) -> str:
        return self._names[view.module]

    def first(self) -> LinearView:
        """Any linear layer, whole: the one that computes the first layer's queries."""
        stack, layer = self._backbone.stack_and_layer(0)
        return LinearView.at(layer, Part(stack.attention.query.path))

    @staticmethod
    def is_transposed(views: list[LinearView]) -> bool:
        """Whether they keep their weights as (in, out), as GPT-2's do."""
        return any(isinstance(view.module, Conv1D) for view in views)
