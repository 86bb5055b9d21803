"""The peft format: the code of its model card, run as it stands, gives the searched logits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from peftsearch.backbone.load import Backbone, load_backbone
from peftsearch.design.composition import Add, Composition, Scaled
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.form import Linear, Relu
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import UsageError
from peftsearch.export.peft import why_not_peft, write_peft
from peftsearch.training.model import TunedModel
from support.backbones import perturb
from support.exports import package

PROJECTION = Parallel("projection_input")
TEXT = "a text"


def lora(
    place: str,
    insertion: Insertion = Parallel(),
    composition: Composition = Add(),
    width: int | tuple[int, ...] = 2,
    layers: tuple[int, ...] | None = None,
) -> Modification:
    return Modification(
        Linear(), Place(Place.parse(place).names, layers), insertion, composition, width
    )


EVERY_LINEAR = (
    lora("attn.query+key+value+out", PROJECTION, Scaled(2), 3),
    lora("ffn.hidden+out", PROJECTION, Scaled(0.5), 5),
)
POINTS = {
    "q+v": (lora("attn.query+value", composition=Scaled(2), width=4),),
    "q+v, plain addition": (lora("attn.query+value", width=4),),
    "ffn": (lora("ffn.hidden+out", PROJECTION, Scaled(4), 3),),
    "ffn, plain addition, a width a layer": (lora("ffn.hidden+out", PROJECTION, width=(1, 6)),),
    "output projection": (lora("attn.out", PROJECTION, Scaled(3)),),
    "two ranks and scales": EVERY_LINEAR,
}


def of_card(folder: Path) -> torch.Tensor:
    """The logits that the model card's code computes for `a text`."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(code.replace("this folder", str(folder)), names)
    logits: torch.Tensor = names["logits"]
    return logits


def exported(folder: Path, backbone: Backbone, configuration: Configuration) -> torch.Tensor:
    """Writes a perturbed configuration; its logits."""
    tokens = backbone.tokenizer([TEXT], return_tensors="pt")
    with torch.no_grad(), TunedModel(backbone, configuration, 2) as model:
        perturb(model.parameters)
        tensors = {name: p.detach().clone() for name, p in model.stored().items()}
        logits = model(tokens["input_ids"], tokens["attention_mask"])
    write_peft(folder, package(backbone, configuration), tensors, backbone.family)
    return logits


@pytest.mark.parametrize("head", [Head("mean"), Head("first", "trained")], ids=str)
@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_the_cards_code_gives_the_searched_logits(
    family: str, name: str, head: Head, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backbone = load_backbone(str(request.getfixturevalue(family)))
    ours = exported(tmp_path, backbone, Configuration(POINTS[name], head))
    assert (of_card(tmp_path) - ours).abs().max() <= 1e-5


def test_layers_of_two_digits_are_not_taken_for_one_another(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """peft shortens long lists of modules, and reads rank patterns as regular expressions."""
    tokenizer = load_backbone(str(tiny_bert)).tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=12,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(tmp_path / "deep")
    tokenizer.save_pretrained(tmp_path / "deep")
    backbone = load_backbone(str(tmp_path / "deep"))
    layers = (0, 1, 4, 10, 11)
    modifications = (
        lora("attn.query+key+value+out", PROJECTION, Scaled(2), (1, 2, 3, 1, 5), layers),
        lora("ffn.hidden+out", PROJECTION, Scaled(0.5), (4, 3, 2, 1, 1), layers),
    )
    ours = exported(tmp_path / "out", backbone, Configuration(modifications))
    assert (of_card(tmp_path / "out") - ours).abs().max() <= 1e-5


def test_ranks_scales_and_shapes_are_written_as_peft_reads_them(
    tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = load_backbone(str(tiny_bert))
    exported(tmp_path, backbone, Configuration(EVERY_LINEAR))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(config["target_modules"]) == 12
    for module in config["target_modules"]:
        a = tensors[f"base_model.model.{module}.lora_A.weight"]
        b = tensors[f"base_model.model.{module}.lora_B.weight"]
        linear = backbone.model.get_submodule(module)
        is_ffn = "intermediate" in module or "attention" not in module
        rank, scale = (5, 0.5) if is_ffn else (3, 2.0)
        assert a.shape == (rank, linear.in_features)
        assert b.shape == (linear.out_features, rank)
        assert config["rank_pattern"].get(module, config["r"]) == rank
        assert config["alpha_pattern"].get(module, config["lora_alpha"]) == scale * rank
    assert len(tensors) == 24


@pytest.mark.parametrize(
    ("modification", "reason"),
    [
        (lora("attn.query", composition=Scaled("learned")), "learned scales, LoRA's are fixed"),
        (lora("attn.heads"), "does not stand beside one linear layer"),
        (lora("ffn.out"), "does not stand beside one linear layer"),
        (lora("ffn.out", Sequential()), "does not stand beside one linear layer"),
        (
            Modification(Linear(bias=True), Place.parse("attn.query"), width=2),
            "has biases, LoRA has none",
        ),
        (Modification(Relu(), Place.parse("ffn.out"), width=2), "is not LoRA"),
    ],
)
def test_what_is_no_lora_says_why_and_writes_nothing(
    modification: Modification, reason: str, tiny_bert: Path, tmp_path: Path
) -> None:
    configuration = Configuration((modification, lora("attn.value")))
    assert reason in str(why_not_peft(configuration))
    with pytest.raises(UsageError, match=rf"{reason}.*use --to native"):
        exported(tmp_path / "out", load_backbone(str(tiny_bert)), configuration)
    assert not (tmp_path / "out").exists()
