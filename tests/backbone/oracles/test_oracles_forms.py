"""Forms and gates beyond the paper, written by hand into a stock model's own modules.

Each expectation is the stock model with hooks that this file writes out on named modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftsearch.backbone.attach.attach import attach
from peftsearch.design.composition import Add, Composition, Scaled, SigmoidGate, TanhGate
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Form, Gelu, Kronecker, Linear, Loreft, Prefix, Relu, Silu, Swiglu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import backbone, batch, module_path, outputs, stock

Sites = dict[str, dict[str, Tensor]]
Edit = Callable[[Tensor, Tensor], Tensor]
"""(the module's input, its output) → the new output."""


def sites_of(tensors: dict[str, nn.Parameter]) -> Sites:
    """Site → name → tensor; tensors that all sites of a modification share are at every one."""
    found: Sites = {}
    shared: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, site, key = name.split("/")
        if site == "shared":
            shared.setdefault(index, {})[key] = tensor.detach()
        else:
            found.setdefault(site, shared.get(index, {}).copy())[key] = tensor.detach()
    return found


@contextmanager
def edited(model: nn.Module, edits: dict[str, Edit]) -> Iterator[None]:
    """Modules whose output is changed, by path."""
    handles = [
        model.get_submodule(path).register_forward_hook(lambda m, a, o, e=edit: e(a[0], o))
        for path, edit in edits.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def kept(model: nn.Module, paths: dict[str, str]) -> Iterator[dict[str, Tensor]]:
    """The inputs of modules, under names."""
    seen: dict[str, Tensor] = {}

    def keep(key: str) -> Callable[..., None]:
        return lambda m, args: seen.__setitem__(key, args[0])

    handles = [
        model.get_submodule(path).register_forward_pre_hook(keep(key))
        for key, path in paths.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def compare(
    name: str,
    configuration: Configuration,
    by_hand: Callable[[nn.Module, Sites], Any],
) -> None:
    """Our output equals the stock model's inside the context that `by_hand` makes."""
    ours, inputs, model = backbone(name), batch(name), stock(name)
    with attach(ours, configuration) as attachment:
        perturb(attachment.tensors)
        tuned = outputs(ours.model, inputs)
        sites = sites_of(attachment.tensors)
    with by_hand(model, sites):
        expected = outputs(model, inputs)
    assert (tuned - expected).abs().max() <= 1e-12 * expected.abs().max().clamp(min=1)
    assert (tuned - outputs(model, inputs)).abs().max() > 0.01


def one(
    form: Form, place: str, insertion: Insertion, composition: Composition | None = None, r: int = 3
) -> Configuration:
    return Configuration(
        (Modification(form, Place.parse(place), insertion, composition or Add(), r),)
    )


FFN_INPUT = {
    "bert": "intermediate.dense",
    "llama": "mlp.up_proj",
    "bart": "fc1",
    "gpt2": "mlp.c_fc",
}


def ffn_edits(
    name: str, model: nn.Module, sites: Sites, delta: Callable[[Tensor, Tensor, Any], Tensor]
) -> Any:
    """A context in which every ffn's output h becomes `delta(x, h, tensors)`."""
    return _edits(name, model, sites, delta, "ffn")


@contextmanager
def _edits(
    name: str, model: nn.Module, sites: Sites, new: Callable[..., Tensor], sublayer: str
) -> Iterator[None]:
    inputs = {}
    for site in sites:
        first = f"{site.rsplit('.', 1)[0]}.{'hidden' if sublayer == 'ffn' else 'query'}"
        inputs[site] = module_path(name, first)
    with kept(model, inputs) as x:
        edits: dict[str, Edit] = {
            module_path(name, site): lambda _, h, s=site: new(x[s], h, sites[s])  # type: ignore[misc]
            for site in sites
        }
        with edited(model, edits):
            yield


# -- bottlenecks -------------------------------------------------------------------------------


def gelu(v: Tensor) -> Tensor:
    return v * 0.5 * (1 + torch.erf(v / math.sqrt(2)))


def silu(v: Tensor) -> Tensor:
    return v / (1 + torch.exp(-v))


def down(v: Tensor, t: dict[str, Tensor]) -> Tensor:
    return v @ t["down"] + t.get("down_bias", torch.zeros(()))


def up(v: Tensor, t: dict[str, Tensor]) -> Tensor:
    return v @ t["up"] + t.get("up_bias", torch.zeros(()))


BOTTLENECKS: dict[str, tuple[type[Any], Callable[[Tensor, dict[str, Tensor]], Tensor]]] = {
    "linear": (Linear, lambda v, t: up(down(v, t), t)),
    "relu": (Relu, lambda v, t: up(down(v, t).clamp(min=0), t)),
    "gelu": (Gelu, lambda v, t: up(gelu(down(v, t)), t)),
    "silu": (Silu, lambda v, t: up(silu(down(v, t)), t)),
    "swiglu": (Swiglu, lambda v, t: up(silu(v @ t["gate_down"]) * down(v, t), t)),
}


@pytest.mark.parametrize("bias", [False, True], ids=["without biases", "with biases"])
@pytest.mark.parametrize("insertion", [Parallel(), Sequential()], ids=lambda i: i.name)
@pytest.mark.parametrize("form", BOTTLENECKS)
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_bottleneck_at_the_ffn_equals_its_equation(
    name: str, form: str, insertion: Insertion, bias: bool
) -> None:
    made, equation = BOTTLENECKS[form]

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        def new(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            return h + 3 * equation(x if insertion.name == "parallel" else h, t)

        return ffn_edits(name, model, sites, new)

    compare(name, one(made(bias=bias), "ffn.out", insertion, Scaled(3)), by_hand)


@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_compacter_equals_explicit_sums_of_kronecker_products(name: str) -> None:
    n = 4

    def matrix(t: dict[str, Tensor], which: str) -> Tensor:
        terms = [
            torch.kron(t["a"][i], torch.outer(t[f"{which}_s"][i], t[f"{which}_t"][i]))
            for i in range(n)
        ]
        return torch.stack(terms).sum(0)

    def new(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
        assert matrix(t, "down").shape == (32, n * 2)
        return h + gelu(h @ matrix(t, "down")) @ matrix(t, "up")

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        return ffn_edits(name, model, sites, new)

    compare(name, one(Kronecker(n), "ffn.out", Sequential(), r=2), by_hand)


def test_compacters_adapters_after_attention_and_after_the_ffn_on_bert() -> None:
    def by_hand(model: nn.Module, sites: Sites) -> Any:
        def new(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            w_down, w_up = (
                sum(
                    torch.kron(t["a"][i], t[f"{which}_s"][i][:, None] * t[f"{which}_t"][i])
                    for i in range(4)
                )
                for which in ("down", "up")
            )
            return h + gelu(h @ w_down) @ w_up

        return _both(model, sites, new)

    @contextmanager
    def _both(model: nn.Module, sites: Sites, new: Callable[..., Tensor]) -> Iterator[None]:
        attention = {s: t for s, t in sites.items() if "attn" in s}
        ffn = {s: t for s, t in sites.items() if "ffn" in s}
        with _edits("bert", model, attention, new, "attn"), _edits("bert", model, ffn, new, "ffn"):
            yield

    compare("bert", METHODS["compacter"].configuration(), by_hand)


# -- LoReFT ------------------------------------------------------------------------------------


def gram_schmidt(columns: Tensor) -> Tensor:
    """(d, r) → (r, d) with orthonormal rows."""
    rows: list[Tensor] = []
    for column in columns.T:
        rest = column - sum((row * (row @ column) for row in rows), torch.zeros_like(column))
        rows.append(rest / rest.norm())
    return torch.stack(rows)


AFTER_FFN = {
    "bert": "encoder.layer.{}.output.LayerNorm",
    "roberta": "encoder.layer.{}.output.LayerNorm",
    "distilbert": "transformer.layer.{}.output_layer_norm",
    "opt": "decoder.layers.{}",
    "gpt2": "h.{}",
    "llama": "layers.{}",
    "mistral": "layers.{}",
}


@pytest.mark.parametrize("name", AFTER_FFN)
def test_loreft_equals_its_equation_with_orthonormal_rows(name: str) -> None:
    """h + Rᵀ(W h + b − R h)."""

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        edits: dict[str, Edit] = {}
        for site, t in sites.items():
            r = gram_schmidt(t["rotation"])
            assert (r @ r.T - torch.eye(3, dtype=r.dtype)).abs().max() < 1e-12

            def edit(_: Tensor, out: Any, t: Any = t, r: Tensor = r) -> Any:
                h = out[0] if isinstance(out, tuple) else out
                new = h + (h @ t["source"] + t["source_bias"] - h @ r.T) @ r
                return (new, *out[1:]) if isinstance(out, tuple) else new

            edits[AFTER_FFN[name].format(site.split(".")[1])] = edit
        return edited(model, edits)

    compare(name, one(Loreft(), "residual.ffn", Sequential()), by_hand)


def test_loreft_on_bert_after_attentions_norm() -> None:
    def by_hand(model: nn.Module, sites: Sites) -> Any:
        def edit(_: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            r = gram_schmidt(t["rotation"])
            return h + (h @ t["source"] + t["source_bias"] - h @ r.T) @ r

        return edited(
            model,
            {
                f"encoder.layer.{s.split('.')[1]}.attention.output.LayerNorm": (
                    lambda x, h, t=t: edit(x, h, t)  # type: ignore[misc]
                )
                for s, t in sites.items()
            },
        )

    compare("bert", one(Loreft(), "residual.attn", Sequential()), by_hand)


# -- learned gates -----------------------------------------------------------------------------


def sigmoid(v: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-v))


@pytest.mark.parametrize("insertion", [Parallel(), Sequential()], ids=lambda i: i.name)
@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_the_sigmoid_gate_reads_what_the_form_reads(name: str, insertion: Insertion) -> None:
    def new(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
        read = x if insertion.name == "parallel" else h
        gate = sigmoid((read * t["gate_w"]).sum(-1, keepdim=True) + t["gate_b"])
        return h + gate * ((read @ t["down"]).clamp(min=0) @ t["up"])

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        return ffn_edits(name, model, sites, new)

    compare(name, one(Relu(), "ffn.out", insertion, SigmoidGate()), by_hand)


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2"])
def test_the_tanh_gate_is_one_number_a_site(name: str) -> None:
    def new(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
        assert t["gate"].shape == (1,)
        opened = (torch.exp(2 * t["gate"]) - 1) / (torch.exp(2 * t["gate"]) + 1)
        return h + opened * ((x @ t["down"]).clamp(min=0) @ t["up"])

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        return ffn_edits(name, model, sites, new)

    compare(name, one(Relu("bert"), "ffn.out", Parallel(), TanhGate()), by_hand)


def headed(t: Tensor) -> Tensor:
    return t.unflatten(-1, (4, -1)).transpose(1, 2)


@contextmanager
def bert_heads(
    model: Any, sites: Sites, new: Callable[[Tensor, Tensor, Tensor, dict[str, Tensor]], Tensor]
) -> Iterator[None]:
    """BERT's heads become `new(x, q, heads, tensors)` before W_o; q and heads (b, 4, seq, 8)."""
    handles = []
    for site, tensors in sites.items():
        layer = model.encoder.layer[int(site.split(".")[1])].attention
        cell: dict[str, Tensor] = {}

        def keep(m: Any, args: Any, q: Tensor, cell: Any = cell) -> None:
            cell["x"], cell["q"] = args[0], headed(q)

        def change(m: Any, args: Any, cell: Any = cell, t: Any = tensors) -> Any:
            changed = new(cell["x"], cell["q"], headed(args[0]), t)
            return (changed.transpose(1, 2).flatten(2),)

        handles.append(layer.self.query.register_forward_hook(keep))
        handles.append(layer.output.dense.register_forward_pre_hook(change))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attended(q: Tensor, t: dict[str, Tensor]) -> Tensor:
    """softmax(q P_kᵀ/√d) P_v, (batch, heads, seq, head_dim)."""
    logits = torch.einsum("bhsd,hld->bhsl", q, t["keys"]) / math.sqrt(q.shape[-1])
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.einsum("bhsl,hld->bhsd", weights, t["values"])


COMPOSED: dict[str, tuple[Composition, Callable[[Tensor, dict[str, Tensor]], Any]]] = {
    "ungated": (Add(), lambda x, t: 1.0),
    "scaled": (Scaled(2.5), lambda x, t: 2.5),
    "learned": (Scaled("learned"), lambda x, t: t["s"]),
    "sigmoid": (
        SigmoidGate(),
        lambda x, t: sigmoid(x @ t["gate_w"] + t["gate_b"])[:, None, :, None],
    ),
    "tanh": (TanhGate(), lambda x, t: torch.tanh(t["gate"])[:, None, None]),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_a_prefix_outside_the_softmax_is_attention_over_it_alone_added(name: str) -> None:
    """One gate a token (UniPELT), or one a head (LLaMA-Adapter)."""
    composition, factor = COMPOSED[name]

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        if name == "tanh":
            assert all(t["gate"].shape == (4,) for t in sites.values())
        return bert_heads(model, sites, lambda x, q, h, t: h + factor(x, t) * attended(q, t))

    form = Prefix(init="normal")
    compare("bert", one(form, "attn.heads", Parallel(), composition), by_hand)


def test_the_multi_head_parallel_adapter_is_relu_over_the_frozen_queries() -> None:
    """h + ReLU(x W_q P_kᵀ) P_v for each head, with W_q as it is (He et al., section 4.3)."""

    def new(x: Tensor, q: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
        logits = torch.einsum("bhsd,hld->bhsl", q, t["keys"]) / math.sqrt(q.shape[-1])
        return h + torch.einsum("bhsl,hld->bhsd", logits.clamp(min=0), t["values"])

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        return bert_heads(model, sites, new)

    compare("bert", METHODS["multi-head-pa"].configuration(), by_hand)


def test_the_tanh_gate_of_a_bottleneck_at_the_heads_is_one_a_head() -> None:
    def new(x: Tensor, q: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
        delta = headed((x @ t["down"]).clamp(min=0) @ t["up"])
        return h + torch.tanh(t["gate"])[:, None, None] * delta

    def by_hand(model: nn.Module, sites: Sites) -> Any:
        return bert_heads(model, sites, new)

    compare("bert", one(Relu("bert"), "attn.heads", Parallel(), TanhGate()), by_hand)


def test_unipelt_is_its_three_gated_parts() -> None:
    def gate(read: Tensor, t: dict[str, Tensor]) -> Tensor:
        return sigmoid(read @ t["gate_w"] + t["gate_b"])[..., None]

    @contextmanager
    def by_hand(model: nn.Module, sites: Sites) -> Iterator[None]:
        def part(place: str) -> Sites:
            return {s: t for s, t in sites.items() if s.endswith(place)}

        def heads(x: Tensor, q: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            return h + gate(x, t)[:, None] * attended(q, t)

        def lora(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            return h + gate(x, t) * (x @ t["down"] @ t["up"])

        def adapter(x: Tensor, h: Tensor, t: dict[str, Tensor]) -> Tensor:
            return h + gate(h, t) * ((h @ t["down"]).clamp(min=0) @ t["up"])

        projections = part("attn.query") | part("attn.value")
        with (
            _edits("bert", model, projections, lora, "attn"),
            bert_heads(model, part("attn.heads"), heads),
            _edits("bert", model, part("ffn.out"), adapter, "ffn"),
        ):
            yield

    compare("bert", METHODS["unipelt"].configuration(), by_hand)


# -- prefixes that are re-parametrised ---------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "bart", "llama"])
def test_a_reparametrised_prefix_is_the_prefix_that_its_mlp_gives(name: str) -> None:
    """Emb → Linear → tanh → Linear, keys then values, site after site (Li and Liang)."""
    from peftsearch.design.composition import Gated

    ours, inputs = backbone(name), batch(name)
    trained = one(Prefix(mlp=7), "attn.heads", Parallel(), Gated())
    plain = one(Prefix(), "attn.heads", Parallel(), Gated())
    with attach(ours, trained) as attachment:
        perturb(attachment.tensors)
        through_the_mlp = outputs(ours.model, inputs)
        stored = attachment.stored()
        t = {n.split("/")[-1]: p.detach() for n, p in attachment.tensors.items()}
    vectors = torch.tanh(t["embedding"] @ t["in"] + t["in_bias"]) @ t["out"] + t["out_bias"]
    halves = iter(vectors.split(16 if name == "llama" else 32, dim=1))  # 2 key heads of 8, or 4
    with attach(ours, plain) as attachment, torch.no_grad():
        assert set(stored) == set(attachment.tensors)
        for key, parameter in attachment.tensors.items():
            expected = next(halves).unflatten(-1, (-1, 8)).transpose(0, 1)
            assert (stored[key] - expected).abs().max() <= 1e-12
            parameter.copy_(expected)
        assert (outputs(ours.model, inputs) - through_the_mlp).abs().max() <= 1e-12
