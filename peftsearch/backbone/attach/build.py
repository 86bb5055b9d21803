"""Creating a modification's tuned tensors: names, initial values and training settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.attach.attachment import Attachment, TunedParameter
from peftsearch.backbone.attach.sites import SiteModules
from peftsearch.backbone.backbone import Backbone
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import SiteShape

__all__ = ["TensorBuilder"]


@dataclass(frozen=True)
class TensorBuilder:
    """Makes the tensors of one modification and enters them in the attachment.

    Random numbers come from one generator in a fixed order (modification by modification, site by
    site), so that they depend on the seed and the configuration alone.
    """

    backbone: Backbone
    modification: Modification
    index: int
    """The modification's number in its configuration, with which its tensors' names begin."""
    generator: Generator
    attachment: Attachment
    fused: bool = True
    """Whether a form may scale and add its Δh itself (`Form.add_to`), in fewer passes."""
    held: Mapping[str, nn.Parameter] = field(default_factory=dict)
    """Name → parameter of an earlier attachment, used in place of a new one."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of tuned tensors: fp32 beside a half-precision backbone, whose 8 or 11 bits of
        mantissa would round small updates away; fp64 beside one in fp64.
        """
        return torch.float64 if self.backbone.dtype == torch.float64 else torch.float32

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """An uninitialised tensor of `shape`, on the CPU, where all random numbers are drawn."""
        return torch.empty(shape, dtype=self.dtype)

    def parameter(
        self, name: str, value: Tensor, of_composition: bool = False, rate: float = 1.0
    ) -> nn.Parameter:
        """A new tuned parameter of `value`'s shape, entered in the attachment as `index/name`.

        `rate`: its learning rate over its form's. `of_composition`: it is never weight-decayed.
        """
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
        """Name → tuned tensor or constant that all sites share, of the form's shapes."""
        form, widest = self.modification.form, self.modification.widest
        sources = self.modification.sources(self.backbone.shapes)
        # Constants are not stored: seed 0 draws the same ones in every trial, process and export,
        # in fp32 always, since another precision draws other numbers.
        constant = Generator().manual_seed(0)
        tensors: dict[str, Tensor] = {}
        for name, shape in form.constants(sources, widest).items():
            value = torch.empty(shape)
            form.initialise(name, value, constant)
            tensors[name] = value.to(self.backbone.device, self.dtype)
        for name, shape in form.shared(sources, widest).items():
            value = self.empty(shape)
            form.initialise(name, value, self.generator)
            tensors[name] = self.parameter(f"shared/{name}", value)
        return tensors

    def site_tensors(self, site: SiteShape, d_source: int) -> dict[str, Tensor]:
        """Name → tuned tensor or constant of one site and its composition, of the form's shapes."""
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
        """Name → tuned tensor of the composition at one site, of the shapes that it gives."""
        composition, pretrained = self.modification.composition, self._pretrained(site)
        tensors: dict[str, Tensor] = {}
        for name, shape in composition.tensors(site, d_source).items():
            value = self.empty(shape)
            composition.initialise(name, value, pretrained)
            tensors[name] = self.parameter(f"{site.key}/{name}", value, of_composition=True)
        return tensors

    def _pretrained(self, site: SiteShape) -> Callable[[], Tensor]:
        """A function that copies the frozen weight at a site to the CPU: [d_source, d_h] of the
        linear layer, [vocabulary, d_h] of the embeddings. Few forms call it.
        """

        def weight() -> Tensor:
            if site.place == "embedding":
                found: Tensor = self.backbone.model.get_input_embeddings().weight
            else:
                linear = SiteModules.of(self.backbone, site).linear
                assert linear is not None
                found = linear.weight()
            return found.detach().to("cpu", self.dtype)

        return weight
