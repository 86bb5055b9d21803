"""Attaching a configuration to the shared frozen backbone, and detaching it without a trace.

    source = insertion(x, h)
    delta  = form(source)
    h      = composition(h, delta)

A modification lives in hooks (or, for tensors of the body, in copies put in their place), so the
backbone's own tensors are never written. Exactly the tensors made here require a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.attention import AttachedPrefix, attach_prefix, detach_prefix
from peftsearch.backbone.families import Family
from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix
from peftsearch.design.insertion import Sequential
from peftsearch.design.modification import Modification, TunedTensor
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import SiteShape

__all__ = ["Attachment", "TunedParameter", "attach"]


@dataclass(frozen=True)
class TunedParameter:
    """A tuned tensor with what training must know of it."""

    name: str
    parameter: nn.Parameter
    form: str
    decays: bool


@dataclass
class Attachment:
    """What `attach` made; leaving it as a context manager detaches."""

    tuned: list[TunedParameter] = field(default_factory=list)
    _undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """Name → parameter, in a fixed order."""
        return {t.name: t.parameter for t in self.tuned}

    def detach(self) -> None:
        """Take everything off; the backbone's outputs are bit-identical to before."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def attach(backbone: Backbone, configuration: Configuration, seed: int = 0) -> Attachment:
    """Attach every modification; the tensors' beginnings depend on `seed` and nothing else.

    Raises ConfigurationError for layers that the backbone does not have.
    """
    configuration = configuration.within(backbone.shapes)
    attachment = Attachment()
    generator = Generator().manual_seed(seed)
    captures = _Captures(backbone, attachment)
    try:
        for index, modification in enumerate(configuration.modifications):
            _attach_one(backbone, modification, index, generator, captures, attachment)
    except BaseException:
        attachment.detach()
        raise
    return attachment


def _attach_one(
    backbone: Backbone,
    modification: Modification,
    index: int,
    generator: Generator,
    captures: _Captures,
    attachment: Attachment,
) -> None:
    sites: dict[str, tuple[SiteShape, dict[str, Tensor]]] = {}
    for tensor in modification.tuned_tensors(backbone.shapes):
        parameter = _begin(backbone, modification, tensor, generator)
        decays = modification.form.decays and not tensor.of_composition
        decays = decays and parameter.ndim > 1
        tuned = TunedParameter(f"{index}/{tensor.name}", parameter, modification.form.name, decays)
        attachment.tuned.append(tuned)
        _, tensors = sites.setdefault(tensor.site.key, (tensor.site, {}))
        tensors[tensor.name.rsplit("/", 1)[1]] = parameter
    for site, tensors in sites.values():
        _place(backbone, modification, site, tensors, captures, attachment)


def _begin(
    backbone: Backbone, modification: Modification, tensor: TunedTensor, generator: Generator
) -> nn.Parameter:
    """A tuned tensor before training: fp32, on the backbone's device; δ = 0 for the body's own."""
    if PLACES[tensor.site.place].body:
        frozen = backbone.model.get_parameter(tensor.site.key)
        return nn.Parameter(frozen.detach().clone())
    dtype = torch.float64 if backbone.dtype == torch.float64 else torch.float32
    value = torch.ones(tensor.shape, dtype=dtype)
    if not tensor.of_composition:
        modification.form.initialise(tensor.name.rsplit("/", 1)[1], value, generator)
    return nn.Parameter(value.to(backbone.device))


def _place(
    backbone: Backbone,
    modification: Modification,
    site: SiteShape,
    tensors: Mapping[str, Tensor],
    captures: _Captures,
    attachment: Attachment,
) -> None:
    if PLACES[site.place].body:
        _swap(backbone.model, site.key, next(iter(tensors.values())), attachment)
        return
    assert site.layer is not None
    layer = backbone.layer(site.layer)
    if isinstance(modification.form, Prefix):
        module = layer.get_submodule(backbone.family.attention)
        prefix = AttachedPrefix(modification.form, modification.composition, tensors)
        attach_prefix(module, prefix)
        attachment._undo.append(lambda: detach_prefix(module))
        return
    read_x = captures.reader(modification, site)
    hook, module = _hook(backbone.family, layer, site.place, modification, tensors, read_x)
    attachment._undo.append(hook(module))


def _swap(model: nn.Module, name: str, tensor: Tensor, attachment: Attachment) -> None:
    """Put a tuned copy in the place of every use of one frozen tensor (tied uses too)."""
    frozen = model.get_parameter(name)
    for module in model.modules():
        for key, parameter in list(module._parameters.items()):
            if parameter is frozen:
                module._parameters[key] = tensor  # type: ignore[assignment]
                attachment._undo.append(
                    lambda m=module, k=key: m._parameters.__setitem__(k, frozen)  # type: ignore[misc]
                )


_Reader = Callable[[Tensor], Tensor]
"""From the projection's input to the x that a modification reads."""
_Registered = tuple[Callable[[nn.Module], Callable[[], object]], nn.Module]


def _hook(
    family: Family,
    layer: nn.Module,
    place: str,
    modification: Modification,
    tensors: Mapping[str, Tensor],
    read_x: _Reader,
) -> _Registered:
    """How to hook one place: (function that registers and returns the removal, module)."""

    def modified(x: Tensor, h: Tensor) -> Tensor:
        source = modification.insertion.source(x, h)
        delta = modification.form.delta(tensors, source.to(next(iter(tensors.values())).dtype))
        return modification.composition.compose(tensors, h, delta.to(h.dtype))

    def on_output(module: nn.Module, args: tuple[Tensor, ...], h: Tensor) -> Tensor:
        return modified(read_x(args[0]), h)

    def on_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (modified(read_x(args[0]), args[0]), *args[1:])

    def on_norm(module: nn.Module, args: tuple[Tensor, ...], normed: Tensor) -> Any:
        # Pfeiffer: LN(t + Δ(LN(t))), the same frozen norm twice. forward() skips the hooks.
        delta = modified(normed, normed) - normed
        return module.forward(args[0] + delta)

    if place == "attn.heads":
        module = layer.get_submodule(family.attn_out)
        return (lambda m: m.register_forward_pre_hook(on_input).remove), module
    if place.startswith("residual."):
        norm = family.attn_norm if place == "residual.attn" else family.ffn_norm
        return (lambda m: m.register_forward_hook(on_norm).remove), layer.get_submodule(norm)
    path = getattr(family, _LINEAR[place])
    return (lambda m: m.register_forward_hook(on_output).remove), layer.get_submodule(path)


_LINEAR = {
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "attn.out": "attn_out",
    "ffn.hidden": "ffn_hidden",
    "ffn.out": "ffn_out",
}
_READS_ANOTHER_INPUT = {"attn.heads", "attn.out", "ffn.out"}


class _Captures:
    """Sub-layer inputs kept for the modifications further down the sub-layer that read them."""

    def __init__(self, backbone: Backbone, attachment: Attachment) -> None:
        self.backbone = backbone
        self.attachment = attachment
        self.cells: dict[tuple[int, str], dict[str, Tensor]] = {}

    def reader(self, modification: Modification, site: SiteShape) -> _Reader:
        """What gives a modification its x: the projection's own input, or the captured one."""
        reads = getattr(modification.insertion, "reads", None)
        captured = reads == "sublayer_input" and site.place in _READS_ANOTHER_INPUT
        if isinstance(modification.insertion, Sequential) or not captured:
            return lambda x: x
        assert site.layer is not None
        cell = self._cell(site.layer, PLACES[site.place].sublayer)
        return lambda _: cell["x"]

    def _cell(self, layer: int, sublayer: str) -> dict[str, Tensor]:
        if (layer, sublayer) not in self.cells:
            cell: dict[str, Tensor] = {}
            family = self.backbone.family
            path = family.query if sublayer == "attn" else family.ffn_hidden
            module = self.backbone.layer(layer).get_submodule(path)

            def capture(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                cell["x"] = args[0]

            handle = module.register_forward_pre_hook(capture)
            self.attachment._undo += [handle.remove, cell.clear]
            self.cells[layer, sublayer] = cell
        return self.cells[layer, sublayer]
