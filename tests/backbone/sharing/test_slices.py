"""Several configurations in one forward: each gets what it would get alone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach import site_hooks
from peftsearch.backbone.attach.attachment import Attachment
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.last_tokens import LastTokens
from peftsearch.backbone.sharing.slices import Member, Slices, why_not_shared
from support.families import TINY, backbone_of, inputs, states
from support.matrix import refusal
from support.perturbed import attached, distance, norm
from support.points import POINT_NAMES, point

EVERY_METHOD = ("bert", "bart", "llama")
"""Families that meet every method here; the others one of each way into a module."""
WAYS = (
    *("lora", "mam", "houlsby", "pfeiffer", "bitfit", "ia3", "dora", "unipelt", "loreft"),
    *("ungated-prefix", "residual-stream", "residual-attn", "cross-attention", "prefix-mlp"),
)


def possible(name: str) -> list[str]:
    """The points that a family can take and that may share a forward."""
    backbone = backbone_of(name)
    return [
        m
        for m in (POINT_NAMES if name in EVERY_METHOD else WAYS)
        if refusal(name, m) is None and why_not_shared(backbone, point(m, backbone.shapes)) is None
    ]


def weighted(output: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return (output * weights).sum()


def gradients(loss: Tensor, attachment: Attachment) -> list[Tensor]:
    tuned = list(attachment.tensors.values())
    found = torch.autograd.grad(loss, tuned, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(tuned, found, strict=True)]


def alone(name: str, method: str) -> tuple[Tensor, list[Tensor]]:
    """States (tokens, d) and gradients with one method attached."""
    backbone = backbone_of(name)
    with attached(backbone, method) as attachment:
        attachment.begin_step(0)
        output = states(name, backbone, inputs(name))
        return output.detach(), gradients(weighted(output), attachment)


def as_member(backbone: Backbone, member: Member) -> Backbone:
    return replace(backbone, hooks=member)


@pytest.mark.parametrize("name", TINY)
def test_states_and_gradients_are_those_alone(name: str) -> None:
    """Every method beside LoRA and beside rows that nothing is attached to."""
    backbone = backbone_of(name)
    plain = states(name, backbone, inputs(name)).detach()
    lora, lora_gradients = alone(name, "lora")
    batch = {key: torch.cat([value] * 3) for key, value in inputs(name).items()}
    for method in possible(name):
        expected, expected_gradients = alone(name, method)
        slices = Slices()
        first, second, third = (slices.member() for _ in range(3))
        with (
            attached(as_member(backbone, first), method) as one,
            attached(as_member(backbone, third), "lora") as other,
            slices.sharing([(first, 3), (second, 3), (third, 3)]),
        ):
            output = states(name, backbone, batch)
            own, nothing, others = output.chunk(3)
            found = gradients(weighted(own), one), gradients(weighted(others), other)
        assert distance(own.detach(), expected) < 1e-10, method
        assert distance(nothing.detach(), plain) < 1e-10, method
        assert distance(others.detach(), lora) < 1e-10, method
        for got, wanted in zip(found, (expected_gradients, lora_gradients), strict=True):
            off = max(distance(g, w) for g, w in zip(got, wanted, strict=True))
            assert off < 1e-7 * max(1, *(norm(w) for w in wanted)), method
    assert distance(states(name, backbone, inputs(name)).detach(), plain) == 0, "all detached"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "bart", "gpt2", "llama", "opt", "t5", "modernbert"])
def test_members_of_one_kind_are_computed_side_by_side(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of each method with other values, of which two are neighbours."""
    backbone = backbone_of(name)
    together: list[int] = []
    inner = site_hooks.modify_together
    monkeypatch.setattr(
        site_hooks,
        "modify_together",
        lambda several, x, h: together.append(len(several)) or inner(several, x, h),
    )
    batch = {key: torch.cat([value] * 3) for key, value in inputs(name).items()}
    for method in (
        "lora",
        "mam",
        "houlsby",
        "dora",
        "vera",
        "compacter",
        "loreft",
        "swiglu-adapter",
    ):
        if refusal(name, method) is not None:
            continue
        noises = (0.1, 0.2, 0.3)
        expected = []
        for noise in noises:
            with attached(backbone, method, noise) as one:
                output = states(name, backbone, inputs(name))
                expected.append((output.detach(), gradients(weighted(output), one)))
        slices = Slices()
        members = [slices.member() for _ in noises]
        with ExitStack() as held:
            ones = [
                held.enter_context(attached(as_member(backbone, member), method, noise))
                for member, noise in zip(members, noises, strict=True)
            ]
            held.enter_context(slices.sharing([(member, 3) for member in members]))
            parts = states(name, backbone, batch).chunk(3)
            found = [gradients(weighted(own), one) for own, one in zip(parts, ones, strict=True)]
        for own, got, (states_alone, wanted) in zip(parts, found, expected, strict=True):
            assert distance(own.detach(), states_alone) < 1e-10, method
            off = max(distance(g, w) for g, w in zip(got, wanted, strict=True))
            assert off < 1e-7 * max(1, *(norm(w) for w in wanted)), method
    assert set(together) == {3}


def test_members_of_other_kinds_or_other_numbers_of_texts_are_computed_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone, slices = backbone_of("bert"), Slices()
    together: list[int] = []
    inner = site_hooks.modify_together
    monkeypatch.setattr(
        site_hooks,
        "modify_together",
        lambda several, x, h: together.append(len(several)) or inner(several, x, h),
    )
    texts = {key: torch.cat([value] * 3)[:8] for key, value in inputs("bert").items()}
    members = [slices.member() for _ in range(3)]
    with ExitStack() as held:
        for member, method in zip(members, ("lora", "lora", "dora"), strict=True):
            held.enter_context(attached(as_member(backbone, member), method))
        with slices.sharing([(members[0], 3), (members[1], 2), (members[2], 3)]):
            states("bert", backbone, texts)
        assert together == []
        with slices.sharing([(members[0], 4), (members[1], 4)]):
            states("bert", backbone, texts)
        sites = 2 * backbone.shapes.layers
        assert together == [2] * sites


@pytest.mark.parametrize("name", TINY)
def test_members_that_were_added_later_and_left_earlier_are_forgotten(name: str) -> None:
    backbone, slices = backbone_of(name), Slices()
    methods = possible(name)[:6]
    expected = [alone(name, method)[0] for method in methods]
    before = sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.model.modules()
    )
    held = [attached(as_member(backbone, slices.member()), method) for method in methods]
    attachments = [one.__enter__() for one in held]
    assert len(attachments) == len(methods)
    for index in (3, 0, 5, 1, 4, 2):  # alone among the others, then gone
        if index < len(held):
            member = held[index].gen.gi_frame.f_locals["backbone"].hooks  # type: ignore[attr-defined]
            with member.alone(), torch.no_grad():
                assert distance(states(name, backbone, inputs(name)), expected[index]) < 1e-10
            held[index].__exit__(None, None, None)
    after = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.model.modules())
    assert after == before
    assert not any("forward" in vars(module) for module in backbone.model.modules())


def one_row(name: str, backbone: Backbone, batch: dict[str, Tensor], where: Tensor) -> Tensor:
    """States (texts, d) of the tokens at `where`, the last layer computed for them alone."""
    options = {} if TINY[name].kind == "encoder" else {"use_cache": False}
    rows = LastTokens(backbone)
    rows.set_positions(where)
    try:
        found: Tensor = rows.select(backbone.model(**batch, **options).last_hidden_state)[:, 0]
        return found
    finally:
        rows.detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_one_row_a_text_is_selected_before_rows_are_split(name: str) -> None:
    """Of every method beside LoRA, each with other tokens that are wanted."""
    backbone = backbone_of(name)
    left = TINY[name].kind == "decoder"
    wheres = torch.tensor([[8, 8, 7], [7, 8, 8]] if left else [[0, 2, 1], [4, 0, 2]])
    batch = {key: torch.cat([value] * 2) for key, value in inputs(name).items()}
    with attached(backbone, "lora"), torch.no_grad():
        lora = one_row(name, backbone, inputs(name), wheres[1])
    for method in possible(name):
        with attached(backbone, method), torch.no_grad():
            expected = one_row(name, backbone, inputs(name), wheres[0])
        slices = Slices()
        one, other = slices.member(), slices.member()
        with (
            attached(as_member(backbone, one), method),
            attached(as_member(backbone, other), "lora"),
            slices.sharing([(one, 3), (other, 3)]),
            torch.no_grad(),
        ):
            found, beside = one_row(name, backbone, batch, wheres.flatten()).split(3)
        assert distance(found, expected) < 1e-10, method
        assert distance(beside, lora) < 1e-10, method


@pytest.mark.parametrize(
    ("family", "method", "why"),
    [
        ("bert", "prompt", "longer than the others'"),
        ("bert", "full", "nothing would be shared"),
        ("bert", "diff-pruning", "nothing would be shared"),
        ("deberta-v2", "lora", "relative positions for all texts at once"),
    ],
)
def test_what_cannot_share_a_forward_says_why(family: str, method: str, why: str) -> None:
    backbone = backbone_of(family)
    assert why in str(why_not_shared(backbone, point(method, backbone.shapes)))
    if family == "bert":
        assert len(possible(family)) == len(POINT_NAMES) - 5, "prompts, and changes of every weight"


def test_rows_that_belong_to_nobody_are_refused() -> None:
    slices = Slices()
    members = slices.member(), slices.member()
    with slices.sharing([(members[0], 2), (members[1], 3)]):
        assert [rows for _, rows in slices.spans(10)] == [slice(0, 4), slice(4, 10)]
        with pytest.raises(ValueError, match="7 rows cannot be shared among 5 texts"):
            slices.spans(7)
