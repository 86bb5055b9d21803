"""A modification's tuned tensors: their names, initial values, and what training must know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.attach.attachment import Attachment, TunedParameter
from peftsearch.backbone.attach.sites import SiteModules
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import SiteShape

__all__ = ["TensorBuilder"]


@dataclass(frozen=True)
class TensorBuilder:
    """One modification being attached: tensors are made here and entered in the attachment."""

    backbone: Backbone
    modification: Modification
    index: int
    generator: Generator
    attachment: Attachment
    fused: bool = True
    """Whether Δh is scaled and added by its form, in as few passes as it can."""
    held: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """Parameters of an earlier attachment, by name: taken as they are, in place of new ones."""

    @property
    def dtype(self) -> torch.dtype:
        """Tuned tensors are fp32 beside a backbone in half precision."""
        return torch.float64 if self.backbone.dtype == torch.float64 else torch.float32

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.dtype)

    def parameter(
        self, name: str, value: Tensor, of_composition: bool = False, rate: float = 1.0
    ) -> nn.Parameter:
        """A parameter of the attachment, under a name unique in the configuration."""
        whole, form = f"{self.index}/{name}", self.modification.form
        parameter = self.held.get(whole)
        if parameter is None:
            parameter = nn.Parameter(value.to(self.backbone.device))
        decays = form.decays and not of_composition and parameter.ndim > 1
        fast = name.rsplit("/", 1)[-1] in form.fast
        self.attachment.tuned.append(
            TunedParameter(whole, parameter, form.name, decays, fast, rate)
        )
        return parameter

    def shared_tensors(self) -> dict[str, Tensor]:
        """Tuned tensors and constants of the whole modification."""
        form, widest = self.modification.form, self.modification.widest
        sources = self.modification.sources(self.backbone.shapes)
        constant = Generator().manual_seed(0)  # the same in every trial, process and export
        tensors: dict[str, Tensor] = {}
        for name, shape in form.constants(sources, widest).items():
            value = torch.empty(shape)  # in fp32 always: another precision draws other numbers
            form.initialise(name, value, constant)
            tensors[name] = value.to(self.backbone.device, self.dtype)
        for name, shape in form.shared(sources, widest).items():
            value = self.empty(shape)
            form.initialise(name, value, self.generator)
            tensors[name] = self.parameter(f"shared/{name}", value)
        return tensors

    def site_tensors(self, site: SiteShape, d_source: int) -> dict[str, Tensor]:
        """A site's own tensors and its composition's, by name."""
        form = self.modification.form
        width = self.modification.width_at(site, self.backbone.shapes)
        own = {n: self.empty(s) for n, s in form.tensors(site, d_source, width).items()}
        with torch.no_grad():
            constants = form.initialise_site(own, self.generator, self._pretrained(site))
        tensors: dict[str, Tensor] = {
            name: self.parameter(f"{site.key}/{name}", value) for name, value in own.items()
        }
        tensors |= {n: value.to(self.backbone.device) for n, value in constants.items()}
        return tensors | self.composition_tensors(site, d_source)

    def composition_tensors(self, site: SiteShape, d_source: int) -> dict[str, Tensor]:
        composition, pretrained = self.modification.composition, self._pretrained(site)
        tensors: dict[str, Tensor] = {}
        for name, shape in composition.tensors(site, d_source).items():
            value = self.empty(shape)
            composition.initialise(name, value, pretrained)
            tensors[name] = self.parameter(f"{site.key}/{name}", value, of_composition=True)
        return tensors

    def _pretrained(self, site: SiteShape) -> Callable[[], Tensor]:
        """The frozen weight (d_source, d_h) at a site, on the CPU."""

        def weight() -> Tensor:
            if site.place == "embedding":
                found: Tensor = self.backbone.model.get_input_embeddings().weight
            else:
                linear = SiteModules.of(self.backbone, site).linear
                assert linear is not None
                found = linear.weight()
            return found.detach().to("cpu", self.dtype)

        return weight
