"""What `load` gives: one answer for one text, and a module that transformers' Trainer takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

import peftsearch
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.errors import UsageError
from peftsearch.export.native import LoadedModel, write_native
from peftsearch.training.model import TunedModel
from peftsearch.training.tensor_file import as_bytes
from support.backbones import perturb
from support.exports import package

TEXTS = ["the film was good", "a bad and terribly long evening with friends", "no"]


@pytest.fixture(scope="module")
def backbone(tiny_bert: Path) -> Backbone:
    return load_backbone(str(tiny_bert))


def export(
    folder: Path, backbone: Backbone, configuration: Configuration, **changes: Any
) -> LoadedModel:
    """A perturbed configuration, exported and loaded."""
    outputs = 0 if "texts" in changes.values() else 1 if "value_scale" in changes else 2
    with TunedModel(backbone, configuration, outputs) as model:
        perturb(model.parameters)
        tensors = {name: t.clone() for name, t in model.stored().items()}
    described = package(backbone, configuration).model_copy(update=changes)
    write_native(folder, described, as_bytes(tensors, {}))
    return peftsearch.load(folder)


@pytest.fixture
def loaded(backbone: Backbone, tmp_path: Path) -> LoadedModel:
    return export(tmp_path / "out", backbone, METHODS["lora"].configuration(Head("mean")))


# -- one text, one answer ----------------------------------------------------------------------


def test_one_string_gives_one_label_and_a_list_a_list(loaded: LoadedModel) -> None:
    several = loaded.predict(TEXTS)
    assert [loaded.predict(text) for text in TEXTS] == several
    assert loaded.predict(TEXTS[0]) in loaded.labels
    assert loaded.predict([TEXTS[0]]) == several[:1]
    assert loaded.predict(TEXTS[0], "the second") == loaded.predict(TEXTS[:1], ["the second"])[0]
    assert loaded.outputs(TEXTS[0]).shape == (2,)
    assert_close(loaded.outputs(TEXTS[0]), loaded.outputs(TEXTS)[0], atol=1e-5, rtol=1e-5)


def test_one_string_gives_one_number(tiny_roberta: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_roberta))
    configuration = METHODS["bitfit"].configuration(Head("first"))
    loaded = export(
        *(tmp_path, backbone, configuration), kind="regression", value_scale=(3.0, 2.0), labels=()
    )
    number = loaded.predict(TEXTS[0])
    assert isinstance(number, float)
    assert number == pytest.approx(loaded.predict(TEXTS)[0], rel=1e-5)


@pytest.mark.parametrize(
    "as_type", [tuple, np.array, pd.Series, iter, lambda texts: (t for t in texts)]
)
def test_texts_come_in_whatever_holds_them(as_type: Any, loaded: LoadedModel) -> None:
    assert loaded.predict(as_type(TEXTS)) == loaded.predict(TEXTS)
    assert loaded.predict(as_type([])) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((["a", None],), "text 2 is of type NoneType, not a string"),
        (([1.5],), "text 1 is of type float"),
        ((b"bytes",), "text 1 is of type int"),
        (([["a", "b"]],), "text 1 is of type list"),
        (("a", ["b"]), "pairs must be one text for one text, or a list"),
        ((["a"], "b"), "pairs must be one text for one text, or a list"),
        ((["a", "b"], ["c"]), "2 texts and 1 second text: give one each"),
        ((["a"], [3]), "a second text is of type int"),
    ],
)
def test_what_is_no_text_is_one_sentence(
    given: tuple[Any, ...], sentence: str, loaded: LoadedModel
) -> None:
    for ask in (loaded.predict, loaded.outputs):
        with pytest.raises(UsageError, match=sentence):
            ask(*given)


# -- a module ----------------------------------------------------------------------------------


def test_its_parameters_are_what_is_tuned_and_the_backbone_is_frozen(loaded: LoadedModel) -> None:
    assert isinstance(loaded, nn.Module)
    assert loaded.model is loaded
    assert not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())
    assert not any(p.requires_grad for p in loaded.backbone.model.parameters())
    counted = sum(p.numel() for p in loaded.adapter.parameters())
    assert counted == loaded.package.tuned_parameters
    head = {n for n, _ in loaded.named_parameters() if n.startswith("head.")}
    assert head == {"head.classifier.weight", "head.classifier.bias"}


@pytest.mark.parametrize("name", METHODS)
def test_its_forward_gives_the_logits_of_predict_and_its_state_can_be_loaded(
    name: str, backbone: Backbone, tmp_path: Path
) -> None:
    configuration = METHODS[name].configuration(Head("first", "trained"))
    loaded = export(tmp_path, backbone, configuration)
    batch = loaded.tokenizer(TEXTS, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = loaded(**batch).logits
        assert_close(logits, loaded.outputs(TEXTS), atol=1e-5, rtol=1e-5)
        state = {key: value.clone() for key, value in loaded.state_dict().items()}
        for parameter in loaded.parameters():
            parameter.zero_()
        assert not torch.allclose(loaded(**batch).logits, logits)
        loaded.load_state_dict(state)
        assert_close(loaded(**batch).logits, logits)


@pytest.mark.parametrize(
    "name", ["full", "bitfit", "diff-pruning", "prefix", "pissa", "vera", "mam"]
)
def test_cast_as_a_whole_it_gives_the_same_logits(
    name: str, backbone: Backbone, tmp_path: Path
) -> None:
    """As `cuda()` moves it: constants and stand-ins, which are no parameters, too."""
    loaded = export(tmp_path, backbone, METHODS[name].configuration(Head("mean")))
    batch = loaded.tokenizer(TEXTS, return_tensors="pt", padding=True)
    before = dict(loaded.named_parameters())
    assert loaded.to("cpu") is loaded
    assert dict(loaded.named_parameters()) == before
    with torch.no_grad():
        logits = loaded(**batch).logits
        assert loaded.double() is loaded
        assert {p.dtype for p in loaded.parameters()} == {torch.float64}
        assert_close(loaded(**batch).logits, logits.double(), atol=1e-4, rtol=1e-4)


def train(loaded: nn.Module, folder: Path, rows: list[dict[str, Any]], **options: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=len(rows),
        logging_steps=1,
        report_to=[],
        save_steps=1,
        disable_tqdm=True,
        use_cpu=True,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        **options,
    )
    trainer = Trainer(loaded, arguments, train_dataset=rows)  # type: ignore[arg-type]
    trainer.train()
    return trainer


def rows_of(loaded: LoadedModel, labels: list[Any]) -> list[dict[str, Any]]:
    batch = loaded.tokenizer(TEXTS, padding=True)
    return [{k: v[i] for k, v in batch.items()} | {"labels": labels[i]} for i in range(len(TEXTS))]


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "bitfit", "diff-pruning", "prefix-mlp"])
def test_two_steps_of_transformers_trainer_are_those_by_hand(
    name: str, backbone: Backbone, tmp_path: Path
) -> None:
    """The loss is a mean of cross-entropies of our logits; a step of SGD goes down its gradient."""
    configuration = METHODS[name].configuration(Head("first", "trained"))
    loaded, labels = export(tmp_path / "out", backbone, configuration), [0, 1, 1]
    with torch.no_grad():
        by_hand = cross_entropy(loaded.outputs(TEXTS), torch.tensor(labels))
    batch = loaded.tokenizer(TEXTS, return_tensors="pt", padding=True)
    loss = cross_entropy(loaded(**batch).logits, torch.tensor(labels))
    gradients = torch.autograd.grad(loss, list(loaded.parameters()))
    expected = [p - 1e-2 * g for p, g in zip(loaded.parameters(), gradients, strict=True)]
    frozen = {n: p.clone() for n, p in backbone.model.named_parameters()}
    trainer = train(
        *(loaded.model, tmp_path / "t", rows_of(loaded, labels)), optim="sgd", learning_rate=1e-2
    )
    assert losses(trainer)[0] == pytest.approx(by_hand.item(), abs=1e-4)
    first = load_file(tmp_path / "t/checkpoint-1/model.safetensors")
    names = [n for n, _ in loaded.named_parameters()]
    for key, wanted in zip(names, expected, strict=True):
        assert_close(first[key], wanted.detach(), atol=1e-5, rtol=1e-4)
    assert losses(trainer)[1] < losses(trainer)[0]
    assert set(first) == set(loaded.state_dict())
    assert all(torch.equal(p, frozen[n]) for n, p in backbone.model.named_parameters())


def test_what_is_trained_further_predicts_otherwise_and_is_saved_as_an_export(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    before = loaded.outputs(TEXTS)
    train(loaded, tmp_path / "t", rows_of(loaded, [0, 1, 0]), learning_rate=1e-2)
    after = loaded.outputs(TEXTS)
    assert not torch.allclose(before, after)
    loaded.save(tmp_path / "further")
    again = peftsearch.load(tmp_path / "further")
    assert_close(again.outputs(TEXTS), after)
    assert again.package.validation_metric is None
    with pytest.raises(UsageError, match="is a folder with other files in it"):
        loaded.save(tmp_path)


def test_what_is_saved_names_the_backbone_where_it_was_found(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path(shutil.copytree(tiny_bert, tmp_path / "old"))
    configuration = METHODS["lora"].configuration(Head("mean"))
    before = export(tmp_path / "out", load_backbone(str(old)), configuration).outputs(TEXTS)
    old.rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    peftsearch.load("out", model="new").save("again")
    monkeypatch.chdir(tmp_path.parent)
    again = peftsearch.load(tmp_path / "again")
    assert again.package.model == str(tmp_path / "new")
    assert torch.equal(again.outputs(TEXTS), before)


def test_numbers_are_trained_in_units_of_their_spread(tiny_roberta: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(tiny_roberta))
    configuration = METHODS["lora"].configuration(Head("first"))
    loaded = export(
        *(tmp_path / "out", backbone, configuration),
        kind="regression",
        value_scale=(100.0, 20.0),
        labels=(),
    )
    numbers = [80.0, 131.5, 100.0]
    with torch.no_grad():
        predicted = torch.tensor(loaded.predict(TEXTS))
    by_hand = (((predicted - torch.tensor(numbers)) / 20.0) ** 2).mean().item()
    batch = loaded.tokenizer(TEXTS, return_tensors="pt", padding=True)
    output = loaded(**batch, labels=torch.tensor(numbers))
    assert output.loss.item() == pytest.approx(by_hand, rel=1e-4)
    assert_close(output.logits[:, 0], predicted, atol=1e-3, rtol=1e-4)
    trainer = train(loaded, tmp_path / "t", rows_of(loaded, numbers), learning_rate=1e-2)
    assert losses(trainer)[0] == pytest.approx(by_hand, abs=1e-3)


def test_sets_of_labels_are_trained_a_label_each(backbone: Backbone, tmp_path: Path) -> None:
    configuration = METHODS["lora"].configuration(Head("mean"))
    loaded = export(tmp_path / "out", backbone, configuration, kind="multilabel")
    sets = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    chance, wanted = loaded.outputs(TEXTS).sigmoid(), torch.tensor(sets)
    by_hand = -(wanted * chance.log() + (1 - wanted) * (1 - chance).log()).mean().item()
    batch = loaded.tokenizer(TEXTS, return_tensors="pt", padding=True)
    assert loaded(**batch, labels=wanted).loss.item() == pytest.approx(by_hand, rel=1e-4)
    assert losses(train(loaded, tmp_path / "t", rows_of(loaded, sets)))[0] == pytest.approx(
        by_hand, abs=1e-4
    )
    one = loaded.predict(TEXTS[0])
    assert one == loaded.predict(TEXTS)[0]
    assert isinstance(one, list)


def test_scores_are_what_is_predicted_and_the_probability_of_each_label(
    backbone: Backbone, tmp_path: Path
) -> None:
    configuration = METHODS["lora"].configuration(Head("mean"))
    one = export(tmp_path / "one", backbone, configuration)
    outputs = one.outputs(TEXTS).double()
    predicted, shares = one.scores(TEXTS)
    assert predicted == one.predict(TEXTS)
    by_hand = outputs.exp() / outputs.exp().sum(-1, keepdim=True)
    assert [list(own) for own in shares] == [list(one.labels)] * 3
    found = torch.tensor([list(own.values()) for own in shares], dtype=torch.float64)
    assert_close(found, by_hand, atol=1e-6, rtol=1e-5)
    several = export(tmp_path / "several", backbone, configuration, kind="multilabel")
    sets, shares = several.scores(TEXTS)
    assert sets == [[label for label in own if own[label] > 0.5] for own in shares]
    assert sets == several.predict(TEXTS)
    by_hand = 1 / (1 + (-several.outputs(TEXTS).double()).exp())
    found = torch.tensor([list(own.values()) for own in shares], dtype=torch.float64)
    assert_close(found, by_hand, atol=1e-6, rtol=1e-5)
    assert several.scores([]) == ([], [])
    scale = {"kind": "regression", "value_scale": (0.0, 1.0), "labels": ()}
    with pytest.raises(UsageError, match="predicts numbers and has no probabilities"):
        export(tmp_path / "number", backbone, configuration, **scale).scores(TEXTS)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), [("tiny_bart", "seq2seq"), ("tiny_llama", "causal")])
def test_a_model_that_writes_is_trained_with_its_own_loss(
    model: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    plain = load_backbone(str(request.getfixturevalue(model)), writes=True)
    configuration = METHODS["lora"].configuration(Head("none"))
    with TunedModel(plain, configuration, 0) as tuned:
        perturb(tuned.parameters)
        tensors = {name: t.clone() for name, t in tuned.stored().items()}
    described = package(plain, configuration).model_copy(
        update={"kind": kind, "max_target": 4, "labels": ()}
    )
    write_native(tmp_path / "out", described, as_bytes(tensors, {}))
    loaded = peftsearch.load(tmp_path / "out")
    ids = torch.tensor([[0, 20, 21, 22, 23], [0, 30, 31, 32, 33]])
    wanted = ids.clone()
    wanted[:, :2] = -100
    output = loaded(input_ids=ids, labels=wanted)
    places = slice(0, -1) if kind == "causal" else slice(None)
    targets = wanted[:, 1:] if kind == "causal" else wanted
    by_hand = cross_entropy(output.logits[:, places].flatten(0, 1), targets.flatten())
    assert output.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    rows = [{"input_ids": i, "labels": w} for i, w in zip(ids, wanted, strict=True)]
    trainer = train(loaded, tmp_path / "t", rows, learning_rate=1e-2)
    assert losses(trainer)[1] < losses(trainer)[0]
    one = loaded.predict(TEXTS[0])
    assert isinstance(one, str)
    assert [one] == loaded.predict(TEXTS[:1])
