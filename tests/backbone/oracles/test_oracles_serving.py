"""A configuration counts as merged if, and only if, weights of the stock model compute the same.

The oracle knows nothing of any form: it takes the tensors that the tuned model has in place, fits
every linear layer to what the tuned model makes of its inputs, by least squares, and compares the
stock model that has these weights on texts that it was not fitted to.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, wrap
from peftsearch.design.composition import Add, Composition, Scaled, SigmoidGate, TanhGate
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Form, Linear
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.serving import why_not_merged
from support.backbones import perturb
from support.stock import ENCODER_DECODERS, VOCABULARY, backbone, outputs, twin

FAMILIES = ("bert", "gpt2", "t5-gated", "qwen2", "phi3")
"""With biases everywhere; fused, with biases; without any; with some; fused, without any."""
SAME, OTHER = 1e-6, 1e-3
"""Of states whose largest is at least 1: rounding of a least-squares solution in fp64, and less
than any modification with perturbed tensors changes.
"""


def texts(name: str, seed: int, count: int = 40) -> dict[str, Tensor]:
    """Many tokens, so that a layer of 48 inputs cannot be fitted to what is no linear function."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCABULARY, (count, 12), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name in ENCODER_DECODERS:
        inputs["decoder_input_ids"] = torch.randint(5, VOCABULARY, (count, 9), generator=generator)
    return inputs


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


def observed(
    ours: Backbone, inputs: dict[str, Tensor]
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Last states, and inputs and outputs of every linear layer, with all that is attached."""
    seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
    handles = []
    for name, module in linear_layers(ours.model).items():
        reads, gives = seen.setdefault(name, ([], []))

        def before(_: Any, args: Any, kept: list[Tensor] = reads) -> None:
            kept.append(args[0].flatten(0, -2))

        def after(_: Any, args: Any, output: Tensor, kept: list[Tensor] = gives) -> None:
            kept.append(output.flatten(0, -2))

        handles.append(module.register_forward_pre_hook(before, prepend=True))
        handles.append(module.register_forward_hook(after))
    try:
        states = outputs(ours.model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return states, {n: (torch.cat(x), torch.cat(y)) for n, (x, y) in seen.items() if x}


@torch.no_grad()
def fit(module: nn.Module, x: Tensor, y: Tensor) -> None:
    """Change a linear layer as little as makes y [n, d_out] of x [n, d_in]."""
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    matrix = weight if isinstance(module, Conv1D) else weight.T
    if bias is not None:
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
        matrix = torch.cat([matrix, bias[None]])
    moved = matrix + torch.linalg.lstsq(x, y - x @ matrix, driver="gelsd").solution
    if bias is not None:
        moved, new_bias = moved[:-1], moved[-1]
        bias.copy_(new_bias)
    weight.copy_(moved if isinstance(module, Conv1D) else moved.T)


def apart(name: str, configuration: Configuration) -> float:
    """The largest difference between tuned states and those of the best stock model."""
    ours, merged = backbone(name), wrap(twin(name), name)
    with attach(ours, configuration) as attachment:
        perturb(attachment.tensors)
        _, layers = observed(ours, texts(name, 2))
        tuned = outputs(ours.model, texts(name, 3, 4))
        with torch.no_grad():
            for path, module in merged.model.named_modules():
                there = ours.model.get_submodule(path)
                for key, parameter in module.named_parameters(recurse=False):
                    parameter.copy_(getattr(there, key))
    for path, (x, y) in layers.items():
        fit(merged.model.get_submodule(path), x, y)
    states = outputs(merged.model, texts(name, 3, 4))
    if states.shape != tuned.shape:
        return float("inf")
    return float((tuned - states).abs().max() / tuned.abs().max().clamp(min=1))


def at(
    form: Form,
    place: str,
    composition: Composition = Add(),
    insertion: Insertion = Parallel(),
    width: int | None = 3,
) -> Configuration:
    return Configuration((Modification(form, Place.parse(place), insertion, composition, width),))


BESIDE = {
    "linear after the ffn": at(Linear(), "ffn.out", Scaled(2), Sequential()),
    "linear after the ffn, with biases": at(Linear(bias=True), "ffn.out", Add(), Sequential()),
    "LoRA with biases": at(Linear(bias=True), "attn.query"),
    "LoRA with biases on both": at(
        Linear(bias=True), "attn.query+out", insertion=Parallel("projection_input")
    ),
    "LoRA with a learned scale": at(Linear(), "ffn.hidden", Scaled("learned")),
    "LoRA behind a tanh gate": at(Linear("bert"), "ffn.hidden", TanhGate()),
    "LoRA behind a gate a token": at(Linear(), "attn.query", SigmoidGate()),
    "linear over attention": at(Linear(), "attn.heads"),
    "linear over the ffn": at(Linear(), "ffn.out"),
    "linear after the sum": at(Linear(), "residual.ffn", insertion=Sequential()),
    "added biases of queries": at(Constant(), "attn.query", width=None),
}
WITHOUT_BIASES = {(n, case) for n in ("t5-gated", "phi3") for case in ("bitfit", "bitfit-all")}
CASES = {name: method.configuration() for name, method in METHODS.items()} | BESIDE


@pytest.mark.parametrize(
    ("name", "case"),
    [(n, case) for n in FAMILIES for case in CASES if (n, case) not in WITHOUT_BIASES],
)
def test_what_counts_as_merged_is_the_stock_model_with_other_weights(name: str, case: str) -> None:
    shapes = backbone(name).shapes
    configuration = CASES[case].within(shapes)
    found = apart(name, configuration)
    if why_not_merged(configuration, shapes) is None:
        assert found <= SAME
    else:
        assert found >= OTHER


def test_both_answers_are_given_for_added_biases() -> None:
    """A layer without a bias has no tensor to take one."""
    added = METHODS["added-biases"].configuration()
    assert why_not_merged(added, backbone("bert").shapes) is None
    reason = why_not_merged(added, backbone("qwen2").shapes)
    assert reason is not None
    assert reason.endswith("adds biases to layers that have none")
