"""From a site's name to the module where its h can be read and changed, through hooks alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.hooks import Hooks, Undo
from peftsearch.backbone.attach.site_modification import SiteModification
from peftsearch.backbone.families import AttentionPaths, FfnPaths, Part, Stack
from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.measure import head_dim_of
from peftsearch.design.shapes import SiteShape

__all__ = ["Captures", "InputHook", "OutputHook", "SiteModules", "own_input", "residual_sums"]

Read = Callable[[Tensor], Tensor]
"""The input of the module whose h it is → x."""

_PROJECTIONS = {
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "ffn.hidden": "hidden",
    "ffn.gate": "gate",
}


def own_input(x: Tensor) -> Tensor:
    """x is the module's own input."""
    return x


@dataclass(frozen=True, eq=False)
class OutputHook:
    """A hook after the linear layer that computes h."""

    linear: LinearView
    modified: SiteModification
    read: Read

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        h = self.linear.read(output)
        return self.linear.written(output, self.modified(self.read(args[0]), h))

    @property
    def kind(self) -> Hashable | None:
        """Equal for hooks that can be computed together; None for one that cannot."""
        alike = self.linear.part.of == 1 and self.read is own_input
        return self.modified.kind if alike else None


@dataclass(frozen=True, eq=False)
class InputHook:
    """A hook before the module that reads h."""

    modified: SiteModification
    read: Read

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.modified(self.read(args[0]), args[0]), *args[1:])

    @property
    def kind(self) -> Hashable | None:
        return self.modified.kind if self.read is own_input else None


@dataclass(frozen=True)
class SiteModules:
    """One site's modules."""

    site: SiteShape
    layer: nn.Module
    stack: Stack
    pre_norm: bool
    head_dim: int
    hooks: Hooks

    @classmethod
    def of(cls, backbone: Backbone, site: SiteShape) -> SiteModules:
        assert site.layer is not None
        stack, layer = backbone.stack_and_layer(site.layer)
        head_dim = head_dim_of(layer, stack.attention, backbone.model.config)
        pre_norm = backbone.family.pre_norm
        return cls(site, layer, stack, pre_norm, head_dim, backbone.hooks)

    @property
    def paths(self) -> AttentionPaths | FfnPaths:
        """Of its sub-layer."""
        if self.site.kind in ("enc", "dec"):
            return self.stack.ffn
        if self.site.kind == "cross":
            assert self.stack.cross is not None
            return self.stack.cross
        return self.stack.attention

    def module(self, path: str) -> nn.Module:
        return self.layer.get_submodule(path)

    @property
    def attention(self) -> nn.Module:
        """What the attention interface is called with."""
        assert isinstance(self.paths, AttentionPaths)
        return self.module(self.paths.module)

    def selected(self, x: Tensor) -> Tensor:
        """x, read earlier in the forward, for the tokens that h has: those of the last layer may be
        one a text by then.
        """
        own = self.stack.attention
        if not isinstance(self.paths, AttentionPaths) and self.paths.norm != own.norm:
            return x  # read after the selection
        module = self.module(own.module if isinstance(self.paths, FfnPaths) else self.paths.module)
        return attention.selected(module, x, self.hooks.texts)

    @property
    def linear(self) -> LinearView | None:
        """The linear layer that computes h; None at heads, activations and sums."""
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
        # DeBERTa-v3 passes positions, too, through its query projection; across, values are the
        # encoder's.
        part = paths.query if self.site.kind == "cross" else paths.value
        return self.module(part.path)

    @property
    def norm(self) -> nn.Module:
        return self.module(self.paths.norm)

    # -- hooks ---------------------------------------------------------------------------------

    def hook(self, modified: SiteModification, read: Read, renorms: bool) -> Undo:
        """Have h pass `modified` in every forward; `read` turns the module's input into x."""
        place = self.site.place
        if place in ("attn.heads", "ffn.activated"):
            return self.hooks.before(self.module(self.paths.out), InputHook(modified, read))
        if place.startswith("residual."):
            return self._on_sum(modified, renorms)
        linear = self.linear
        assert linear is not None
        return self.hooks.after(linear.module, OutputHook(linear, modified, read))

    def _on_sum(self, modified: SiteModification, renorms: bool) -> Undo:
        """At the stream after a sub-layer has been added to it."""
        if not self.pre_norm:
            return self._renormed(modified) if renorms else self._output(self.norm, modified)
        if self.site.place == "residual.ffn":
            return self._output(self.layer, modified)
        return self._before_the_sum(modified)

    def _renormed(self, modified: SiteModification) -> Undo:
        """Pfeiffer: LN(t + Δ(LN(t))), the same frozen norm twice. forward() skips the hooks."""

        def on_norm(module: nn.Module, args: tuple[Any, ...], normed: Tensor) -> Any:
            cell = residual_sums(module)
            # A second modification goes on from the first one's sum, not from the layer's.
            t: Tensor = cell["t"] if cell.get("normed") is normed else args[0]
            cell["t"] = t + (modified(normed, normed) - normed)
            cell["normed"] = module.forward(cell["t"])
            return cell["normed"]

        take_off = self.hooks.after(self.norm, on_norm)

        def undo() -> None:
            take_off()
            residual_sums(self.norm).clear()

        return undo

    def _output(self, module: nn.Module, modified: SiteModification) -> Undo:
        def on_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, tuple):
                return (modified(output[0], output[0]), *output[1:])
            return modified(output, output)

        return self.hooks.after(module, on_output)

    def _before_the_sum(self, modified: SiteModification) -> Undo:
        """t = x + A with A what attention adds: A becomes A + Δ(t)."""
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
    """What the last forward's modifications of a norm's sum have left there."""
    return _SUMS.setdefault(norm, {})


class Captures:
    """Sub-layer inputs kept for the modifications further down the sub-layer that read them."""

    def __init__(self, hooks: Hooks, undo: list[Undo], captured: list[dict[str, Tensor]]) -> None:
        """`undo` and `captured`: the attachment's."""
        self._hooks, self._undo, self._captured = hooks, undo, captured
        self._cells: dict[tuple[nn.Module, str], dict[str, Tensor]] = {}

    def sublayer_input(self, modules: SiteModules) -> Callable[[], Tensor]:
        return self._of(modules, modules.entrance, "x")

    def residual_stream(self, modules: SiteModules) -> Callable[[], Tensor]:
        return self._of(modules, modules.norm, "stream")

    def _of(self, modules: SiteModules, module: nn.Module, what: str) -> Callable[[], Tensor]:
        if (module, what) not in self._cells:
            cell: dict[str, Tensor] = {}

            def capture(module: nn.Module, args: tuple[Any, ...]) -> None:
                cell["x"] = args[0]

            self._undo += [self._hooks.before(module, capture), cell.clear]
            self._cells[module, what] = cell
            self._captured.append(cell)
        found = self._cells[module, what]
        return lambda: modules.selected(found["x"])
