"""Recipes: YAML both ways, mistakes with file and line, and a training that repeats itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import peftsearch
from peftsearch.design.configuration import Configuration, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import SpaceError, UsageError
from peftsearch.export.recipe import Recipe
from peftsearch.export.retrain import retrain
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task
from peftsearch.training.bench import Workbench
from support.strategies import configurations


def recipe(configuration: Configuration, task: TaskSpec | None = None, model: str = "m") -> Recipe:
    return Recipe(
        schema=1,
        model=model,
        task=task or TaskSpec(name="demo:tweets"),
        max_steps=6,
        configuration=configuration.to_json(),
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(configuration=configurations())
def test_any_configuration_reads_back_from_yaml_equal_with_an_equal_hash(
    configuration: Configuration, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe(configuration).to_yaml(), encoding="utf-8")
    again = Recipe.read(path).parsed()
    assert again == configuration
    assert again.hash == configuration.hash


def test_a_recipe_of_local_files_with_two_texts_reads_back_equal(tmp_path: Path) -> None:
    task = TaskSpec(train="a b/∥.csv", eval="e.tsv", text=("one", "two"), label="no", split_seed=3)
    written = recipe(METHODS["lora"].configuration(), task, model="1e5")
    (tmp_path / "r.yaml").write_text(written.to_yaml(), encoding="utf-8")
    assert Recipe.read(tmp_path / "r.yaml") == written


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("max_steps: 6", "max_steps: 6\nepochs: 1", "give epochs or max_steps"),
        ("max_steps: 6\n", "", "give epochs or max_steps"),
        ("max_steps: 6", "max_steps: six", "max_steps: "),
        ("schema: 1", "schema: 2", "schema: "),
        ("name: demo:tweets", "nmae: demo:tweets", "did you mean 'name'"),
        ("width: 8", "width: wide", "width wide is below 1"),
        ("width: 8", "width: 8\n    width: 9", "duplicate key"),
        ("head_lr: 0.001", "head_lr: fast", "head_lr fast is not between"),
        ("linear: 0.001", "linear: '1e-3'", "lr of linear 1e-3 is not between"),
        ("pooling: mean", "pooling: [mean]", "pooling"),
        ("layers:", "layers: upper", "layers must be a list, or null"),
        ("at: attn.query+value", "at: 3", "place '3' unknown"),
        ("rungs: [0.25, 1.0]", "rungs: [1.0, 0.25]", "must rise"),
        ("model: m", "model: [m", "recipe.yaml:"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_line(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    text = recipe(METHODS["lora"].configuration()).to_yaml()
    assert old in text
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpaceError, match=r"recipe.yaml:\d+: ") as caught:
        Recipe.read(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"\xff\xfe", b"a: !!python/object:x {}\n"])
def test_what_is_no_recipe_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(SpaceError, match=r"recipe.yaml"):
        Recipe.read(tmp_path / "recipe.yaml")
    with pytest.raises(SpaceError, match="cannot be read"):
        Recipe.read(tmp_path / "nothing.yaml")


def test_a_recipe_trained_twice_writes_the_same_bytes_that_predict_what_was_measured(
    tiny_bert: Path, tiny_sentiment_csv: Path, tmp_path: Path
) -> None:
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    training = Training(batch_size=16, head_lr=1e-2)
    asked = recipe(METHODS["mam"].configuration(training=training), task, str(tiny_bert))
    said: list[str] = []
    outcomes = [
        retrain(asked, tmp_path / name, 1, "cpu", open_test=False, notify=said.append)
        for name in ("first", "second")
    ]
    first, second = (tmp_path / name / "adapter.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert outcomes[0]["validation_accuracy"] == outcomes[1]["validation_accuracy"]
    validation = Workbench.prepare(str(tiny_bert), task).task.validation
    loaded = peftsearch.load(tmp_path / "first")
    predicted = loaded.predict(validation.texts)
    right = [loaded.labels[i] == p for i, p in zip(validation.targets, predicted, strict=True)]
    assert sum(right) / len(right) == outcomes[0]["validation_accuracy"]
    assert any("training prefix@attn.heads" in line for line in said)
    stated = json.loads((tmp_path / "first/configuration.json").read_text())
    assert stated["configuration_hash"] == asked.parsed().hash


def test_the_test_split_is_opened_only_when_asked(
    tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    asked = recipe(METHODS["head-only-mean"].configuration(), task, str(tiny_bert))
    closed = retrain(asked, None, 1, "cpu", open_test=False, notify=lambda _: None)
    opened = retrain(asked, None, 1, "cpu", open_test=True, notify=lambda _: None)
    assert not any(key.startswith("test_") for key in closed)
    assert 0 <= opened["test_accuracy"] <= 1


def test_a_task_without_a_test_split_says_so(
    tiny_bert: Path, tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Task, "test", lambda self: None)
    task = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    asked = recipe(METHODS["head-only-mean"].configuration(), task, str(tiny_bert))
    with pytest.raises(UsageError, match="has no labelled test split"):
        retrain(asked, None, 1, "cpu", open_test=True, notify=lambda _: None)


def test_a_recipe_of_an_earlier_version_guesses_columns_as_that_did(tmp_path: Path) -> None:
    written = {"model": "m", "task": {"train": "d.jsonl"}, "max_steps": 1, "configuration": {}}
    assert Recipe.model_validate(written).task.guesses == 1
    now = Recipe.model_validate(written | {"task": TaskSpec(train="d.jsonl").to_file()})
    assert now.task == TaskSpec(train="d.jsonl")
