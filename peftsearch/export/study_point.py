"""Exporting a point of a study: choosing the trial and collecting its files.

Checks come before the import of torch, which takes seconds.
"""

from __future__ import annotations

from pathlib import Path

from peftsearch.backbone.loading.source import absolute_source
from peftsearch.design.configuration import Configuration
from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import ConfigurationError, UsageError
from peftsearch.export.out_folder import refuse_taken_out
from peftsearch.export.package import Package
from peftsearch.export.recipe import Recipe
from peftsearch.frontier.choose import choose
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyInfo, StudyRecord, TrialResult
from peftsearch.records.task_spec import task_of
from peftsearch.task.spec import ReadColumns

__all__ = ["export_point"]


def export_point(folder: StudyFolder, at: str, to: str, out: Path) -> TrialResult:
    """Export the point `at` of a study: `to` is native, recipe or peft."""
    refuse_taken_out(out, to)
    record = folder.read()
    result = _chosen(record, at)
    configuration = _configuration(folder, result)
    if to == "recipe":
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, _recipe(folder, record.info, result).to_yaml())
        return result
    from peftsearch.study.storage.database.copies import fetch_adapter  # with Optuna

    fetch_adapter(folder, result.number)
    adapter = folder.trial(result.number).adapter_path
    if not adapter.is_file():
        raise UsageError(f"{adapter} is missing: export a recipe and train it again")
    package = _package(record.info, result, configuration)
    if to == "native":
        from peftsearch.export.native import write_native

        write_native(out, package, adapter.read_bytes())
    else:
        _to_peft(out, package, adapter, result)
    return result


def _to_peft(out: Path, package: Package, adapter: Path, result: TrialResult) -> None:
    from peftsearch.backbone.loading.load import family_for
    from peftsearch.export.native import backbone_of
    from peftsearch.export.peft.write import refuse_without_peft, write_peft
    from peftsearch.training.tensor_file import load_tensors

    try:  # before the weights are loaded, which takes longer
        refuse_without_peft(
            Configuration.from_json(package.configuration), family_for(package.model)
        )
    except UsageError as error:
        raise UsageError(f"trial {result.number} {error}") from error
    tensors, _ = load_tensors(adapter)
    write_peft(out, package, tensors, backbone_of(package))


def _chosen(record: StudyRecord, at: str) -> TrialResult:
    """Any full-length trial by number, or a point of the frontier."""
    by_number = {result.number: result for result in record.results}
    number = at.removeprefix("#")
    if at.startswith("#") and number.isdecimal() and int(number) in by_number:
        result = by_number[int(number)]
        if result.state == "duplicate" and result.same_as is not None:
            result = by_number[result.same_as]
        if result.state != "full":
            raise UsageError(
                f"trial {number} did not reach full length ({result.state}): it has no weights to "
                "export; see: peftsearch frontier"
            )
        return result
    point = choose(record.front, at, record.info.metric.maximise)
    return by_number[point.number]


def _configuration(folder: StudyFolder, result: TrialResult) -> Configuration:
    try:
        return Configuration.from_json(result.configuration or {})
    except ConfigurationError as error:
        path = folder.trial(result.number).result_path
        raise UsageError(f"{path}: damaged ({error}); restore it from a copy") from error


def _package(info: StudyInfo, result: TrialResult, configuration: Configuration) -> Package:
    spec = task_of(info)
    length = min(configuration.training.max_length, info.max_length) or info.max_length
    return Package.of(
        *(configuration, spec),
        configuration=result.configuration,
        configuration_hash=result.configuration_hash,
        description=result.description,
        model=info.model,
        model_fingerprint=result.model_fingerprint or info.model_fingerprint,
        labels=info.labels,
        max_length=length,
        task=info.task_name,
        metric=info.metric.name,
        validation_metric=result.metric,
        tuned_parameters=result.tuned_parameters,
        tuned_pct=result.tuned_pct,
        origin=f"study {info.name}, trial {result.number}",
        kind=info.kind,
        value_scale=info.value_scale,
        template=spec.template if info.reading is None else info.text_template,
        reading=info.reading or ReadColumns(),
        tokenizer=info.tokenizer,
        target_tokenizer=info.target_tokenizer,
    )


def _recipe(folder: StudyFolder, info: StudyInfo, result: TrialResult) -> Recipe:
    from peftsearch.study.settings import budget_of, space_of
    from peftsearch.task.sources.absolute_paths import with_absolute_paths

    budget = budget_of(space_of(folder, info), info)
    return Recipe(
        description=result.description,
        model=absolute_source(info.model),
        task=with_absolute_paths(task_of(info)),
        epochs=budget.epochs,
        max_steps=budget.max_steps,
        rungs=budget.rungs,
        rung_examples=budget.rung_examples,
        max_length=info.max_length,
        seed=info.seed,
        tokenizer=absolute_source(info.tokenizer),
        target_tokenizer=absolute_source(info.target_tokenizer),
        low_rungs=info.low_rungs,
        configuration=result.configuration or {},
    )
