"""The last layer for one token a text: that token ends the same, whatever is attached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.measure import stack_layers
from peftsearch.backbone.savings.last_tokens import LastTokens
from peftsearch.design.composition import TanhGate
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Relu
from peftsearch.design.insertion import Parallel
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.families import TINY, backbone_of, inputs
from support.matrix import refusal
from support.perturbed import attached, distance, norm
from support.points import POINT_NAMES

pytestmark = pytest.mark.internals


def last_states(
    name: str, backbone: Backbone, rows: LastTokens | None, where: Tensor | None
) -> Tensor:
    """(texts, d): of the tokens at `where`."""
    batch = inputs(name)
    options = {} if TINY[name].kind == "encoder" else {"use_cache": False}
    if rows is not None:
        rows.set_positions(where)
    states: Tensor = backbone.model(**batch, **options).last_hidden_state
    if rows is not None:
        return rows.select(states)[:, 0]
    return states[torch.arange(3), torch.zeros(3, dtype=torch.long) if where is None else where]


def gradients(states: Tensor, tuned: dict[str, torch.nn.Parameter]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
    found = torch.autograd.grad((states * weights).sum(), list(tuned.values()), allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g for p, g in zip(tuned.values(), found, strict=True)
    ]


@contextmanager
def on(backbone: Backbone) -> Iterator[LastTokens]:
    rows = LastTokens(backbone)
    try:
        yield rows
    finally:
        rows.detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_states_and_gradients_are_those_of_the_whole_layer(name: str) -> None:
    backbone = backbone_of(name)
    # Left-padded texts (decoders') have their tokens on the right.
    where = torch.tensor([8, 7, 8]) if TINY[name].kind == "decoder" else torch.tensor([4, 3, 2])
    for method in POINT_NAMES:
        if "prompt" in method or refusal(name, method) is not None:
            continue
        with attached(backbone, method) as attachment:
            attachment.begin_step(0)
            for place in (None, where) if TINY[name].kind != "decoder" else (where,):
                attachment.begin_step(0)
                whole = last_states(name, backbone, None, place)
                expected = gradients(whole, attachment.tensors)
                attachment.begin_step(0)
                with on(backbone) as rows:
                    found = last_states(name, backbone, rows, place)
                    own = gradients(found, attachment.tensors)
                assert distance(found.detach(), whole.detach()) < 1e-10, method
                off = max(distance(o, e) for o, e in zip(own, expected, strict=True))
                # Gemma's norms compute in fp32, whatever the model does.
                assert off < 1e-7 * max(1, *(norm(e) for e in expected)), method


def tanh_gated_heads() -> Configuration:
    """A bottleneck beside the heads that reads the sub-layer's input, under a gate a head."""
    place = Place.parse("attn.heads")
    return Configuration((Modification(Relu("bert"), place, Parallel(), TanhGate(), width=4),))


@pytest.mark.parametrize("name", ["bert", "llama", "gpt2", "gemma2"])
def test_what_was_read_before_is_read_for_that_token_too(name: str) -> None:
    """x captured at the sub-layer's entrance, for a gate that splits heads."""
    backbone = backbone_of(name)
    where = torch.tensor([8, 7, 8]) if TINY[name].kind == "decoder" else torch.tensor([4, 3, 2])
    with attach(backbone, tanh_gated_heads(), seed=1) as attachment:
        perturb(attachment.tensors)
        whole = last_states(name, backbone, None, where)
        with on(backbone) as rows:
            found = last_states(name, backbone, rows, where)
    assert distance(found.detach(), whole.detach()) < 1e-10
    assert distance(whole.detach(), last_states(name, backbone, None, where).detach()) > 1e-3


@pytest.mark.parametrize("method", ["unipelt", "parallel-adapter-attn", "pa-pa", "residual-attn"])
@pytest.mark.parametrize("name", ["bert", "bart", "llama", "gemma2"])
def test_no_method_brings_the_other_tokens_back(name: str, method: str) -> None:
    """The attention's output layer is given one token a text, whatever is attached before it."""
    backbone = backbone_of(name)
    stack = backbone.family.stacks[-1]
    layer = list(stack_layers(backbone.model, stack))[-1]
    out = layer.get_submodule(stack.attention.out)
    seen: list[int] = []
    with attached(backbone, method), on(backbone) as rows, torch.no_grad():
        hook = out.register_forward_hook(lambda m, args, output: seen.append(output.shape[1]))
        last_states(name, backbone, rows, None)
        hook.remove()
    assert seen == [1]


@pytest.mark.parametrize("name", TINY)
def test_the_ffn_of_the_last_layer_reads_one_token_a_text(name: str) -> None:
    backbone = backbone_of(name)
    stack = backbone.family.stacks[-1]
    shapes: list[tuple[int, ...]] = []
    layer = list(stack_layers(backbone.model, stack))[-1]
    hook = layer.get_submodule(stack.ffn.out).register_forward_hook(
        lambda module, args, output: shapes.append(tuple(output.shape))
    )
    with on(backbone) as rows, torch.no_grad():
        last_states(name, backbone, rows, None)
    hook.remove()
    # OPT's ffn reads the tokens of all texts as one row, and computes them all.
    assert shapes[0][:-1] == (27,) if name == "opt" else shapes[0][:-1] in ((3, 1), (3,))
    with torch.no_grad():
        last_states(name, backbone, None, None)
    assert len(shapes) == 1, "detached, it leaves nothing behind"
