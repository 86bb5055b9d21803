"""Language models exported to peft: a whole model wrapped by peft gives our logits."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import GenerationConfig

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, load_backbone, shapes_of, wrap
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.export.native import LoadedModel
from peftsearch.export.package import Package
from peftsearch.export.peft.write import write_peft
from peftsearch.task.spec import Generation
from peftsearch.training.model import TunedModel
from support.families import lm_inputs, tiny_lm

pytestmark = pytest.mark.internals

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


def package(family: str, configuration: Configuration, **changes: Any) -> Package:
    described = _package(family, configuration)
    return described.model_copy(update=changes)


def _package(family: str, configuration: Configuration) -> Package:
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


# -- the card ---------------------------------------------------------------------------------


def printed(card: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(code.replace("this folder", str(folder)), {})
    return capsys.readouterr().out.strip()


OWN = {"min_length": 9, "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "num_beams": 2}


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["tiny_bart", "tiny_llama"])
def test_the_cards_code_writes_what_we_write_whatever_the_models_own_settings(
    family: str,
    beams: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = load_backbone(str(request.getfixturevalue(family)), writes=True)
    source.lm.generation_config = GenerationConfig(**source.lm.generation_config.to_dict() | OWN)
    source.lm.save_pretrained(tmp_path / "m")
    source.tokenizer.save_pretrained(tmp_path / "m")
    backbone = load_backbone(str(tmp_path / "m"), writes=True)
    configuration = METHODS["lora"].configuration(Head("none")).within(backbone.shapes)
    asked = Generation(beams=beams, no_repeat_ngram=2, length_penalty=2.0 if beams > 1 else 1.0)
    described = package(
        backbone.name,
        configuration,
        max_length=16,
        generation=asked,
        model_fingerprint=backbone.fingerprint,
        configuration_hash=configuration.hash,
    )
    with TunedModel(backbone, configuration, 0) as model:
        for parameter in model.parameters.values():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
            parameter.data.add_(0.3 * noise)
        tensors = {name: p.detach().clone() for name, p in model.stored().items()}
        (ours,) = LoadedModel(described, model).predict(["a text"])
    write_peft(tmp_path / "out", described, tensors, backbone)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert printed(card, tmp_path / "out", capsys) == ours
    assert ours
