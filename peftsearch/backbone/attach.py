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

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone import body, prompt
from peftsearch.backbone.attachment import Attachment, TunedParameter
from peftsearch.backbone.attention import AttachedPrefix, attach_prefix, detach_prefix
from peftsearch.backbone.load import Backbone
from peftsearch.backbone.sites import Captures, Port
from peftsearch.backbone.sparse import ALPHA_RATE, SparseDelta
from peftsearch.design.composition import Surroundings
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix, Prompt, Sparse
from peftsearch.design.insertion import Parallel
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import SiteShape

__all__ = ["Attachment", "TunedParameter", "attach"]

Tensors = Mapping[str, Tensor]


def attach(
    backbone: Backbone, configuration: Configuration, seed: int = 0, finished: bool = False
) -> Attachment:
    """Attach every modification; the tensors' beginnings depend on `seed` and nothing else.

    `finished`: with the tensors that are stored rather than those that are trained, which differ
    for re-parametrised prefixes and sparse changes.
    Raises ConfigurationError for what the backbone cannot take.
    """
    configuration = configuration.within(backbone.shapes)
    attachment = Attachment()
    generator = Generator().manual_seed(seed)
    captures = Captures(attachment.undo)
    try:
        for index, modification in enumerate(configuration.modifications):
            one = _One(backbone, modification, index, generator, attachment, captures, finished)
            one.attach(seed)
    except BaseException:
        attachment.detach()
        raise
    return attachment


@dataclass
class _One:
    """One modification being attached."""

    backbone: Backbone
    modification: Modification
    index: int
    generator: Generator
    attachment: Attachment
    captures: Captures
    finished: bool
    shared: dict[str, Tensor] = field(default_factory=dict)
    """Tuned tensors and constants of the whole modification."""

    def attach(self, seed: int) -> None:
        form = self.modification.form
        if isinstance(form, Sparse):
            self._sparse(form, seed)
        elif PLACES[self.modification.place.names[0]].body:
            self._body()
        elif isinstance(form, Prefix) and form.mlp and not self.finished:
            self._reparametrised(form)
        else:
            self._make_shared()
            for site, d_source in self.modification.sources(self.backbone.shapes):
                tensors = self._site_tensors(site, d_source)
                self._place(site, lambda tensors=tensors: tensors)  # type: ignore[misc]

    # -- making tensors ------------------------------------------------------------------------

    @property
    def _dtype(self) -> torch.dtype:
        """Tuned tensors are fp32 beside a backbone in half precision."""
        return torch.float64 if self.backbone.dtype == torch.float64 else torch.float32

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self._dtype)

    def _tuned(
        self, name: str, value: Tensor, of_composition: bool = False, rate: float = 1.0
    ) -> nn.Parameter:
        """A parameter of the attachment, under a name unique in the configuration."""
        parameter = nn.Parameter(value.to(self.backbone.device))
        form = self.modification.form
        decays = form.decays and not of_composition and parameter.ndim > 1
        fast = name.rsplit("/", 1)[-1] in form.fast
        self.attachment.tuned.append(
            TunedParameter(f"{self.index}/{name}", parameter, form.name, decays, fast, rate)
        )
        return parameter

    def _make_shared(self) -> None:
        form, widest = self.modification.form, self.modification.widest
        sources = self.modification.sources(self.backbone.shapes)
        constant = Generator().manual_seed(0)  # the same in every trial, process and export
        for name, shape in form.constants(sources, widest).items():
            value = self._empty(shape)
            form.initialise(name, value, constant)
            self.shared[name] = value.to(self.backbone.device)
        for name, shape in form.shared(sources, widest).items():
            value = self._empty(shape)
            form.initialise(name, value, self.generator)
            self.shared[name] = self._tuned(f"shared/{name}", value)

    def _site_tensors(self, site: SiteShape, d_source: int) -> dict[str, Tensor]:
        """A site's tuned tensors, its composition's and the shared ones, by name."""
        form = self.modification.form
        width = self.modification.width_at(site, self.backbone.shapes)
        pretrained = self._pretrained(site)
        own = {n: self._empty(s) for n, s in form.tensors(site, d_source, width).items()}
        with torch.no_grad():
            constants = form.begin(own, self.generator, pretrained)
        tensors: dict[str, Tensor] = {
            name: self._tuned(f"{site.key}/{name}", value) for name, value in own.items()
        }
        tensors |= {n: value.to(self.backbone.device) for n, value in constants.items()}
        tensors |= self._gate_tensors(site, d_source)
        return tensors | self.shared

    def _gate_tensors(self, site: SiteShape, d_source: int) -> dict[str, Tensor]:
        composition, pretrained = self.modification.composition, self._pretrained(site)
        tensors: dict[str, Tensor] = {}
        for name, shape in composition.tensors(site, d_source).items():
            value = self._empty(shape)
            composition.begin(name, value, pretrained)
            tensors[name] = self._tuned(f"{site.key}/{name}", value, of_composition=True)
        return tensors

    def _pretrained(self, site: SiteShape) -> Callable[[], Tensor]:
        """The frozen weight (d_source, d_h) at a site, on the CPU."""

        def weight() -> Tensor:
            if site.place == "embedding":
                found: Tensor = self.backbone.model.get_input_embeddings().weight
            else:
                linear = Port.of(self.backbone, site).linear
                assert linear is not None
                found = linear.weight()
            return found.detach().to("cpu", self._dtype)

        return weight

    # -- putting them in place -----------------------------------------------------------------

    def _place(self, site: SiteShape, tensors: Callable[[], Tensors]) -> None:
        if isinstance(self.modification.form, Prompt):
            self.attachment.undo.append(prompt.attach_prompt(self.backbone, tensors()["prompt"]))
            return
        port = Port.of(self.backbone, site)
        if isinstance(self.modification.form, Prefix):
            self._prefix(port, self.modification.form, tensors)
            return
        modified, renorms = self._modified(port, tensors), self.modification.form.renorms
        self.attachment.undo.append(port.hook(modified, self._reader(port), renorms))

    def _prefix(self, port: Port, form: Prefix, tensors: Callable[[], Tensors]) -> None:
        module = port.attention
        read = self.captures.sublayer_input(port)
        attach_prefix(module, AttachedPrefix(form, self.modification.composition, tensors, read))
        self.attachment.undo.append(lambda: detach_prefix(module))

    def _modified(
        self, port: Port, tensors: Callable[[], Tensors]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """The framework itself, at one site."""
        insertion, composition = self.modification.insertion, self.modification.composition
        form, dtype = self.modification.form, self._dtype
        width = self.modification.width_at(port.site, self.backbone.shapes)
        linear = port.linear
        weight, bias = (linear.weight, linear.bias()) if linear else (None, None)

        def modified(x: Tensor, h: Tensor) -> Tensor:
            held = tensors()
            source = insertion.source(x, h).to(dtype)
            delta = form.delta(held, source).to(h.dtype)
            around = Surroundings(source, width, held, weight, bias)
            return composition.compose(held, h, delta, around)

        return modified

    def _reader(self, port: Port) -> Callable[[Tensor], Tensor]:
        """What gives the modification its x: the module's own input, or a captured one."""
        insertion = self.modification.insertion
        if not isinstance(insertion, Parallel):
            return lambda x: x
        if insertion.reads == "residual_stream":
            stream = self.captures.residual_stream(port)
            return lambda _: stream()
        elsewhere = port.site.place in ("attn.heads", "attn.out", "ffn.out")
        if insertion.reads == "sublayer_input" and elsewhere:
            captured = self.captures.sublayer_input(port)
            return lambda _: captured()
        return lambda x: x

    # -- what is trained is not what is stored ---------------------------------------------------

    def _reparametrised(self, form: Prefix) -> None:
        """Keys and values of every site come out of one MLP."""
        sources = self.modification.sources(self.backbone.shapes)
        trained: dict[str, Tensor] = {}
        for name, shape in (form.trained(sources, self.modification.widest) or {}).items():
            value = self._empty(shape)
            form.initialise(name, value, self.generator)
            trained[name] = self._tuned(f"mlp/{name}", value)
            self.attachment.not_stored.add(f"{self.index}/mlp/{name}")
        first = 0
        for site, d_source in sources:
            width = self.modification.width_at(site, self.backbone.shapes)
            shape = form.tensors(site, d_source, width)["keys"]
            gates = self._gate_tensors(site, d_source)

            def expanded(first: int = first, shape: tuple[int, ...] = shape) -> dict[str, Tensor]:
                return form.expand(trained, first, shape)

            def tensors(
                expanded: Callable[[], Tensors] = expanded, gates: Tensors = gates
            ) -> Tensors:
                return {**expanded(), **gates}

            self.attachment.computed.append((f"{self.index}/{site.key}", expanded))
            self._place(site, tensors)
            first += 2 * site.kv_heads * site.head_dim

    def _body(self) -> None:
        """Copies of tensors of the body: swapped in as they are, or cast and joined."""
        model = self.backbone.model
        trained: list[Tensor] = []
        computes: list[Callable[[], Tensor]] = []
        puts = []
        (key,) = self.modification.form.tensors(SiteShape("", "", None, tensor=(1,)), 0, 0)
        for site, _ in self.modification.sources(self.backbone.shapes):
            frozen = model.get_parameter(site.key)
            live = self.backbone.live(site)
            value = frozen.detach().to(self._dtype)
            value = value.clone() if live is None else value.flatten()[live]
            parameter = self._tuned(f"{site.key}/{key}", value)
            put, undo = body.replace_tensor(model, frozen)
            self.attachment.undo.append(undo)
            if live is None and frozen.dtype == self._dtype:
                put(parameter)
                continue
            trained.append(parameter)
            puts.append(put)
            computes.append(_cast(frozen, parameter, live))
        if puts:
            self._stand(body.Stand(trained, lambda: [c() for c in computes], puts))

    def _sparse(self, form: Sparse, seed: int) -> None:
        """One vector of changes over the whole body."""
        model = self.backbone.model
        sources = self.modification.sources(self.backbone.shapes)
        frozen = [model.get_parameter(site.key) for site, _ in sources]
        entries = sum(p.numel() for p in frozen)
        puts = []
        for tensor in frozen:
            put, undo = body.replace_tensor(model, tensor)
            puts.append(put)
            self.attachment.undo.append(undo)
        like = torch.empty(0, dtype=self._dtype, device=self.backbone.device)
        k = min(self.modification.widest, entries)
        if self.finished:
            values = self._tuned("shared/values", self._empty((k,)).zero_())
            indices = torch.arange(k, device=self.backbone.device)
            self.attachment.indices[f"{self.index}/shared/indices"] = indices
            trained: list[Tensor] = [values, indices]

            def delta() -> Tensor:
                return like.new_zeros(entries).index_put((indices,), values)
        else:
            sparse = SparseDelta(entries, k, form.l0, like, seed)
            trained = self._train_sparse(sparse)

            def delta() -> Tensor:
                if torch.is_grad_enabled():
                    return sparse.sampled()
                at, kept = sparse.kept()
                return like.new_zeros(entries).index_put((at,), kept)

        def compute() -> list[Tensor]:
            parts = delta().split([p.numel() for p in frozen])
            return [
                p.detach() + part.view_as(p).to(p.dtype)
                for p, part in zip(frozen, parts, strict=True)
            ]

        self._stand(body.Stand(trained, compute, puts))

    def _train_sparse(self, sparse: SparseDelta) -> list[Tensor]:
        self.attachment.sparse.append(sparse)
        trained: list[Tensor] = []
        for name, rate in (("w", 1.0), ("log_alpha", ALPHA_RATE)):
            parameter = self._tuned(f"sparse/{name}", getattr(sparse, name).detach(), rate=rate)
            setattr(sparse, name, parameter)
            trained.append(parameter)
            self.attachment.not_stored.add(f"{self.index}/sparse/{name}")

        def kept() -> dict[str, Tensor]:
            indices, values = sparse.kept()
            return {"values": values, "indices": indices}

        self.attachment.computed.append((f"{self.index}/shared", kept))
        return trained

    def _stand(self, stand: body.Stand) -> None:
        """Computed tensors are refreshed before the model runs, or a part of it on its own."""
        model = self.backbone.model
        parts = [model.get_submodule(s.module) for s in self.backbone.family.stacks if s.module]
        self.attachment.undo += stand.hook(model, parts)
        with torch.no_grad():
            stand.refresh()


def _cast(frozen: Tensor, tuned: Tensor, live: Tensor | None) -> Callable[[], Tensor]:
    """The tensor that stands in a frozen one's place: cast, and joined with what is not tuned."""

    def whole() -> Tensor:
        return tuned.to(frozen.dtype)

    def joined() -> Tensor:
        assert live is not None
        flat = frozen.detach().flatten()
        return flat.index_copy(0, live, tuned.to(frozen.dtype)).view_as(frozen)

    return whole if live is None else joined
