"""Adapters beside a model, or in its place: plain weights are loaded, or one sentence refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from peft import IA3Config, LNTuningConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from peftsearch.backbone.loading.load import family_for, load_backbone, load_shapes
from peftsearch.backbone.loading.source import refuse_missing_model
from peftsearch.errors import MissingError
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench

pytestmark = [
    pytest.mark.internals,
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # peft, at every norm
]

KINDS: dict[str, Any] = {
    "LoRA on queries": LoraConfig(r=2, target_modules=["query"], init_lora_weights=False),
    "LoRA on words": LoraConfig(r=2, target_modules=["word_embeddings"], init_lora_weights=False),
    "a copy of a layer": LoraConfig(target_modules=["query"], modules_to_save=["intermediate"]),
    "(IA)³": IA3Config(
        target_modules=["value", "output.dense"],
        feedforward_modules=["output.dense"],
        init_ia3_weights=False,
    ),
    "norm tuning": LNTuningConfig(target_modules=["LayerNorm"]),
}
ADAPTERHUB = {
    "config": {"reduction_factor": 16},
    "model_class": "BertModel",
    "model_name": "bert-base-uncased",
    "name": "sst-2",
}


def beside(model: Path, config: Any, folder: Path, auto: Any = AutoModel) -> Path:
    """A copy of a model's folder with an adapter in it, as trainers save it."""
    shutil.copytree(model, folder)
    get_peft_model(auto.from_pretrained(model), config).save_pretrained(folder)
    assert (folder / "adapter_config.json").is_file()
    return folder


def alone(model: Path, folder: Path) -> Path:
    config = LoraConfig(target_modules=["query"])
    get_peft_model(AutoModel.from_pretrained(model), config).save_pretrained(folder)
    return folder


def in_hub(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have a folder stand in the Hub's cache."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    repository, revision = cache / f"models--{name.replace('/', '--')}", "a" * 40
    shutil.copytree(folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)


def assert_plain(name: str, model: Path, writes: bool = False) -> None:
    """Weights, shapes, sites and outputs are those of the model without an adapter."""
    found, plain = (load_backbone(n, writes=writes) for n in (name, str(model)))
    assert (found.fingerprint, found.shapes) == (plain.fingerprint, plain.shapes)
    whole, expected = (b.lm or b.model for b in (found, plain))
    tensors = dict(expected.named_parameters())
    assert dict(whole.named_parameters()).keys() == tensors.keys()
    assert all(torch.equal(p, tensors[n]) for n, p in whole.named_parameters())
    assert f"model '{name}': the adapter next to its weights" in found.note
    assert plain.note == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_beside_an_adapter_is_its_plain_weights(
    kind: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = beside(tiny_bert, KINDS[kind], tmp_path / "both")
    assert_plain(str(folder), tiny_bert)
    assert load_shapes(str(folder)) == load_shapes(str(tiny_bert))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "auto"),
    [("tiny_llama", AutoModelForCausalLM), ("tiny_bart", AutoModelForSeq2SeqLM)],
)
def test_so_is_a_language_model(
    model: str, auto: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    plain: Path = request.getfixturevalue(model)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    assert_plain(str(beside(plain, config, tmp_path / "both", auto)), plain, writes=True)


@pytest.mark.slow
@pytest.mark.parametrize("content", [json.dumps(ADAPTERHUB), "{", "[]", ""])
def test_a_file_that_peft_cannot_read_does_not_matter(
    content: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "both"))
    (folder / "adapter_config.json").write_text(content)
    (folder / "pytorch_adapter.bin").write_bytes(b"\x80\x02")
    assert_plain(str(folder), tiny_bert)


def test_adapters_in_folders_of_their_own_are_nobodys_business(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    for name in ("default", "checkpoint-500", "no_adapter"):
        alone(tiny_bert, folder / name)
    backbone = load_backbone(str(folder))
    assert backbone.fingerprint == load_backbone(str(tiny_bert)).fingerprint
    assert backbone.note == ""


def test_a_model_of_the_hub_beside_an_adapter_is_its_plain_weights(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = beside(tiny_bert, KINDS["LoRA on words"], tmp_path / "both")
    in_hub(folder, "someone/model", monkeypatch, tmp_path)
    assert_plain("someone/model", tiny_bert)


def test_who_prepares_a_search_is_told_that_the_adapter_is_not_used(
    tiny_bert: Path, tiny_sentiment_csv: Path, tmp_path: Path
) -> None:
    folder = beside(tiny_bert, KINDS["norm tuning"], tmp_path / "both")
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    said: list[str] = []
    Workbench.prepare(str(folder), spec, notify=said.append)
    assert [line for line in said if "(adapter_config.json) is not used" in line]


# -- an adapter in a model's place -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attempt", [load_backbone, load_shapes, family_for])
def test_an_adapter_given_as_a_model_says_whose_it_is(
    attempt: Callable[[str], object], tiny_bert: Path, tmp_path: Path
) -> None:
    folder = alone(tiny_bert, tmp_path / "adapter")
    with pytest.raises(MissingError, match=f"is an adapter of '{tiny_bert}'.*not a model: give '"):
        attempt(str(folder))


def test_so_does_one_of_the_hub(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub(alone(tiny_bert, tmp_path / "adapter"), "someone/adapter", monkeypatch, tmp_path)
    for attempt in (load_backbone, load_shapes):
        with pytest.raises(MissingError, match=f"'someone/adapter' is an adapter of '{tiny_bert}'"):
            attempt("someone/adapter")


def test_so_does_one_with_the_models_config_and_tokenizer_but_no_weights(
    tiny_bert: Path, tmp_path: Path
) -> None:
    folder = beside(tiny_bert, KINDS["LoRA on queries"], tmp_path / "both")
    (folder / "model.safetensors").unlink()
    for attempt in (refuse_missing_model, load_backbone):
        with pytest.raises(MissingError, match=f"is an adapter of '{tiny_bert}'"):
            attempt(str(folder))
    torch.save({}, folder / "pytorch_model.bin")
    for attempt in (refuse_missing_model, load_backbone):
        with pytest.raises(MissingError, match="peftsearch does not load pickled"):
            attempt(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["model.safetensors", "model-00001-of-00002.safetensors"])
def test_a_model_with_weights_of_its_own_is_not_refused_for_the_adapter_beside_it(
    weights: str, tiny_bert: Path, tmp_path: Path
) -> None:
    folder = beside(tiny_bert, KINDS["LoRA on queries"], tmp_path / "both")
    (folder / "model.safetensors").rename(folder / weights)
    refuse_missing_model(str(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (json.dumps(ADAPTERHUB), "is an adapter of 'bert-base-uncased' "),
        ("{", r"is an adapter \(adapter_config.json\) and not a model: give the model that it was"),
        ("[1]", "is an adapter "),
        ('{"base_model_name_or_path": null}', "give the model that it was made for"),
        ('{"base_model_name_or_path": "a\\nb"}', "is an adapter of 'a b'"),
        ('{"base_model_name_or_path": ["a"]}', "give the model that it was made for"),
        ("\x80", "is an adapter "),
    ],
)
def test_so_do_adapters_of_other_kinds_and_broken_ones(
    content: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(content, encoding="latin-1")
    with pytest.raises(MissingError, match=sentence) as caught:
        load_backbone(str(tmp_path))
    assert "\n" not in str(caught.value)


# -- an adapter's tensors among a model's ------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_a_checkpoint_of_a_wrapped_model_is_refused(
    prefix: str, tiny_bert: Path, tmp_path: Path
) -> None:
    """A Trainer that does not know peft's wrapper saves its state as the model's."""
    wrapped = get_peft_model(AutoModel.from_pretrained(tiny_bert), KINDS["LoRA on queries"])
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "wrapped"))
    state = {
        prefix + name.removeprefix("base_model.model."): t.clone()
        for name, t in wrapped.state_dict().items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MissingError, match=r"saved with an adapter in it \(.*base_layer"):
        load_backbone(str(folder))


def test_tensors_of_an_adapter_beside_whole_weights_are_left_out_and_told(
    tiny_bert: Path, tmp_path: Path
) -> None:
    """loralib keeps `weight` where it was and puts `lora_A` beside it."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.attention.self.query.lora_A"] = torch.ones(2, 32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert_plain(str(folder), tiny_bert)
