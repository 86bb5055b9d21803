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
from peftsearch.backbone.attach.build import TensorBuilder
from peftsearch.backbone.attach.prompt import attach_prompt
from peftsearch.backbone.attach.site_modification import SiteModification, Tensors
from peftsearch.backbone.attach.sites import Captures, SiteModules, own_input, residual_sums
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

_Pending = tuple[tuple[int, ...], Callable[[], None]]
"""Its turn (see `_order`), and what puts a hook in its place."""


def attach(
    backbone: Backbone,
    configuration: Configuration,
    seed: int = 0,
    finished: bool = False,
    fused: bool = True,
    held: Mapping[str, nn.Parameter] | None = None,
) -> Attachment:
    """Attach every modification; the tensors' beginnings depend on `seed` and nothing else.

    `finished`: with the tensors that are stored rather than those that are trained, which differ
    for re-parametrised prefixes and sparse changes. `fused`: Δh is computed, scaled and added
    in as few passes as its form can. `held`: parameters of an earlier attachment of the same
    configuration, which are attached again as they are.
    Raises ConfigurationError for what the backbone cannot take.
    """
    configuration = configuration.within(backbone.shapes)
    attachment = Attachment()
    generator = Generator().manual_seed(seed)
    captures = Captures(backbone.hooks, attachment.undo, attachment.captured)
    pending: list[_Pending] = []
    try:
        for index, modification in enumerate(configuration.modifications):
            builder = TensorBuilder(
                *(backbone, modification, index, generator, attachment, fused), held=held or {}
            )
            form = modification.form
            if isinstance(form, Sparse):
                attach_sparse(builder, form, seed, finished)
            elif PLACES[modification.place.names[0]].body:
                attach_copies(builder)
            elif isinstance(form, Prefix) and form.mlp and not finished:
                _attach_reparametrised(_SiteAttacher(builder, captures, pending), form)
            else:
                _attach_sites(_SiteAttacher(builder, captures, pending))
        for _, put in sorted(pending, key=lambda one: one[0]):
            put()
    except BaseException:
        attachment.detach()
        raise
    finally:
        pending.clear()  # else a cycle holds the trial's tensors until the garbage collector comes
    return attachment


def _attach_sites(attacher: _SiteAttacher) -> None:
    """Tensors for every site, and a hook in every site."""
    shared = attacher.builder.shared_tensors()
    for site, d_source in attacher.builder.modification.sources(attacher.builder.backbone.shapes):
        tensors = attacher.builder.site_tensors(site, d_source) | shared
        attacher.put(site, lambda tensors=tensors: tensors)  # type: ignore[misc]


def _attach_reparametrised(attacher: _SiteAttacher, form: Prefix) -> None:
    """Keys and values of every site come out of one MLP, which is trained in their place."""
    builder, modification = attacher.builder, attacher.builder.modification
    shapes, attachment = builder.backbone.shapes, builder.attachment
    sources = modification.sources(shapes)
    trained: dict[str, Tensor] = {}
    for name, shape in (form.trained(sources, modification.widest) or {}).items():
        value = builder.empty(shape)
        form.initialise(name, value, builder.generator)
        trained[name] = builder.parameter(f"mlp/{name}", value)
        attachment.not_stored.add(f"{builder.index}/mlp/{name}")
    first = 0
    for site, d_source in sources:
        shape = form.tensors(site, d_source, modification.width_at(site, shapes))["keys"]
        expanded = _Expanded(form, trained, first, shape)
        gates = builder.composition_tensors(site, d_source)
        attachment.computed.append((f"{builder.index}/{site.key}", expanded))
        attacher.put(site, lambda expanded=expanded, gates=gates: {**expanded(), **gates})  # type: ignore[misc]
        first += 2 * site.kv_heads * site.head_dim


def _order(modification: Modification, site: SiteShape) -> tuple[int, ...]:
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
class _SiteAttacher:
    """Where one modification's tensors take effect."""

    builder: TensorBuilder
    captures: Captures
    pending: list[_Pending]

    def put(self, site: SiteShape, tensors: Tensors) -> None:
        """Have them take effect at one site, once all tensors are made."""
        order = _order(self.builder.modification, site)
        self.pending.append((order, lambda: self._put(site, tensors)))

    def _put(self, site: SiteShape, tensors: Tensors) -> None:
        form, undo = self.builder.modification.form, self.builder.attachment.undo
        if isinstance(form, Prompt):
            undo.append(attach_prompt(self.builder.backbone, tensors()["prompt"]))
            return
        modules = SiteModules.of(self.builder.backbone, site)
        if isinstance(form, Prefix):
            self._prefix(modules, form, tensors)
            return
        if form.renorms and site.place.startswith("residual."):
            self.builder.attachment.captured.append(residual_sums(modules.norm))
        undo.append(
            modules.hook(self._modified(modules, tensors), self._reader(modules), form.renorms)
        )

    def _prefix(self, modules: SiteModules, form: Prefix, tensors: Tensors) -> None:
        composition = self.builder.modification.composition
        read = self.captures.sublayer_input(modules) if composition.reads_source else None
        prefix = AttachedPrefix(form, composition, tensors, read)
        self.builder.attachment.undo.append(modules.hooks.prefix(modules.attention, prefix))

    def _modified(self, modules: SiteModules, tensors: Tensors) -> SiteModification:
        modification = self.builder.modification
        width = modification.width_at(modules.site, self.builder.backbone.shapes)
        factor = modification.composition.factor(width) if self.builder.fused else None
        return SiteModification(
            modification, tensors, width, self.builder.dtype, modules.linear, factor
        )

    def _reader(self, modules: SiteModules) -> Callable[[Tensor], Tensor]:
        """What gives the modification its x: the module's own input, or a captured one."""
        insertion = self.builder.modification.insertion
        if not isinstance(insertion, Parallel):
            return own_input
        if insertion.reads == "residual_stream":
            stream = self.captures.residual_stream(modules)
            return lambda _: stream()
        elsewhere = modules.site.place in ("attn.heads", "attn.out", "ffn.out")
        if insertion.reads == "sublayer_input" and elsewhere:
            captured = self.captures.sublayer_input(modules)
            return lambda _: captured()
        return own_input
