"""Shared forwards and backwards of every family can be recorded: nothing in them waits for a GPU or
comes from the host, and nothing but tensors differs from batch to batch.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.recognise import family_of
from peftsearch.backbone.sharing.slices import Slices, why_not_shared
from support.backbones import perturb
from support.emulated_graphs import EmulatedRecorder
from support.families import TINY, backbone_of, inputs, tiny_config
from support.graph_nodes import tensors_with_nodes
from support.matrix import refusal
from support.perturbed import attached
from support.points import point

EVERY_WAY = ("bert", "bart", "llama")
"""Families that meet each way into a module; the others those that differ most."""
WAYS = (
    *("lora", "mam", "dora", "unipelt", "residual-stream", "cross-attention", "prefix-mlp"),
    *("houlsby", "pfeiffer", "bitfit", "ia3", "loreft", "ungated-prefix", "residual-attn"),
)
FAMILY = {name: family_of(tiny_config(name)) for name in TINY}
SHARED = [
    name
    for name, family in FAMILY.items()
    if family.texts_are_independent and family.allows_cuda_graphs
]


def forget(tuned: dict[str, nn.Parameter]) -> None:
    """Gradients."""
    for parameter in tuned.values():
        parameter.grad = None


@pytest.mark.parametrize("name", SHARED)
def test_a_recorded_pass_is_that_of_other_texts_and_values(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())
    backbone = backbone_of(name)
    ways = [way for way in WAYS[: 14 if name in EVERY_WAY else 6] if refusal(name, way) is None]
    ways = [way for way in ways if why_not_shared(backbone, point(way, backbone.shapes)) is None]
    options = {} if TINY[name].kind == "encoder" else {"use_cache": False}
    slices = Slices()
    members = [slices.member() for _ in ways]
    texts = {key: torch.cat([value] * len(ways)) for key, value in inputs(name).items()}
    with ExitStack() as held:
        before, tuned = tensors_with_nodes(), dict[str, nn.Parameter]()
        attachments = []
        for way, member in zip(ways, members, strict=True):
            own = held.enter_context(attached(replace(backbone, hooks=member), way))
            attachments.append(own)
            tuned |= {f"{way}/{key}": value for key, value in own.tensors.items()}
        held.enter_context(slices.sharing([(member, 3) for member in members]))

        def computed() -> Tensor:
            output = backbone.model(**texts, **options).last_hidden_state
            if TINY[name].kind != "encoder-decoder":
                output = output * texts["attention_mask"].unsqueeze(-1)  # padding means nothing
            loss = (output * torch.linspace(-1, 1, output.shape[-1], dtype=output.dtype)).sum()
            loss.backward()
            for own in attachments:
                own.forget_captured()
            return loss.detach()

        computed()
        assert tensors_with_nodes() <= before, (
            "a node that is left keeps to the stream it was made on"
        )
        forget(tuned)
        graph = EmulatedRecorder().record(computed)
        recorded = {key: parameter.grad for key, parameter in tuned.items()}
        perturb(tuned)
        for value in texts.values():
            value.copy_(value.flip(0))
        graph.replay()
        forget(tuned)
        assert torch.equal(computed(), graph.output)
        for key, parameter in tuned.items():
            if recorded[key] is None or parameter.grad is None:
                assert recorded[key] is parameter.grad is None, key
                continue
            assert torch.equal(parameter.grad, recorded[key]), key
