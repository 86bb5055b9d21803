"""Attaching a configuration to the shared frozen backbone.

    source = insertion(x, h)
    delta  = form(source)
    h      = composition(h, delta)

A modification lives in hooks (or, for tensors of the body, in copies put in their place), so the
backbone's own tensors are never written. Exactly the tensors made here require a gradient: nothing
is unfrozen by name.
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
from peftsearch.backbone.attach.site_hooks import OwnInput, Read
from peftsearch.backbone.attach.site_modification import SiteModification, Tensors
from peftsearch.backbone.attach.sites import Captures, SiteModules, residual_sums
from peftsearch.backbone.attach.sparse import attach_sparse
from peftsearch.backbone.backbone import Backbone
from peftsearch.design.composition import Dora
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import FORMS, Prefix, Prompt, Rescale, Sparse
from peftsearch.design.insertion import Parallel
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import SiteShape

__all__ = ["Attachment", "TunedParameter", "attach"]

_Pending = tuple[tuple[int, ...], Callable[[], None]]
"""(sort key from `_order`, function that installs a hook)."""


def attach(
    backbone: Backbone,
    configuration: Configuration,
    seed: int = 0,
    finished: bool = False,
    fused: bool = True,
    held: Mapping[str, nn.Parameter] | None = None,
) -> Attachment:
    """Attach every modification; initial values depend on `seed` and the configuration alone.

    `finished`: make the tensors that are stored rather than those that are trained, which differ
    for re-parametrised prefixes and sparse changes. `fused`: let a form scale and add its Δh in as
    few passes as it can. `held`: name → parameter of an earlier attachment of the same
    configuration, used again as it is.
    Raises ConfigurationError for what the backbone cannot take; the backbone is then unchanged.

    >>> import torch
    >>> from transformers import BertConfig, BertModel
    >>> from peftsearch.backbone.attach.attach import attach
    >>> from peftsearch.backbone.backbone import wrap
    >>> from peftsearch.design.methods import METHODS
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    ...     intermediate_size=16, vocab_size=20)
    >>> backbone = wrap(BertModel(config))
    >>> with attach(backbone, METHODS["lora"].configuration()) as attachment:
    ...     {name: tuple(tensor.shape) for name, tensor in list(attachment.tensors.items())[:2]}
    {'0/layers.0.attn.query/down': (8, 8), '0/layers.0.attn.query/up': (8, 8)}
    """
    configuration = configuration.within(backbone.shapes)
    attachment = Attachment(configuration)
    generator = Generator().manual_seed(seed)  # of the CPU: the same numbers for every device
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
    """Make the tensors of every site, and queue a hook for each."""
    shared = attacher.builder.shared_tensors()
    for site, d_source in attacher.builder.modification.sources(attacher.builder.backbone.shapes):
        tensors = attacher.builder.site_tensors(site, d_source) | shared
        attacher.put(site, lambda tensors=tensors: tensors)  # type: ignore[misc]


def _attach_reparametrised(attacher: _SiteAttacher, form: Prefix) -> None:
    """Make one embedding and MLP, which compute the keys and values of every site (Li and Liang
    2021, section 4.3).
    """
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
    """The sort key of a modification at a site: where several meet, the design gives their order.

    By place; then DoRA, which rescales W itself; what reads x; what reads h and is normed with it;
    what reads h after the norm; last a rescaling of the whole. No number decides it, so that two
    configurations that differ in a width or a scale alone are the same function of their tensors.
    """
    form = modification.form
    if isinstance(modification.insertion, Parallel):
        stage = 0 if isinstance(modification.composition, Dora) else 1
    else:
        stage = 4 if isinstance(form, Rescale) else 2 if form.renorms else 3
    return list(PLACES).index(site.place), stage, list(FORMS).index(form.name)


@dataclass(frozen=True)
class _Expanded:
    """Computes one site's keys and values [kv_heads, l, head_dim] from the trained MLP."""

    form: Prefix
    trained: Mapping[str, Tensor]
    first: int
    """The site's first column in the MLP's output."""
    shape: tuple[int, ...]

    def __call__(self) -> dict[str, Tensor]:
        return self.form.expand(self.trained, self.first, self.shape)


@dataclass(frozen=True)
class _SiteAttacher:
    """Installs one modification's hooks, once the tensors of all modifications are made."""

    builder: TensorBuilder
    captures: Captures
    pending: list[_Pending]

    def put(self, site: SiteShape, tensors: Tensors) -> None:
        """Queue the hook of one site.

        Hooks are installed in `_order`; tensors are made in the configuration's own order, since
        that order decides the random numbers.
        """
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
        modification = self.builder.modification
        composition = modification.composition
        width = modification.width_at(modules.site, self.builder.backbone.shapes)
        read = self.captures.sublayer_input(modules) if composition.reads_source else None
        prefix = AttachedPrefix(form, composition, tensors, read, width)
        self.builder.attachment.undo.append(modules.hooks.prefix(modules.attention, prefix))

    def _modified(self, modules: SiteModules, tensors: Tensors) -> SiteModification:
        modification = self.builder.modification
        width = modification.width_at(modules.site, self.builder.backbone.shapes)
        return SiteModification(
            modification,
            tensors,
            width,
            self.builder.dtype,
            modules.linear,
            self.builder.fused,
        )

    def _reader(self, modules: SiteModules) -> Read:
        """A way from the hooked module's input to x, both [batch, tokens, d_source]: the input
        itself, or one captured earlier in the forward.
        """
        insertion = self.builder.modification.insertion
        if not isinstance(insertion, Parallel):
            return OwnInput()
        if insertion.reads == "residual_stream":
            return self.captures.residual_stream(modules)
        # At these places the hooked module's input is not the sub-layer's: W_o reads the heads, the
        # ffn's last layer its hidden state.
        elsewhere = modules.site.place in ("attn.heads", "attn.out", "ffn.out")
        if insertion.reads == "sublayer_input" and elsewhere:
            return self.captures.sublayer_input(modules)
        return OwnInput()
