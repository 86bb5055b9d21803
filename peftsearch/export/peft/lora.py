"""LoRA in peft's format, including DoRA, PiSSA, fused layers and BitFit's biases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from peftsearch.backbone.families import Part
from peftsearch.backbone.linear import LinearView
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.composition import Scaled, TanhGate
from peftsearch.design.form import Linear
from peftsearch.design.serving import lora_scale
from peftsearch.export.peft.parts import PREFIX, Adapter, Layers, SitePart

__all__ = ["lora"]


@dataclass(frozen=True)
class _Block:
    """Low rank beside a linear layer or a part of it: Δh = scale · x downᵀ upᵀ.

    `down` is (r, d_in), `up` (d_part, r).
    """

    view: LinearView
    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None


@dataclass(frozen=True)
class _Module:
    """One of peft's LoRA layers."""

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def alpha(self) -> float:
        return self.scale * self.rank

    def tensors(self, name: str) -> dict[str, Tensor]:
        prefix = f"{PREFIX}{name}.lora_"
        found = {f"{prefix}A.weight": self.a, f"{prefix}B.weight": self.b}
        if self.magnitude is not None:
            found[f"{prefix}magnitude_vector"] = self.magnitude
        return found


def lora(backbone: Backbone, parts: list[SitePart]) -> Adapter:
    """LoRA of every modified linear layer; biases of unmodified layers get a zero LoRA."""
    layers = Layers(backbone)
    blocks = [
        _block(layers.at(p.site), p) for p in parts if isinstance(p.modification.form, Linear)
    ]
    blocks = blocks or [_nothing(layers.first())]
    by_name: dict[str, list[_Block]] = {}
    for block in blocks:
        by_name.setdefault(layers.name(block.view), []).append(block)
    modules = _with_one_scale({n: _joined(group) for n, group in sorted(by_name.items())})
    biases = _biases(backbone, [p for p in parts if p.site.tensor], set(modules))
    tensors = {n: t for name, m in modules.items() for n, t in m.tensors(name).items()}
    config = _config(modules) | {
        "fan_in_fan_out": layers.is_transposed([block.view for block in blocks]),
        "bias": "all" if biases else "none",
    }
    return Adapter(config, tensors | biases)


def _with_one_scale(modules: dict[str, _Module]) -> dict[str, _Module]:
    """The same modules, all with the first one's scale: vLLM reads one alpha / r for all layers and
    no `alpha_pattern` (`PEFTHelper` in vllm/lora/peft_helper.py).
    """
    scale = next(iter(modules.values())).scale
    return {n: replace(m, b=m.b * (m.scale / scale), scale=scale) for n, m in modules.items()}


def _config(modules: dict[str, _Module]) -> dict[str, object]:
    first = next(iter(modules.values()))
    return {
        "r": first.rank,
        "lora_alpha": first.alpha,
        "rank_pattern": {n: m.rank for n, m in modules.items() if m.rank != first.rank},
        "alpha_pattern": {n: m.alpha for n, m in modules.items() if m.alpha != first.alpha},
        "target_modules": list(modules),
        "lora_dropout": 0.0,
        "use_dora": first.magnitude is not None,
        "modules_to_save": None,
    }


def _block(view: LinearView, part: SitePart) -> _Block:
    """One site's low-rank change with its scale."""
    down, up, composition = part.tensors["down"], part.tensors["up"], part.modification.composition
    scale = lora_scale(composition, down.shape[1])
    if isinstance(composition, TanhGate):  # a number by now, as a learned scale is
        up = up * part.tensors["gate"].tanh()
    elif isinstance(composition, Scaled) and composition.s == "learned":
        up = up * part.tensors["s"]
    form = part.modification.form
    if isinstance(form, Linear) and form.init == "pissa":
        down, up = _pissa(form, view, down, up)
    return _Block(view, down.T, up.T, scale, part.tensors.get("m"))


def _pissa(form: Linear, view: LinearView, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Δ = AB − A₀B₀ as one product of twice the rank: [A, A₀] [B; −B₀]."""
    began = {"down": torch.empty_like(down), "up": torch.empty_like(up)}
    constants = form.initialise_site(
        began, Generator(), lambda: view.weight().to("cpu", down.dtype)
    )
    return torch.cat((down, constants["down_0"]), 1), torch.cat((up, -constants["up_0"]))


def _nothing(view: LinearView) -> _Block:
    """A zero LoRA of rank 1, so that peft stores the layer's bias."""
    return _Block(view, torch.zeros(1, view.d_in), torch.zeros(view.d_out, 1), 1.0)


def _joined(blocks: list[_Block]) -> _Module:
    """All blocks beside one layer: A stacked, B in blocks that are zero elsewhere."""
    scales = {block.scale for block in blocks}
    scale = scales.pop() if len(scales) == 1 else 1.0
    rank, d_module = sum(len(block.down) for block in blocks), blocks[0].view.d_module
    b = torch.zeros(d_module, rank)
    first = 0
    for block in blocks:
        columns = slice(first, first + len(block.down))
        b[block.view.channels, columns] = block.up.float() * (block.scale / scale)
        first += len(block.down)
    a = torch.cat([block.down.float() for block in blocks])
    if blocks[0].magnitude is None:
        return _Module(a, b, scale, None)
    whole = LinearView(blocks[0].view.module, Part("")).weight().float().cpu()
    return _dora(whole, _Module(a, b, scale, _magnitude(blocks, whole)))


def _magnitude(blocks: list[_Block], whole: Tensor) -> Tensor:
    """DoRA's m over a whole layer: where nothing is tuned, W's own norms, which change nothing."""
    magnitude: Tensor = whole.norm(dim=0)
    for block in blocks:
        assert block.magnitude is not None
        magnitude[block.view.channels] = block.magnitude.float()
    return magnitude


def _dora(whole: Tensor, module: _Module) -> _Module:
    """The module with magnitude 0, and any direction, in the channels where peft would divide by 0:
    W and Δ are zero there, and the output is the bias alone.
    """
    assert module.magnitude is not None
    a, b, m = module.a, module.b, module.magnitude
    without = (whole.T + module.scale * b @ a).norm(dim=1) == 0
    any_direction = torch.zeros(len(a)).index_fill(0, a.norm(dim=1).argmax(), 1.0)
    b = torch.where(without[:, None], any_direction, b)
    return replace(module, b=b, magnitude=m.masked_fill(without, 0.0))


def _biases(backbone: Backbone, parts: Iterable[SitePart], targets: set[str]) -> dict[str, Tensor]:
    """Tuned biases under the names that they have once peft has wrapped `targets`."""
    found = {}
    for part in parts:
        (tuned,) = part.tensors.values()
        live = backbone.live(part.site)
        if live is not None:
            frozen = backbone.model.get_parameter(part.site.key).detach().cpu().to(tuned.dtype)
            tuned = frozen.clone().index_copy(0, live.cpu(), tuned)
        module, _, key = part.site.key.rpartition(".")
        path = f"{module}.base_layer.{key}" if module in targets else part.site.key
        found[f"{PREFIX}{path}"] = tuned
    return found
