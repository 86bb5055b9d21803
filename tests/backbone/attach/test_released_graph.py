"""After a pass nothing holds its autograd graph: a CUDA graph is captured on a stream of its own,
where a node of an earlier pass would not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attachment import Attachment
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.sharing.slices import Slices, why_not_shared
from support.families import TINY, backbone_of, inputs
from support.graph_nodes import AccumulateNodes, tensors_with_nodes
from support.matrix import refusal
from support.perturbed import attached, backward
from support.points import POINT_NAMES, point

FAMILIES = ("bert", "bart", "llama", "gpt2")
"""Post-norm and pre-norm, cross-attention, gated ffn; in GPT-2 some of a fused bias is tuned."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def attached_to(family: str, method: str, dtype: torch.dtype, shared: bool) -> Iterator[Attachment]:
    """A method attached to the whole backbone or, if `shared`, as its only member."""
    backbone = backbone_of(family, dtype)
    slices = Slices()
    member = slices.member()
    own = replace(backbone, hooks=member) if shared else backbone
    with attached(own, method) as attachment:
        if not shared:
            yield attachment
            return
        with slices.sharing([(member, 3)]):
            yield attachment


def forward(family: str, backbone: Backbone) -> Tensor:
    options = {} if TINY[family].kind == "encoder" else {"use_cache": False}
    states: Tensor = backbone.model(**inputs(family), **options).last_hidden_state
    return states


def methods_of(family: str, shared: bool) -> list[str]:
    backbone = backbone_of(family)
    taken = [name for name in POINT_NAMES if refusal(family, name) is None]
    return [
        name
        for name in taken
        if not shared or why_not_shared(backbone, point(name, backbone.shapes)) is None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "member"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_pass_of_every_method_has_nodes_of_its_own(
    family: str, precision: str, shared: bool
) -> None:
    backbone = backbone_of(family, DTYPES[precision])
    left = {}
    for method in methods_of(family, shared):
        with attached_to(family, method, DTYPES[precision], shared) as attachment:
            nodes = AccumulateNodes(attachment.tensors)
            for _ in range(2):
                backward(family, backbone, attachment)
                attachment.forget_captured()
                if nodes.left:
                    left[method] = nodes.left
            assert nodes.ran, method
    assert left == {}


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "member"])
@pytest.mark.parametrize("precision", DTYPES)
def test_no_object_holds_a_tensor_of_a_pass(precision: str, shared: bool) -> None:
    backbone = backbone_of("bert", DTYPES[precision])
    before = tensors_with_nodes()
    for method in methods_of("bert", shared):
        with attached_to("bert", method, DTYPES[precision], shared) as attachment:
            backward("bert", backbone, attachment)
            attachment.forget_captured()
            assert tensors_with_nodes() <= before, method


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "member"])
@pytest.mark.parametrize("method", ["bitfit", "ln-tuning", "full", "diff-pruning"])
def test_released_tensors_are_computed_again_and_detached_ones_are_frozen(
    method: str, shared: bool
) -> None:
    if shared and method not in methods_of("bert", shared):
        pytest.skip("it cannot share a forward")
    backbone = backbone_of("bert", torch.bfloat16)
    frozen = dict(backbone.model.named_parameters())
    with torch.no_grad():
        untuned = forward("bert", backbone)
    with attached_to("bert", method, torch.bfloat16, shared) as attachment:
        with torch.no_grad():
            evaluated = forward("bert", backbone)
        backward("bert", backbone, attachment)
        attachment.forget_captured()
        with torch.no_grad():
            assert torch.equal(forward("bert", backbone), evaluated)
            assert not torch.equal(evaluated, untuned)
            for parameter in attachment.tensors.values():
                parameter.mul_(1.5)
            assert not torch.equal(forward("bert", backbone), evaluated), "a step is seen"
        backward("bert", backbone, attachment)
        attachment.forget_captured()
    attachment.forget_captured()
    assert all(frozen[name] is own for name, own in backbone.model.named_parameters())
    with torch.no_grad():
        assert torch.equal(forward("bert", backbone), untuned)


@pytest.mark.parametrize("method", ["bitfit", "ln-tuning"])
def test_a_pass_of_other_members_computes_nothing_of_a_member_without_texts(method: str) -> None:
    """Only the members of a pass are released after it."""
    backbone, slices = backbone_of("bert", torch.bfloat16), Slices()
    waiting, other = slices.member(), slices.member()
    with (
        attached(replace(backbone, hooks=waiting), method) as attachment,
        attached(replace(backbone, hooks=other), "lora") as its,
    ):
        nodes = AccumulateNodes(attachment.tensors)
        with slices.sharing([(waiting, 3)]):
            backward("bert", backbone, attachment)
        attachment.forget_captured()
        with slices.sharing([(other, 3)]):
            backward("bert", backbone, its)
        its.forget_captured()
        assert nodes.ran
        held = [t for tensors in waiting.tensors.values() for t in tensors.values()]
        assert held
        assert all(tensor.grad_fn is None for tensor in held)
        assert nodes.left == []
