"""Language models exported to peft: a whole model wrapped by peft gives our logits."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from peftsearch.backbone.attach import attach
from peftsearch.backbone.load import Backbone, shapes_of, wrap
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.export.package import Package
from peftsearch.export.peft import write_peft
from support.families import lm_inputs, tiny_lm

CASES = [
    *(("bart", method) for method in ("lora", "ia3", "bitfit", "dora", "vera")),
    *(("t5", method) for method in ("lora", "ia3")),
    *(("gpt2", method) for method in ("lora", "prompt", "bitfit")),
    *(("llama", method) for method in ("lora", "ia3", "prompt", "dora", "vera")),
    ("opt", "lora"),
    ("gpt_neox", "prompt"),
]


def whole(family: str) -> Backbone:
    lm = copy.deepcopy(tiny_lm(family))
    return replace(wrap(lm.base_model, family), lm=lm, shapes=shapes_of(lm.config))


def package(family: str, configuration: Configuration) -> Package:
    return Package(
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        model=family,
        model_fingerprint="",
        labels=(),
        max_length=8,
        task="headlines",
        metric="rouge2",
        tuned_parameters=1,
        tuned_pct=1.0,
        kind="seq2seq",
        max_target=8,
    )


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_language_model_in_peft_gives_the_logits_of_ours(
    family: str, method: str, tmp_path: Path
) -> None:
    backbone = whole(family)
    configuration = METHODS[method].configuration(Head("none")).within(backbone.shapes)
    batch = lm_inputs(family)
    if backbone.family.is_encoder_decoder:
        batch["decoder_input_ids"] = torch.arange(5, 20).view(3, 5)
    with attach(backbone, configuration, 0) as attachment, torch.no_grad():
        for parameter in attachment.tensors.values():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
            parameter.add_(0.1 * noise)
        ours = backbone.lm(**batch).logits
        tensors = {f"tuned/{n}": t.clone() for n, t in attachment.stored().items()}
    write_peft(tmp_path, package(family, configuration), tensors, backbone)
    assert not (tmp_path / "head.safetensors").exists()
    model = PeftModel.from_pretrained(copy.deepcopy(tiny_lm(family)), tmp_path).double()
    with torch.no_grad():
        theirs = model.eval()(**batch).logits[:, -ours.shape[1] :]
        untuned = tiny_lm(family)(**batch).logits
    real = slice(None) if backbone.family.is_encoder_decoder else batch["attention_mask"].bool()
    # In fp64, of an adapter that is written in fp32.
    assert (ours - theirs)[real].abs().max() < 1e-5 * theirs.abs().max().clamp(min=1)
    assert (ours - untuned)[real].abs().max() > 1e-2
