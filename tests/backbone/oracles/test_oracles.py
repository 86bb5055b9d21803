"""Numerical equality with independent computations: peft, and the papers' equations by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import layer_norm
from transformers import AutoModel

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.composition import Add, Composition, Gated, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Linear, Prefix, Relu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import backbone_at, padded_batch, perturb, states

TARGETS = {
    "attn.query": "attention.self.query",
    "attn.key": "attention.self.key",
    "attn.value": "attention.self.value",
    "attn.out": "attention.output.dense",
    "ffn.hidden": "intermediate.dense",
    "ffn.out": "output.dense",
}


@pytest.mark.parametrize(
    ("place", "insertion"),
    [
        ("attn.query+value", Parallel()),
        ("attn.query+key+value+out", Parallel("projection_input")),
        ("ffn.hidden", Parallel()),
        ("ffn.hidden+out", Parallel("projection_input")),
    ],
)
def test_lora_equals_peft_with_the_same_parameters(
    place: str, insertion: Insertion, tiny_bert: Path
) -> None:
    backbone = backbone_at(tiny_bert)
    modification = Modification(Linear(), Place.parse(place), insertion, Scaled(4.0), 3)
    names = [f"{i}.{TARGETS[n]}" for i in (0, 1) for n in modification.place.names]
    config = LoraConfig(r=3, lora_alpha=12, target_modules=[f"encoder.layer.{n}" for n in names])
    theirs = get_peft_model(AutoModel.from_pretrained(tiny_bert), config).double().eval()
    with torch.no_grad(), attach(backbone, Configuration((modification,))) as attachment:
        perturb(attachment.tensors)
        for name, value in attachment.tensors.items():
            _, layer, place_name = name.split("/")[1].split(".", 2)
            module = theirs.get_submodule(
                f"base_model.model.encoder.layer.{layer}.{TARGETS[place_name]}"
            )
            part = module.lora_A if name.endswith("down") else module.lora_B
            part["default"].weight.copy_(value.T)
        ours = states(backbone)
        batch = padded_batch()
        other = theirs(**batch).last_hidden_state * batch["attention_mask"].unsqueeze(-1)
    assert (ours - other).abs().max() <= 1e-12


def heads_and_prefix(
    backbone: Backbone, composition: Composition, length: int
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Layer 0's heads' output with a prefix attached, with q, k, v and the mask, and the prefix."""
    seen: dict[str, Tensor] = {}
    layer = backbone.layer(0)
    hooks = [
        layer.get_submodule(TARGETS[f"attn.{n}"]).register_forward_hook(
            lambda m, a, o, n=n: seen.__setitem__(n, o)  # type: ignore[misc]
        )
        for n in ("query", "key", "value")
    ]
    hooks.append(
        layer.get_submodule(TARGETS["attn.out"]).register_forward_pre_hook(
            lambda m, a: seen.__setitem__("heads", a[0])
        )
    )
    modification = Modification(
        Prefix(), Place(("attn.heads",), (0,)), Parallel(), composition, length
    )
    with torch.no_grad(), attach(backbone, Configuration((modification,))) as attachment:
        perturb(attachment.tensors)
        states(backbone)
        prefix = {n.rsplit("/", 1)[1]: p.detach().clone() for n, p in attachment.tensors.items()}
    for hook in hooks:
        hook.remove()
    return seen["heads"], seen, prefix


def split_heads(x: Tensor, heads: int = 4) -> Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


@pytest.fixture
def masked() -> Tensor:
    """Additive mask (batch, 1, 1, seq): −inf on padding."""
    mask = padded_batch()["attention_mask"].bool()
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)[:, None, None]


def test_the_gated_prefix_equals_equation_8_with_the_gate_written_out(
    tiny_bert: Path, masked: Tensor
) -> None:
    ours, seen, prefix = heads_and_prefix(backbone_at(tiny_bert), Gated(), 3)
    q, k, v = (split_heads(seen[n]) for n in ("query", "key", "value"))
    scale = q.shape[-1] ** -0.5
    base_logits = q @ k.transpose(-1, -2) * scale + masked
    prefix_logits = q @ prefix["keys"].transpose(-1, -2) * scale
    base, of_prefix = base_logits.exp().sum(-1), prefix_logits.exp().sum(-1)
    gate = (of_prefix / (of_prefix + base)).unsqueeze(-1)
    h = base_logits.softmax(-1) @ v
    delta = prefix_logits.softmax(-1) @ prefix["values"]
    assert (ours - merge_heads((1 - gate) * h + gate * delta)).abs().max() <= 1e-12


def test_the_gated_prefix_equals_attention_over_the_concatenation(
    tiny_roberta: Path, masked: Tensor
) -> None:
    ours, seen, prefix = heads_and_prefix(backbone_at(tiny_roberta), Gated(), 4)
    q, k, v = (split_heads(seen[n]) for n in ("query", "key", "value"))
    keys = torch.cat((prefix["keys"].expand(3, -1, -1, -1), k), 2)
    values = torch.cat((prefix["values"].expand(3, -1, -1, -1), v), 2)
    mask = torch.cat((torch.zeros(3, 1, 1, 4, dtype=torch.float64), masked), -1)
    logits = q @ keys.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
    assert (ours - merge_heads(logits.softmax(-1) @ values)).abs().max() <= 1e-12


@pytest.mark.parametrize(("composition", "s"), [(Add(), 1.0), (Scaled(4.0), 4.0)])
def test_the_ungated_prefix_is_added_to_the_heads(
    composition: Composition, s: float, tiny_bert: Path, masked: Tensor
) -> None:
    ours, seen, prefix = heads_and_prefix(backbone_at(tiny_bert), composition, 3)
    q, k, v = (split_heads(seen[n]) for n in ("query", "key", "value"))
    scale = q.shape[-1] ** -0.5
    h = (q @ k.transpose(-1, -2) * scale + masked).softmax(-1) @ v
    delta = (q @ prefix["keys"].transpose(-1, -2) * scale).softmax(-1) @ prefix["values"]
    assert (ours - merge_heads(h + s * delta)).abs().max() <= 1e-12


def transcribed(backbone: Backbone, tensors: dict[str, Tensor], name: str) -> Tensor:
    """A BERT encoder written out from the papers' equations, with one method's tensors."""
    model: Any = backbone.model
    batch = padded_batch()
    mask = batch["attention_mask"].bool()
    x = model.embeddings(batch["input_ids"])
    bias = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)
    for index, layer in enumerate(model.encoder.layer):
        x = _layer(layer, x, bias[:, None, None], tensors, index, name)
    return x * mask.unsqueeze(-1)


def _layer(
    layer: Any, x: Tensor, bias: Tensor, tensors: dict[str, Tensor], index: int, name: str
) -> Tensor:
    def adapter(source: Tensor, place: str) -> Tensor:
        down, up = (
            next(t for n, t in tensors.items() if n.endswith(f"layers.{index}.{place}/{part}"))
            for part in ("down", "up")
        )
        return torch.relu(source @ down) @ up

    def norm(module: Any, t: Tensor) -> Tensor:
        return layer_norm(t, t.shape[-1:], module.weight, module.bias, module.eps)

    attention = layer.attention
    q, k, v = (split_heads(getattr(attention.self, n)(x)) for n in ("query", "key", "value"))
    if name == "mam":
        place = f"layers.{index}.attn.heads"
        keys, values = (
            next(t for n, t in tensors.items() if n.endswith(f"{place}/{part}"))
            for part in ("keys", "values")
        )
        k = torch.cat((keys.expand(x.shape[0], -1, -1, -1), k), 2)
        v = torch.cat((values.expand(x.shape[0], -1, -1, -1), v), 2)
        bias = torch.nn.functional.pad(bias, (keys.shape[1], 0))
    heads = merge_heads((q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v)
    if name == "parallel-adapter-attn":
        heads = heads + adapter(x, "attn.heads")
    a = attention.output.dense(heads)
    if name == "houlsby":
        a = a + adapter(a, "attn.out")
    x1 = norm(attention.output.LayerNorm, x + a)
    f = layer.output.dense(torch.nn.functional.gelu(layer.intermediate.dense(x1)))
    if name == "houlsby":
        f = f + adapter(f, "ffn.out")
    if name == "parallel-adapter-ffn":
        f = f + adapter(x1, "ffn.out")
    if name == "scaled-parallel-adapter":
        f = f + 4 * adapter(x1, "ffn.out")
    if name == "mam":
        f = f + 2 * adapter(x1, "ffn.out")
    t = x1 + f
    if name == "pfeiffer":
        t = t + adapter(norm(layer.output.LayerNorm, t), "residual.ffn")
    return norm(layer.output.LayerNorm, t)


@pytest.mark.parametrize(
    "name",
    [
        "head-only-mean",
        "houlsby",
        "pfeiffer",
        "parallel-adapter-attn",
        "parallel-adapter-ffn",
        "scaled-parallel-adapter",
        "mam",
    ],
)
def test_a_method_equals_its_equations_written_out(name: str, tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    with (
        torch.no_grad(),
        attach(backbone, METHODS[name].configuration()) as attachment,
    ):
        perturb(attachment.tensors)
        ours = states(backbone)
        tensors: dict[str, Tensor] = dict(attachment.tensors)
    with torch.no_grad():
        assert (ours - transcribed(backbone, tensors, name)).abs().max() <= 1e-12


def test_bitfit_adds_to_every_bias_that_lives_and_to_no_other(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    with attach(backbone, METHODS["bitfit"].configuration()) as attachment:
        tuned = {name.split("/")[1] for name in attachment.tensors}
    biases = {n for n, _ in backbone.model.named_parameters() if n.endswith("bias")}
    assert biases - tuned == {f"encoder.layer.{i}.attention.self.key.bias" for i in (0, 1)}
    assert tuned <= biases


@pytest.mark.parametrize("name", ["bitfit", "ln-tuning", "bitfit-norm"])
def test_tensors_of_one_layer_are_those_under_its_name_and_leave_the_lower_one_alone(
    name: str, tiny_bert: Path
) -> None:
    backbone = backbone_at(tiny_bert)
    (whole,) = METHODS[name].configuration().modifications
    below = backbone.layer(0).register_forward_hook(lambda m, a, o: seen.append(o))
    seen: list[Tensor] = []
    with torch.no_grad(), attach(backbone, Configuration((whole,))) as attachment:
        expected = {n for n in attachment.tensors if ".layer.1." in n}
    with torch.no_grad():
        states(backbone)
        with attach(backbone, Configuration((whole.on((1,)),))) as attachment:
            perturb(attachment.tensors)
            assert set(attachment.tensors) == expected
            changed = states(backbone)
        assert not torch.equal(changed, states(backbone))
    below.remove()
    assert all(torch.equal(one, seen[0]) for one in seen)


def test_a_parallel_adapter_before_w_o_equals_one_after_it_with_the_product(
    tiny_bert: Path,
) -> None:
    backbone = backbone_at(tiny_bert)
    before = Modification(Relu(), Place(("attn.heads",), (1,)), Parallel(), Add(), 3)
    after = Modification(Relu(), Place(("ffn.out",), (1,)), Sequential(), Add(), 3)
    assert before.parameters(backbone.shapes) == after.parameters(backbone.shapes)
    w_o = backbone.layer(1).get_submodule(TARGETS["attn.out"])
    seen: dict[str, Tensor] = {}
    hooks = [
        w_o.register_forward_hook(lambda m, a, o: seen.__setitem__("out", o)),
        backbone.layer(1)
        .get_submodule(TARGETS["attn.query"])
        .register_forward_pre_hook(lambda m, a: seen.__setitem__("x", a[0])),
    ]
    with torch.no_grad():
        states(backbone)
        plain = seen["out"]
        with attach(backbone, Configuration((before,))) as attachment:
            perturb(attachment.tensors)
            states(backbone)
            down, up = attachment.tensors.values()
            expected = plain + torch.relu(seen["x"] @ down) @ up @ w_o.weight.T
            assert (seen["out"] - expected).abs().max() <= 1e-12
    for hook in hooks:
        hook.remove()
