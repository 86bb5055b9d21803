"""Attaching a configuration to the shared frozen backbone, and detaching it without a trace.

    source = insertion(x, h)
    delta  = form(source)
    h      = composition(h, delta)

A modification lives in hooks (or, for tensors of the body, in copies put in their place), so the
backbone's own tensors are never written. Exactly the tensors made here require a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from peftsearch.backbone.attach.attachment import Attachment, TunedParameter
from peftsearch.backbone.attach.attention import AttachedPrefix
from peftsearch.backbone.attach.body import attach_copies
from peftsearch.backbone.attach.build import Making
from peftsearch.backbone.attach.modified import Modified, Tensors
from peftsearch.backbone.attach.prompt import attach_prompt
from peftsearch.backbone.attach.sites import Captures, Port, own_input, sums_at
from peftsearch.backbone.attach.sparse import attach_sparse
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.composition import Dora
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import FORMS, Prefix, Prompt, Rescale, Sparse
from peftsearch.design.insertion import Parallel
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import SiteShape

__all__ = ["Attachment", "TunedParameter", "attach"]

_Waiting = tuple[tuple[int, ...], Callable[[], None]]
"""Its turn (see `_turn`), and what puts a hook in its place."""


def attach(
    backbone: Backbone,
    configuration: Configuration,
    seed: int = 0,
    finished: bool = False,
    in_one: bool = True,
    held: Mapping[str, nn.Parameter] | None = None,
) -> Attachment:
    """Attach every modification; the tensors' beginnings depend on `seed` and nothing else.

    `finished`: with the tensors that are stored rather than those that are trained, which differ
    for re-parametrised prefixes and sparse changes. `in_one`: Δh is computed, scaled and added
    in as few passes as its form can. `held`: parameters of an earlier attachment of the same
    configuration, which are attached again as they are.
    Raises ConfigurationError for what the backbone cannot take.
    """
    configuration = configuration.within(backbone.shapes)
    attachment = Attachment(configuration)
    generator = Generator().manual_seed(seed)
    captures = Captures(backbone.hooks, attachment.undo, attachment.captured)
    waiting: list[_Waiting] = []
    try:
        for index, modification in enumerate(configuration.modifications):
            making = Making(
                *(backbone, modification, index, generator, attachment, in_one), held=held or {}
            )
            form = modification.form
            if isinstance(form, Sparse):
                attach_sparse(making, form, seed, finished)
            elif PLACES[modification.place.names[0]].body:
                attach_copies(making)
            elif isinstance(form, Prefix) and form.mlp and not finished:
                _attach_reparametrised(_AtSites(making, captures, waiting), form)
            else:
                _attach_sites(_AtSites(making, captures, waiting))
        for _, put in sorted(waiting, key=lambda one: one[0]):
            put()
    except BaseException:
        attachment.detach()
        raise
    finally:
        waiting.clear()  # else a cycle holds the trial's tensors until the garbage collector comes
    return attachment


def _attach_sites(at: _AtSites) -> None:
    """Tensors for every site, and a hook in every site."""
    shared = at.making.shared()
    for site, d_source in at.making.modification.sources(at.making.backbone.shapes):
        tensors = at.making.of_site(site, d_source) | shared
        at.put(site, lambda tensors=tensors: tensors)  # type: ignore[misc]


def _attach_reparametrised(at: _AtSites, form: Prefix) -> None:
    """Keys and values of every site come out of one MLP, which is trained in their place."""
    making, modification = at.making, at.making.modification
    shapes, attachment = making.backbone.shapes, making.attachment
    sources = modification.sources(shapes)
    trained: dict[str, Tensor] = {}
    for name, shape in (form.trained(sources, modification.widest) or {}).items():
        value = making.empty(shape)
        form.initialise(name, value, making.generator)
        trained[name] = making.tuned(f"mlp/{name}", value)
        attachment.not_stored.add(f"{making.index}/mlp/{name}")
    first = 0
    for site, d_source in sources:
        shape = form.tensors(site, d_source, modification.width_at(site, shapes))["keys"]
        expanded = _Expanded(form, trained, first, shape)
        gates = making.of_composition(site, d_source)
        attachment.computed.append((f"{making.index}/{site.key}", expanded))
        at.put(site, lambda expanded=expanded, gates=gates: {**expanded(), **gates})  # type: ignore[misc]
        first += 2 * site.kv_heads * site.head_dim


def _turn(modification: Modification, site: SiteShape) -> tuple[int, ...]:
    """Where several meet, the order of the design: by place; DoRA, which is W's own; what reads x;
    what reads h and is normed with it, or not; and a rescaling of the whole. Nothing that is merely
    a number decides what function a configuration is.
    """
    form = modification.form
    if isinstance(modification.insertion, Parallel):
        stage = 0 if isinstance(modification.composition, Dora) else 1
    else:
        stage = 4 if isinstance(form, Rescale) else 2 if form.renorms else 3
    return list(PLACES).index(site.place), stage, list(FORMS).index(form.name)


@dataclass(frozen=True)
class _Expanded:
    """One site's keys and values out of the MLP."""

    form: Prefix
    trained: Mapping[str, Tensor]
    first: int
    shape: tuple[int, ...]

    def __call__(self) -> dict[str, Tensor]:
        return self.form.expand(self.trained, self.first, self.shape)


@dataclass(frozen=True)
class _AtSites:
    """Where one modification's tensors take effect."""

    making: Making
    captures: Captures
    waiting: list[_Waiting]

    def put(self, site: SiteShape, tensors: Tensors) -> None:
        """Have them take effect at one site, once all tensors are made."""
        turn = _turn(self.making.modification, site)
        self.waiting.append((turn, lambda: self._put(site, tensors)))

    def _put(self, site: SiteShape, tensors: Tensors) -> None:
        form, undo = self.making.modification.form, self.making.attachment.undo
        if isinstance(form, Prompt):
            undo.append(attach_prompt(self.making.backbone, tensors()["prompt"]))
            return
        port = Port.of(self.making.backbone, site)
        if isinstance(form, Prefix):
            self._prefix(port, form, tensors)
            return
        if form.renorms and site.place.startswith("residual."):
            self.making.attachment.captured.append(sums_at(port.norm))
        undo.append(port.hook(self._modified(port, tensors), self._reader(port), form.renorms))

    def _prefix(self, port: Port, form: Prefix, tensors: Tensors) -> None:
        composition = self.making.modification.composition
        read = self.captures.sublayer_input(port) if composition.reads else None
        prefix = AttachedPrefix(form, composition, tensors, read)
        self.making.attachment.undo.append(port.hooks.prefix(port.attention, prefix))

    def _modified(self, port: Port, tensors: Tensors) -> Modified:
        modification = self.making.modification
        width = modification.width_at(port.site, self.making.backbone.shapes)
        factor = modification.composition.factor(width) if self.making.in_one else None
        return Modified(modification, tensors, width, self.making.dtype, port.linear, factor)

    def _reader(self, port: Port) -> Callable[[Tensor], Tensor]:
        """What gives the modification its x: the module's own input, or a captured one."""
        insertion = self.making.modification.insertion
        if not isinstance(insertion, Parallel):
            return own_input
        if insertion.reads == "residual_stream":
            stream = self.captures.residual_stream(port)
            return lambda _: stream()
        elsewhere = port.site.place in ("attn.heads", "attn.out", "ffn.out")
        if insertion.reads == "sublayer_input" and elsewhere:
            captured = self.captures.sublayer_input(port)
            return lambda _: captured()
        return own_input
