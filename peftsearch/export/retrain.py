"""Training a recipe from scratch, outside any study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftsearch.backbone.loading.language import Tokenizers
from peftsearch.design.configuration import Configuration
from peftsearch.export.native import write_native
from peftsearch.export.package import Package
from peftsearch.export.recipe import Recipe
from peftsearch.export.recipe_task import open_recipe
from peftsearch.task.metrics.base import Metric
from peftsearch.task.split import Split
from peftsearch.task.task import Task
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.bench import Workbench, set_threads
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.choose import scale_of_values
from peftsearch.training.tensor_file import as_bytes

__all__ = ["retrain"]


def retrain(
    recipe: Recipe,
    out: Path | None,
    threads: int,
    device: str,
    open_test: bool,
    notify: Callable[[str], None],
    task: Task | None = None,
) -> dict[str, Any]:
    """Train, evaluate and write the model to `out` (native format); returns the measurements.
    `task`: the recipe's data, if they were read.
    """
    task = task or open_recipe(recipe, out, device, open_test)
    set_threads(threads)
    parsed = recipe.parsed()
    prompts = any(m.form.name == "prompt" for m in parsed.modifications)
    bench = Workbench.prepare(
        *(recipe.model, recipe.task, device, recipe.max_length, prompts, notify),
        tokenizers=Tokenizers(recipe.tokenizer, recipe.target_tokenizer, recipe.task.languages),
        precision=parsed.training.precision,
        task=task,
    ).for_training(parsed.training)
    configuration = parsed.within(bench.backbone.shapes)
    metric = bench.task.metric
    notify(bench.task.sizes)
    notify(f"training {configuration.describe()}")
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, configuration),
        *(recipe.budget(), recipe.seed),
        low_rungs=recipe.low_rungs,
    ) as run:
        for rung, step in run.rungs:
            run.train_to(step)
            limit = None if step == run.full_steps else recipe.rung_examples
            value = _measured(run, bench.validation, bench.task.validation, metric, limit)
            notify(f"step {step} ({recipe.rungs[rung]:.0%}): {metric.name} {metric.format(value)}")
        outcome: dict[str, Any] = {f"validation_{metric.name}": value}
        if open_test:
            outcome[f"test_{metric.name}"] = _test(run, bench)
        if out is not None:
            package = _package(recipe, configuration, bench, value)
            write_native(out, package, as_bytes(run.adapter(), {}))
            outcome["written"] = str(out)
    return outcome


def _measured(
    run: TrainingRun, data: Encoded, split: Split, metric: Metric, limit: int | None = None
) -> float:
    evaluation = run.evaluate(data, limit, predict=metric.of != "loss")
    return metric.value(*evaluation.pair(metric, split.targets))


def _test(run: TrainingRun, bench: Workbench) -> float:
    split = bench.task.test()
    assert split is not None  # refused before
    return _measured(run, bench.encode(split), split, bench.task.metric)


def _package(
    recipe: Recipe, configuration: Configuration, bench: Workbench, value: float
) -> Package:
    shapes = bench.backbone.shapes
    return Package.of(
        *(configuration, bench.task.spec),
        model=recipe.model,
        model_fingerprint=bench.backbone.fingerprint,
        labels=bench.task.labels,
        max_length=bench.max_length,
        max_target=bench.lengths.target or None,
        task=bench.task.name,
        metric=bench.task.metric.name,
        validation_metric=value,
        tuned_parameters=configuration.tuned_parameters(shapes),
        tuned_pct=configuration.tuned_pct(shapes),
        origin=f"a recipe, seed {recipe.seed}",
        kind=bench.task.kind.name,
        value_scale=scale_of_values(bench.objective),
        reading=bench.task.reading,
        tokenizer=recipe.tokenizer,
        target_tokenizer=recipe.target_tokenizer,
    )
