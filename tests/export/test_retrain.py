"""Retrained exports: what `train --to` writes loads, and is the model as it stood at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

import peftsearch
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from peftsearch.export import retrain as retraining
from peftsearch.export.native import LoadedModel
from peftsearch.export.recipe import Recipe
from peftsearch.export.retrain import retrain
from peftsearch.task.spec import TaskSpec
from peftsearch.training.loop import TrainingRun
from support.tiny import copying_rows, scored_rows, write_csv

TEXTS = ["the film was good", "a bad and terribly long evening with friends", "no"]


@dataclass
class Trained:
    """A model as it was trained, at its end."""

    outputs: Tensor | None = None


def outputs_of(model: Any, backbone: Any) -> Tensor:
    """The head's outputs, or the logits of a language model, for the same padded batch."""
    batch = backbone.tokenizer(TEXTS, return_tensors="pt", padding=True)
    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        if model.outputs:
            found: Tensor = model(**given)
            return found
        if backbone.family.is_encoder_decoder:
            given["decoder_input_ids"] = given["input_ids"][:, :5]
        logits: Tensor = backbone.lm(**given).logits
        return logits


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trained]:
    """Notes what the trained model gives before it is detached."""
    trained = Trained()

    class Watched(TrainingRun):
        def __exit__(self, *_: object) -> None:
            backbone = self.model.backbone
            backbone.tokenizer.pad_token = backbone.tokenizer.pad_token or "</s>"
            with self.average.swapped_in():
                trained.outputs = outputs_of(self.model, backbone)
            super().__exit__()

    with monkeypatch.context() as patched:
        patched.setattr(retraining, "TrainingRun", Watched)
        yield trained


def trained_and_loaded(
    recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor, LoadedModel]:
    """Outputs at the end of training, outputs of the export, and the export."""
    with watched(monkeypatch) as trained:
        retrain(recipe, out, 1, "cpu", open_test=False, notify=lambda _: None)
    loaded = peftsearch.load(out)
    backbone = loaded.backbone
    backbone.tokenizer.pad_token = backbone.tokenizer.pad_token or "</s>"
    assert trained.outputs is not None
    return trained.outputs, outputs_of(loaded.tuned, backbone), loaded


def recipe(configuration: Configuration, task: TaskSpec, model: Path, **more: Any) -> Recipe:
    return Recipe(
        schema=1,
        model=str(model),
        task=task,
        max_steps=3,
        rungs=(1.0,),
        configuration=configuration.to_json(),
        **more,
    )


TRAINING = Training(batch_size=16, head_lr=1e-2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_retrained_loads_to_the_logits_at_the_end_of_training(
    name: str,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label", eval_examples=20)
    asked = recipe(METHODS[name].configuration(training=TRAINING), task, tiny_bert)
    before, after, _ = trained_and_loaded(asked, tmp_path / "out", monkeypatch)
    assert_close(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefix-mlp", "diff-pruning", "mam", "full"])
@pytest.mark.parametrize(("model", "kind"), [("tiny_bart", "seq2seq"), ("tiny_llama", "causal")])
def test_so_does_a_model_that_writes(
    name: str,
    model: str,
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = write_csv(tmp_path / "rows.csv", copying_rows(40))
    task = TaskSpec(
        train=str(rows), text=("source",), label="answer", kind=kind, metric="loss", max_target=4
    )
    folder: Path = request.getfixturevalue(model)
    asked = recipe(METHODS[name].configuration(Head("none"), TRAINING), task, folder)
    before, after, loaded = trained_and_loaded(asked, tmp_path / "out", monkeypatch)
    assert_close(before, after)
    assert len(loaded.predict(TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("name", ["prefix-mlp", "diff-pruning"])
def test_so_does_a_model_that_predicts_numbers(
    name: str, tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_csv(tmp_path / "rows.csv", scored_rows(40))
    task = TaskSpec(train=str(rows), text=("text",), label="score", kind="regression")
    configuration = METHODS[name].configuration(Head("first", "trained"), TRAINING)
    before, after, loaded = trained_and_loaded(
        recipe(configuration, task, tiny_roberta, seed=4), tmp_path / "out", monkeypatch
    )
    assert_close(before, after)
    mean, spread = loaded.package.value_scale or (0.0, 0.0)
    predicted = torch.tensor(loaded.predict(TEXTS))
    assert torch.allclose(predicted, after[:, 0] * spread + mean)


@pytest.mark.parametrize("name", ["prefix-mlp", "diff-pruning"])
def test_in_half_precision_what_is_stored_is_what_was_evaluated(
    name: str,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label", eval_examples=20)
    training = Training(batch_size=16, head_lr=1e-2, precision="bf16", max_length=8)
    asked = recipe(METHODS[name].configuration(training=training), task, tiny_bert)
    before, after, loaded = trained_and_loaded(asked, tmp_path / "out", monkeypatch)
    assert loaded.package.max_length == 8
    assert_close(before, after)


@pytest.mark.parametrize("name", ["prefix-mlp", "diff-pruning"])
def test_an_export_with_tensors_as_they_are_trained_loads_to_what_they_mean(
    name: str,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Earlier versions wrote them so, and could not load them."""
    monkeypatch.setattr(TrainingRun, "adapter", lambda run: run.average.values)
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label", eval_examples=20)
    asked = recipe(METHODS[name].configuration(training=TRAINING), task, tiny_bert)
    before, after, loaded = trained_and_loaded(asked, tmp_path / "out", monkeypatch)
    assert_close(before, after)
    stored = loaded.package.tuned_parameters
    tensors = loaded.tuned.attachment.stored().values()
    assert sum(t.numel() for t in tensors if t.is_floating_point()) == stored


def test_an_export_with_a_tensor_too_many_or_too_few_is_refused(
    tiny_bert: Path, tiny_sentiment_csv: Path, tmp_path: Path
) -> None:
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label", eval_examples=20)
    asked = recipe(METHODS["prefix-mlp"].configuration(training=TRAINING), task, tiny_bert)
    retrain(asked, tmp_path, 1, "cpu", open_test=False, notify=lambda _: None)
    tensors = load_file(tmp_path / "adapter.safetensors")
    for changed in (dict(list(tensors.items())[1:]), tensors | {"tuned/0/mlp/down": torch.ones(2)}):
        save_file(changed, tmp_path / "adapter.safetensors")
        with pytest.raises(ConfigurationError, match="do not belong to this configuration"):
            peftsearch.load(tmp_path)
