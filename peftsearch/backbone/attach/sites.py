"""Sites: the modules where a representation h is read and changed, and the hooks that do it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.hooks import Captured, Hooks, Undo
from peftsearch.backbone.attach.site_hooks import InputHook, OutputHook, Read, StreamHook
from peftsearch.backbone.attach.site_modification import SiteModification
from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.family import AttentionPaths, FfnPaths, Part, Stack
from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.measure import head_dim_of
from peftsearch.design.shapes import SiteShape

__all__ = ["Captures", "SiteModules", "residual_sums"]

_PROJECTIONS = {
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "ffn.hidden": "hidden",
    "ffn.gate": "gate",
}


@dataclass(frozen=True)
class SiteModules:
    """The modules around one site, found by the paths of its family's row."""

    site: SiteShape
    layer: nn.Module
    stack: Stack
    pre_norm: bool
    head_dim: int
    hooks: Hooks

    @classmethod
    def of(cls, backbone: Backbone, site: SiteShape) -> SiteModules:
        """The modules of a site in a layer."""
        assert site.layer is not None
        stack, layer = backbone.stack_and_layer(site.layer)
        head_dim = head_dim_of(layer, stack.attention, backbone.model.config)
        pre_norm = backbone.family.pre_norm
        return cls(site, layer, stack, pre_norm, head_dim, backbone.hooks)

    @property
    def paths(self) -> AttentionPaths | FfnPaths:
        """The paths of its sub-layer: attention, cross-attention or ffn."""
        if self.site.kind in ("enc", "dec"):
            return self.stack.ffn
        if self.site.kind == "cross":
            assert self.stack.cross is not None
            return self.stack.cross
        return self.stack.attention

    def module(self, path: str) -> nn.Module:
        """A module of the layer by its path."""
        return self.layer.get_submodule(path)

    @property
    def attention(self) -> nn.Module:
        """The module that calls transformers' attention interface, by which prefixes are found."""
        assert isinstance(self.paths, AttentionPaths)
        return self.module(self.paths.module)

    def selected(self, x: Tensor, texts: slice | None = None) -> Tensor:
        """x [batch, tokens, d], read earlier in the forward, cut to the tokens that h has by now;
        of `texts`, or of this configuration's.

        In the last layer that may be one token a text: [batch, 1, d] (`savings/last_tokens.py`).
        """
        own = self.stack.attention
        if not isinstance(self.paths, AttentionPaths) and self.paths.norm != own.norm:
            return x  # the ffn's own norm reads it, after the selection
        module = self.module(own.module if isinstance(self.paths, FfnPaths) else self.paths.module)
        return attention.selected(module, x, self.hooks.texts if texts is None else texts)

    @property
    def linear(self) -> LinearView | None:
        """The linear layer that computes h; None at heads, activations and the residual stream."""
        if self.site.place in _PROJECTIONS:
            part = getattr(self.paths, _PROJECTIONS[self.site.place])
            return LinearView.at(self.layer, part, self.head_dim)
        if self.site.place in ("attn.out", "ffn.out"):
            return LinearView.at(self.layer, Part(self.paths.out))
        return None

    @property
    def entrance(self) -> nn.Module:
        """The module whose input is the sub-layer's input."""
        paths = self.paths
        if not isinstance(paths, AttentionPaths):
            return self.module(paths.hidden.path)
        # Self-attention: the value projection, since DeBERTa-v3 passes relative positions, too,
        # through its query and key projections. Cross-attention: the query projection, since keys
        # and values are computed from the encoder's states.
        part = paths.query if self.site.kind == "cross" else paths.value
        return self.module(part.path)

    @property
    def norm(self) -> nn.Module:
        """The sub-layer's norm: after its sum in post-norm families, before it in pre-norm ones."""
        return self.module(self.paths.norm)

    # -- hooks ---------------------------------------------------------------------------------

    def hook(self, modified: SiteModification, read: Read, renorms: bool) -> Undo:
        """Install `modified` at h; `read` turns the hooked module's input into x.

        `renorms`: at a residual place of a post-norm model, norm the changed sum once more.
        """
        place = self.site.place
        if place in ("attn.heads", "ffn.activated"):
            # Before the layer that reads h: its input is the concatenated heads, or the activated
            # hidden state, in every family, while few have a module that puts those out.
            return self.hooks.before(self.module(self.paths.out), InputHook(modified, read))
        if place.startswith("residual."):
            return self._on_sum(modified, renorms)
        linear = self.linear
        assert linear is not None
        return self.hooks.after(linear.module, OutputHook(linear, modified, read))

    def _on_sum(self, modified: SiteModification, renorms: bool) -> Undo:
        """Install it on the residual stream, after the sub-layer has been added to it."""
        if not self.pre_norm and renorms:
            return self._renormed(modified)
        if self.pre_norm and self.site.place != "residual.ffn":
            return self._before_the_sum(modified)
        return self.hooks.after(self.layer if self.pre_norm else self.norm, StreamHook(modified))

    def _renormed(self, modified: SiteModification) -> Undo:
        """LN(t + Δ(LN(t))), t [batch, tokens, hidden] the sum before the norm, and the same frozen
        norm twice (Pfeiffer et al. 2021, arXiv 2005.00247).
        """

        def on_norm(module: nn.Module, args: tuple[Any, ...], normed: Tensor) -> Any:
            cell = residual_sums(module)
            # A second modification goes on from the first one's sum, not from the layer's.
            t: Tensor = cell["t"] if cell.get("normed") is normed else args[0]
            cell["t"] = t + (modified(normed, normed) - normed)
            cell["normed"] = module.forward(cell["t"])  # forward(), not a call: without the hooks
            return cell["normed"]

        take_off = self.hooks.after(self.norm, on_norm)

        def undo() -> None:
            take_off()
            residual_sums(self.norm).clear()

        return undo

    def _before_the_sum(self, modified: SiteModification) -> Undo:
        """For pre-norm models, t = x + A with A what attention adds: A becomes A + Δ(t).

        No module puts t out: the layer's own code adds A to x, both [batch, tokens, hidden].
        """
        assert isinstance(self.paths, AttentionPaths)
        stream: dict[str, Tensor] = {}

        def on_stream(module: nn.Module, args: tuple[Any, ...]) -> None:
            stream["x"] = args[0]

        def on_added(module: nn.Module, args: tuple[Any, ...], added: Tensor) -> Tensor:
            t = self.selected(stream.pop("x")) + added
            return added + (modified(t, t) - t)

        last = self.module(self.paths.added or self.paths.out)
        take_off = (
            self.hooks.before(self.norm, on_stream),
            self.hooks.after(last, on_added),
        )

        def undo() -> None:
            for one in take_off:
                one()
            stream.clear()

        return undo


_SUMS: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()


def residual_sums(norm: nn.Module) -> dict[str, Tensor]:
    """The sum `t` and the `normed` output that modifications at a norm left in this forward, both
    [batch, tokens, hidden].
    """
    return _SUMS.setdefault(norm, {})


@dataclass(frozen=True, eq=False)
class _Earlier:
    """x [batch, tokens, d_source] where it is the input of a module earlier in the forward."""

    modules: SiteModules
    captured: Captured

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return self.modules.selected(self.captured.own())

    def of_all(self, x: Tensor) -> Tensor:
        return self.modules.selected(self.captured.whole(), slice(None))

    @property
    def key(self) -> Hashable:
        return self.captured.key


class Captures:
    """Inputs captured at a sub-layer's start for modifications that read them later in it."""

    def __init__(
        self, hooks: Hooks, undo: list[Undo], captured: list[Captured | dict[str, Tensor]]
    ) -> None:
        """`undo` and `captured` are the attachment's lists, which captures are entered in."""
        self._hooks, self._undo, self._captured = hooks, undo, captured
        self._inputs: dict[nn.Module, Captured] = {}

    def sublayer_input(self, modules: SiteModules) -> _Earlier:
        """Reads the sub-layer's input, [batch, tokens, d_sublayer]."""
        return self._of(modules, modules.entrance)

    def residual_stream(self, modules: SiteModules) -> _Earlier:
        """Reads the input of the sub-layer's norm, [batch, tokens, hidden]."""
        return self._of(modules, modules.norm)

    def _of(self, modules: SiteModules, module: nn.Module) -> _Earlier:
        if module not in self._inputs:
            captured, stop = self._hooks.capture(module)
            self._undo += [stop, captured.clear]
            self._inputs[module] = captured
            self._captured.append(captured)
        return _Earlier(modules, self._inputs[module])
