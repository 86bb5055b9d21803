"""Turning the options of a search into its task, its new study and its limits.

Imports neither torch nor, before data are opened, pandas: invalid options fail at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.api.defaults import DEFAULTS
from peftsearch.api.options import Options, task_fields
from peftsearch.errors import UsageError
from peftsearch.wording import first_problem

if TYPE_CHECKING:
    from peftsearch.space.file.path_resolver import PathResolver
    from peftsearch.space.space import Space
    from peftsearch.study.new_study import NewStudy
    from peftsearch.task.spec import TaskSpec
    from peftsearch.workers.limits import Limits, WorkerSettings

__all__ = [
    *("default_name", "limits_of", "worker_settings", "new_study", "refuse_cohort_of_low_rungs"),
    *("seconds_of", "separator_of", "space_of", "task_spec"),
]


def separator_of(name: str) -> str | None:
    """The separator character for a name such as `tab`; UsageError if it is invalid."""
    return task_spec({"separator": name}).separator


def task_spec(options: Options, recommended: Mapping[str, Any] | None = None) -> TaskSpec:
    """The task as the user described it, completed by a space's recommendation; UsageError for
    values that are not allowed.
    """
    from pydantic import ValidationError

    from peftsearch.task.spec import TaskSpec

    fields = task_fields(options)
    whole = {
        **(recommended or {}),
        **fields,
        "split_seed": options.get("seed", DEFAULTS.seed),
    }
    if recommended and "generation" in recommended:  # an option sets beams alone: keep the rest
        whole["generation"] = {**recommended["generation"], **fields.get("generation", {})}
    try:
        return TaskSpec(**whole)
    except ValidationError as error:
        problem = first_problem(error)
        option = ".".join(map(str, problem.path)).replace("_", "-")
        raise UsageError(f"--{option}: {problem.message}") from error


def space_of(space: str | Space) -> Space:
    """The space, loaded first if given by name or path."""
    from peftsearch.space.space import load_space

    return load_space(space) if isinstance(space, str) else space


def default_name(space: Space, options: Options) -> str:
    """The default name of a study: the names of its space and its data, joined."""
    spec = task_spec(options, _recommended_task(space, options, whole=False))
    source = spec.name or Path(spec.train or "task").stem
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{space.name}-{source}")
    return name.strip("-.")[:100] or "study"


def _recommended_task(
    space: Space, options: Options, whole: bool = True
) -> Mapping[str, Any] | None:
    """The space's recommended task, None where the user names data; paths are whole, or as written
    in the space file.
    """
    recommended = space.file.recommended
    if recommended is None or "task" in options or "train" in options:
        return None
    files, task = _path_resolver(space), dict(recommended.task)
    for key in ("train", "eval", "test"):
        if whole and isinstance(task.get(key), str):
            task[key] = files.data(["recommended", "task", key], task[key])
    return task


def _recommended_model(space: Space) -> str | None:
    recommended = space.file.recommended
    if recommended is None:
        return None
    return _path_resolver(space).source(["recommended", "model"], recommended.model)


def _path_resolver(space: Space) -> PathResolver:
    """Resolves the paths in a space file: beside it, or in the working folder."""
    from peftsearch.space.file.path_resolver import PathResolver

    return PathResolver(space.document, Path(space.document.name).parent)


def new_study(options: Options) -> NewStudy:
    """The study that the options describe, with files as the user named them, unopened."""
    from peftsearch.api.storage import use_storage
    from peftsearch.records.storage_name import JOURNAL
    from peftsearch.study.new_study import NewStudy

    named = options.get("space", DEFAULTS.space)
    space = space_of(named)
    recommended = space.file.recommended
    model = options.get("model") or _recommended_model(space)
    if model is None:
        raise UsageError("no model: give --model NAME (a Hub name, a folder, or demo:minilm)")
    longest = options.get("max_length") or (recommended.max_length if recommended else None)
    return NewStudy(
        name=options["study"] if "study" in options else default_name(space, options),
        space=space,
        space_name=named if isinstance(named, str) else space.name,
        model=model,
        task=task_spec(options, _recommended_task(space, options)),
        seed=options.get("seed", DEFAULTS.seed),
        device=options.get("device", DEFAULTS.device),
        max_length=longest,
        rung_examples=options.get("eval_limit"),
        tokenizer=options.get("tokenizer"),
        target_tokenizer=options.get("target_tokenizer"),
        without=options.get("without", ()),
        low_rungs=options.get("low_rungs"),
        sampler=options.get("sampler", DEFAULTS.sampler),
        stopping="no_stopping" not in options,
        landmarks=options.get("landmarks"),
        storage=use_storage(options["storage"]) if "storage" in options else JOURNAL,
        artifacts=options.get("artifacts"),
    )


def seconds_of(minutes: float | None, hours: float | None) -> float | None:
    """The time limit in seconds; UsageError if both are given or one is not finite."""
    if minutes is not None and hours is not None:
        raise UsageError("give --minutes or --hours, not both")
    seconds = minutes * 60 if minutes is not None else hours * 3600 if hours is not None else None
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError("--minutes and --hours must be finite; leave both out for no limit")
    return seconds


def limits_of(options: Options, wait_for_others: bool) -> Limits:
    """When the search ends; `wait_for_others`: its workers stay while others of the study train."""
    from peftsearch.workers.limits import Limits

    seconds = seconds_of(options.get("minutes"), options.get("hours"))
    return Limits(options.get("trials"), seconds, wait_for_others)


def worker_settings(options: Options) -> WorkerSettings:
    """Threads, cohort and device of each worker."""
    from peftsearch.workers.limits import WorkerSettings

    threads = options.get("threads", DEFAULTS.threads)
    return WorkerSettings(threads, options.get("cohort"), options.get("device"))


def refuse_cohort_of_low_rungs(cohort: int | None, low_rungs: str | None) -> None:
    """UsageError for a cohort with low-precision rungs, which train one configuration at a time."""
    if low_rungs is not None and cohort is not None and cohort > 1:
        raise UsageError(
            f"--cohort {cohort} cannot be combined with --low-rungs {low_rungs}: low-precision "
            "rungs are trained one configuration at a time; leave one of them out"
        )
