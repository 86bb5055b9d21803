"""Plain LoRA: what is said of a configuration is what its peft export holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from peftsearch.design.composition import Add, Composition, Dora, RankStabilised, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Linear
from peftsearch.design.insertion import Parallel
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.serving import why_not_plain_lora
from peftsearch.errors import ConfigurationError
from peftsearch.export.peft.write import why_not_peft, write_peft
from peftsearch.training.model import TunedModel
from support.backbones import perturb
from support.exports import package
from support.families import backbone_of

pytestmark = pytest.mark.internals

PROJECTION = Parallel("projection_input")


def lora(place: str, composition: Composition, width: int | tuple[int, ...]) -> Modification:
    insertion = PROJECTION if "out" in place else Parallel()
    return Modification(Linear(), Place.parse(place), insertion, composition, width)


POINTS = {name: method.modifications for name, method in METHODS.items()} | {
    "two ranks and scales": (
        lora("attn.query+key+value+out", Scaled(2), 3),
        lora("ffn.hidden+out", Scaled(0.5), 5),
    ),
    "a scale a layer": (lora("attn.query+value", RankStabilised(6.0), (2, 5)),),
    "two scales in one fused layer": (
        lora("attn.query", Scaled(2), 3),
        lora("attn.value", Add(), 2),
    ),
    "a learned scale": (lora("attn.query+value", Scaled("learned"), 2), lora("ffn.out", Add(), 1)),
    "DoRA beside LoRA": (lora("attn.query", Dora(2.0), 2), lora("attn.value", Scaled(2), 2)),
    "biases beside LoRA": (
        Modification(Constant(), Place.parse("biases")),
        lora("attn.query", Scaled(2), 2),
    ),
}


def is_served_by_vllm(folder: Path) -> bool:
    """Whether a server that knows `lora_A`, `lora_B` and one alpha / r computes what peft does."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    if config["peft_type"] != "LORA" or config["use_dora"] or config["bias"] != "none":
        return False
    if not all(name.endswith(("lora_A.weight", "lora_B.weight")) for name in tensors):
        return False
    scales = {
        config["alpha_pattern"].get(module, config["lora_alpha"])
        / config["rank_pattern"].get(module, config["r"])
        for module in config["target_modules"]
    }
    return max(abs(s - config["lora_alpha"] / config["r"]) for s in scales) < 1e-12


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_what_counts_as_plain_lora_is_exported_as_such(name: str, tmp_path: Path) -> None:
    backbone = backbone_of(name)
    plain = set()
    for point, modifications in POINTS.items():
        try:
            configuration = Configuration(modifications).within(backbone.shapes)
        except ConfigurationError:  # BitFit on a family without biases
            continue
        says_plain = why_not_plain_lora(configuration) is None
        if why_not_peft(configuration, backbone.family) is not None:
            assert not says_plain, point
            continue
        with torch.no_grad(), TunedModel(backbone, configuration, 2) as model:
            perturb(model.parameters)
            tensors = {n: p.detach().clone() for n, p in model.stored().items()}
        write_peft(tmp_path / point, package(backbone, configuration), tensors, backbone)
        assert is_served_by_vllm(tmp_path / point) == says_plain, point
        plain |= {point} if says_plain else set()
    assert plain == {
        *("lora", "lora-ffn", "lora-all", "rslora", "pissa", "lora-plus"),
        *("two ranks and scales", "a scale a layer", "a learned scale"),
        "two scales in one fused layer",
    }
