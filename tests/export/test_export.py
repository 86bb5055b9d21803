"""Carrying a point away: equal logits natively and through peft, recipes that read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError, DataError, MissingError, SpaceError
from peftsearch.export.native import load, write_native
from peftsearch.export.package import Package
from peftsearch.export.peft.write import write_peft
from peftsearch.export.recipe import Recipe
from peftsearch.task.spec import TaskSpec
from peftsearch.training.model import TunedModel
from support.backbones import perturb
from support.rounding import apart_in_fp32

TEXTS = ["the film was good", "a bad and terribly long evening with friends", "no"]


@pytest.fixture(scope="module")
def backbone(tiny_bert: Path) -> Backbone:
    return load_backbone(str(tiny_bert))


def tensors_of(backbone: Backbone, configuration: Configuration) -> dict[str, torch.Tensor]:
    with TunedModel(backbone, configuration, 2) as model:
        perturb(model.parameters)
        return {name: p.detach().clone() for name, p in model.stored().items()}


def package(backbone: Backbone, configuration: Configuration) -> Package:
    return Package(
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        model=backbone.name,
        model_fingerprint=backbone.fingerprint,
        labels=("negative", "positive"),
        max_length=64,
        task="a | task <b>",
        metric="accuracy",
        tuned_parameters=configuration.tuned_parameters(backbone.shapes),
        tuned_pct=configuration.tuned_pct(backbone.shapes),
    )


def logits(
    backbone: Backbone, configuration: Configuration, tensors: dict[str, torch.Tensor]
) -> torch.Tensor:
    batch = backbone.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad(), TunedModel(backbone, configuration, 2, finished=True) as model:
        model.load(tensors)
        return model(batch["input_ids"], batch["attention_mask"])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("head", [Head("mean"), Head("first", "trained")])
def test_a_native_export_loads_to_the_same_logits(
    name: str, head: Head, backbone: Backbone, tmp_path: Path
) -> None:
    configuration = METHODS[name].configuration(head)
    tensors = tensors_of(backbone, configuration)
    write_native(tmp_path / "out", package(backbone, configuration), save(tensors))
    loaded = load(tmp_path / "out")
    ours = logits(backbone, configuration, tensors)
    assert apart_in_fp32(loaded.logits(TEXTS), ours) <= 1
    assert loaded.predict(TEXTS) == [loaded.labels[i] for i in ours.argmax(-1).tolist()]
    assert loaded.predict([]) == []


def test_an_export_refuses_another_backbone(
    backbone: Backbone, tiny_roberta: Path, tmp_path: Path
) -> None:
    configuration = METHODS["lora"].configuration()
    write_native(
        tmp_path, package(backbone, configuration), save(tensors_of(backbone, configuration))
    )
    with pytest.raises(MissingError, match="is not the backbone this export was trained on"):
        load(tmp_path, model=str(tiny_roberta))


def test_a_damaged_or_foreign_export_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    configuration = METHODS["lora"].configuration()
    tensors = tensors_of(backbone, configuration)
    write_native(tmp_path, package(backbone, configuration), save(tensors)[:-9])
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load(tmp_path)
    written = (tmp_path / "configuration.json").read_text()
    (tmp_path / "configuration.json").write_text(written.replace('"s": 2.0', '"s": 3.0'))
    (tmp_path / "adapter.safetensors").write_bytes(save(tensors))
    with pytest.raises(DataError, match="was edited"):
        load(tmp_path)
    (tmp_path / "configuration.json").write_text(written)
    other = tensors_of(backbone, METHODS["bitfit"].configuration())
    (tmp_path / "adapter.safetensors").write_bytes(save(other))
    with pytest.raises(ConfigurationError, match="do not belong to this configuration"):
        load(tmp_path)
    (tmp_path / "configuration.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match="not an export of peftsearch"):
        load(tmp_path)


def test_nothing_is_pickled(backbone: Backbone, tmp_path: Path) -> None:
    configuration = METHODS["lora"].configuration()
    tensors = tensors_of(backbone, configuration)
    write_native(tmp_path / "n", package(backbone, configuration), save(tensors))
    write_peft(tmp_path / "p", package(backbone, configuration), tensors, backbone)
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {Path(name).suffix for name in names} == {".json", ".safetensors", ".md"}
    assert json.loads((tmp_path / "p/adapter_config.json").read_text())["peft_type"] == "LORA"


def recipe() -> Recipe:
    return Recipe(
        schema=1,
        model="m",
        task=TaskSpec(name="demo:tweets"),
        epochs=2,
        configuration=METHODS["mam"].configuration().to_json(),
    )


def test_a_recipe_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe().to_yaml())
    again = Recipe.read(path)
    assert again == recipe()
    assert again.parsed() == METHODS["mam"].configuration()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("epochs:", "epoch:", r"recipe.yaml:\d+: epoch: unknown key; did you mean 'epochs'"),
        ("name: relu", "name: relo", r"recipe.yaml:\d+: configuration: form 'relo' unknown"),
        ("epochs: 2.0", "epochs: -1", r"recipe.yaml:\d+: epochs: "),
        ("model: m", "modle: m", r"recipe.yaml:\d+: modle: unknown key; did you mean 'model'"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_line(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    text = recipe().to_yaml()
    assert old in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SpaceError, match=sentence):
        Recipe.read(path)
