"""Modifications that meet at one sum, after or before a norm: every one has its effect."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.composition import Add, Composition, Dora, Gated, Scaled, SigmoidGate
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import (
    Constant,
    Form,
    Gelu,
    Kronecker,
    Linear,
    Loreft,
    Prefix,
    Relu,
    Rescale,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.families import backbone_of, inputs, states

COMPOSITIONS: list[Composition] = [Add(), Scaled(4.0), Scaled("learned"), SigmoidGate()]


def at_one_sum(place: str) -> list[Modification]:
    """LoReFT, and each adapter in each composition, at one place."""
    adapters: list[Form] = [Relu(), Gelu(), Kronecker(n=2)]
    points = [(form, composition) for form in adapters for composition in COMPOSITIONS]
    return [
        Modification(form, Place.parse(place), Sequential(), composition, 2)
        for form, composition in [(Loreft(), Add()), *points]
    ]


PAIRS = [
    pair for pair in combinations(at_one_sum("residual.ffn"), 2) if pair[0].form != pair[1].form
]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "bart", "llama"])
def test_two_modifications_of_one_sum_both_have_an_effect(family: str) -> None:
    backbone, batch = backbone_of(family), inputs(family)
    for first, second in PAIRS:
        both = Configuration((first, second))
        with torch.no_grad(), attach(backbone, both) as attachment:
            perturb(attachment.tensors)
            together = states(family, backbone, batch)
            for index in (0, 1):
                kept = {n: p for n, p in attachment.tensors.items() if n.startswith(f"{index}/")}
                before = {n: p.clone() for n, p in kept.items()}
                for parameter in kept.values():
                    parameter.mul_(0.5)
                moved = states(family, backbone, batch)
                assert not torch.allclose(moved, together, atol=1e-6), both.describe()
                for name, parameter in kept.items():
                    parameter.copy_(before[name])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_loreft_edits_what_the_adapter_before_it_left(family: str) -> None:
    """h = LN(t + s Δ(LN t)) first, then h + Rᵀ(W h + b − R h): whatever the composition."""
    backbone, batch = backbone_of(family), inputs(family)
    place = Place.parse("residual.ffn", (1,))
    for composition in COMPOSITIONS:
        adapter = Modification(Relu(), place, Sequential(), composition, 2)
        loreft = Modification(Loreft(), place, Sequential(), width=2)
        with torch.no_grad():
            with attach(backbone, Configuration((adapter,))) as alone:
                perturb(alone.tensors)
                h = last_layer(backbone, batch)
                tensors = {n.split("/", 1)[1]: p.clone() for n, p in alone.tensors.items()}
            with attach(backbone, Configuration((adapter, loreft))) as both:
                perturb(both.tensors)
                for name, parameter in both.tensors.items():
                    if name.split("/", 1)[1] in tensors:
                        parameter.copy_(tensors[name.split("/", 1)[1]])
                own = {n.rsplit("/", 1)[1]: p for n, p in both.tensors.items()}
                expected = h + Loreft().delta(own, h)
                found = last_layer(backbone, batch)
        assert torch.allclose(found, expected, atol=1e-12)


def last_layer(backbone: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the last layer gives, before a pre-norm model's last norm."""
    caught: list[torch.Tensor] = []

    def catch(module: object, args: object, output: object) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)  # type: ignore[arg-type]

    handle = backbone.layer(1).register_forward_hook(catch)  # type: ignore[attr-defined]
    backbone.model(**batch)  # type: ignore[attr-defined]
    handle.remove()
    return caught[0]


SCALES = [0.5, 2.0, 3.0, 8.0, 16.0]
NEIGHBOURS = [
    Modification(Relu(), Place.parse("attn.out"), Sequential(), Scaled(3.0), 2),
    Modification(Relu(), Place.parse("ffn.out"), Sequential(), Scaled(3.0), 2),
    Modification(Relu(), Place.parse("residual.attn"), Sequential(), width=2),
    Modification(Loreft(), Place.parse("residual.ffn"), Sequential(), width=2),
    Modification(Rescale(), Place.parse("attn.key+value"), Sequential()),
    Modification(Rescale(), Place.parse("ffn.activated"), Sequential()),
    Modification(Constant(), Place.parse("attn.out")),
]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama", "mbart", "gpt2"])
@pytest.mark.parametrize("at", ["attn.query+value", "attn.out", "ffn.out"])
def test_a_number_does_not_decide_the_order_in_which_modifications_apply(
    family: str, at: str
) -> None:
    """LoRA with a scale s, and with its up-projection s times as large: beside all one function."""
    backbone, batch = backbone_of(family), inputs(family)
    insertion = Parallel() if at == "attn.query+value" else Parallel("projection_input")
    for neighbour in NEIGHBOURS:
        outputs = []
        for s in SCALES:
            outputs += [
                lora_beside(backbone, family, batch, at, insertion, neighbour, s, c)
                for c in (Add(), Scaled(s))
            ]
        for add, scaled in zip(outputs[::2], outputs[1::2], strict=True):
            assert torch.allclose(add, scaled, atol=1e-9), neighbour.describe()


def lora_beside(
    backbone: Backbone,
    family: str,
    batch: dict[str, torch.Tensor],
    at: str,
    insertion: Insertion,
    neighbour: Modification,
    s: float,
    composition: Composition,
) -> torch.Tensor:
    """States with a LoRA of scale s in either writing, all tensors moved alike."""
    lora = Modification(Linear(), Place.parse(at), insertion, composition, 2)
    with torch.no_grad(), attach(backbone, Configuration((lora, neighbour))) as attachment:
        for tuned in attachment.tuned:
            key = tuned.name.split("/", 1)[1]
            generator = torch.Generator().manual_seed(sum(map(ord, f"{tuned.form}/{key}")))
            noise = torch.randn(tuned.parameter.shape, generator=generator, dtype=torch.float64)
            tuned.parameter.copy_(0.3 * noise)
            if tuned.form == "linear" and key.endswith("/up") and isinstance(composition, Add):
                tuned.parameter.mul_(s)
        return states(family, backbone, batch)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_dora_is_of_the_layer_alone_and_an_added_bias_is_added(family: str) -> None:
    backbone, batch = backbone_of(family), inputs(family)
    dora = Modification(Linear(), Place.parse("attn.query"), composition=Dora(2.0), width=2)
    bias = Modification(Constant(), Place.parse("attn.query"))
    caught: list[torch.Tensor] = []
    site = backbone.layer(0).get_submodule(backbone.family.stacks[0].attention.query.path)

    def query(*modifications: Modification) -> torch.Tensor:
        with torch.no_grad(), attach(backbone, Configuration(modifications)) as attachment:
            for tuned in attachment.tuned:
                tuned.parameter.add_(0.5)
            caught.clear()
            handle = site.register_forward_hook(lambda module, args, output: caught.append(output))
            states(family, backbone, batch)
            handle.remove()
        return caught[0]

    assert torch.allclose(query(dora, bias), query(dora) + 0.5, atol=1e-12)


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_each_kind_of_attention_can_have_its_own(family: str) -> None:
    backbone, batch = backbone_of(family), inputs(family)
    kinds = [
        Modification(Prefix(), Place.parse(f"attn.heads@{kind}"), Parallel(), Gated(), width)
        for kind, width in (("enc_self", 2), ("dec_self", 3), ("cross", 4))
    ]
    apart = Configuration(tuple(kinds))
    assert len(apart.within(backbone.shapes).modifications) == 3
    assert apart.within(backbone.shapes).within(backbone.shapes) == apart.within(backbone.shapes)
    same = Configuration(tuple(m.with_width(2) for m in kinds))
    everywhere = Modification(Prefix(), Place.parse("attn.heads"), Parallel(), Gated(), 2)
    assert same.tuned_parameters(backbone.shapes) == everywhere.parameters(backbone.shapes)
    with torch.no_grad(), attach(backbone, apart) as attachment:
        perturb(attachment.tensors)
        before = states(family, backbone, batch)
        for parameter in attachment.tensors.values():
            kept = parameter.clone()
            parameter.mul_(0.5)
            assert not torch.allclose(states(family, backbone, batch), before, atol=1e-7)
            parameter.copy_(kept)
