"""`peftsearch search --dry-run`: describe the data and the space, and estimate the time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftsearch.api.options import Options
from peftsearch.api.request import limits_of, worker_settings
from peftsearch.cli.terminal.console import print_json, print_line, print_note, print_table
from peftsearch.cli.terminal.predicted_time import samples_line
from peftsearch.wording import counted

if TYPE_CHECKING:
    from peftsearch.design.shapes import BackboneShapes
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.records import TrialResult
    from peftsearch.space.space import Space
    from peftsearch.study.create import PlannedStudy
    from peftsearch.study.new_study import NewStudy
    from peftsearch.task.task import Task

__all__ = ["print_dry_run", "print_dry_run_of"]

_SHOWN = 12
_QUANTILES = {"least": 0.0, "median": 0.5, "95 %": 0.95, "longest": 1.0}
_LABELS = 20
"""Maximum number of labels shown with their numbers of examples."""


def print_dry_run(request: NewStudy, options: Options) -> None:
    """Print a new study's data, its first configurations, the ranges it covers and its time."""
    from peftsearch.backbone.loading.source import PREFIX

    weightless = request.model.startswith(PREFIX)
    request.refuse_unusable(needs_weights=not weightless)
    spec = request.limited_task
    if not any((spec.name, spec.train, spec.eval, spec.test)):
        print_note("no data given: add --task or --train to see how a search would read them")
        _print(_of_space(request), options)
    elif not weightless:
        _print_planned(request, options)
    elif "task" in options or "train" in options:
        print_note(
            f"{request.model} has no weights: text lengths and trial times cannot be measured"
        )
        facts = {"data": _data(_opened(request)), "estimate": None}
        _print(_of_space(request) | facts, options)
    else:
        print_note(f"{request.model} has no weights: data are not opened, trial times not measured")
        _print(_of_space(request), options)


def print_dry_run_of(folder: StudyFolder, options: Options) -> None:
    """The same for an existing study, without resuming it."""
    from peftsearch.backbone.device import use_device
    from peftsearch.study.create import PlannedStudy
    from peftsearch.study.settings import space_of
    from peftsearch.workers.worker import bench_of

    info = folder.read_info()
    device = options.get("device", info.device)
    use_device(device)
    study = PlannedStudy(info, bench_of(info, device), space_of(folder, info))
    results = folder.read().results
    facts = _of_study(study, info.model, options, results)
    _print(facts | {"trials ended": len(results)}, options)


def _opened(request: NewStudy) -> Task:
    task = request.open_task()
    for note in task.notes:
        print_note(note)
    return task


def _print_planned(request: NewStudy, options: Options) -> None:
    task = request.open_task()
    from peftsearch.backbone.device import use_device
    from peftsearch.study.create import plan_study  # seconds, of importing torch

    use_device(request.device)  # steps are timed here
    _print(_of_study(plan_study(request, print_note, task), request.model, options), options)


def _of_space(request: NewStudy) -> dict[str, Any]:
    """The landmarks, some samples, and the ranges that these cover."""
    from peftsearch.backbone.loading.load import load_shapes
    from peftsearch.policy.landmarks import default_landmarks

    shapes = load_shapes(request.model)
    landmarks = request.landmarks or default_landmarks(request.space, shapes)
    return _reached(request.space, shapes, landmarks)


def _reached(space: Space, shapes: BackboneShapes, landmarks: str) -> dict[str, Any]:
    from peftsearch.policy.landmarks import landmarks_of
    from peftsearch.space.random_samples import draw_samples

    drawn = draw_samples(space.on(shapes))
    shown = landmarks_of(landmarks, space, shapes).examples
    seeds = [(seed.label, seed.configuration) for seed in shown]
    samples = [("sample", configuration) for configuration in drawn.configurations[:_SHOWN]]
    examples = [
        {"from": source, "tuned_pct": c.tuned_pct(shapes), "configuration": c.describe()}
        for source, c in seeds + samples
    ]
    structures = space.on(shapes).count_structures()
    return {"distinct structures": structures, **drawn.facts(), "examples": examples}


def _of_study(
    study: PlannedStudy, model: str, options: Options, results: Sequence[TrialResult] = ()
) -> dict[str, Any]:
    """The facts of a study whose model and data are loaded, and of which some trials ended."""
    lengths = _lengths(study)
    data = _data(study.bench.task) | {"tokens": lengths, "max_length": study.info.max_length}
    estimate = _estimate(study, options, results)
    if estimate is None:
        print_note("no time estimate: none of the sampled configurations could be trained")
    return _reached(study.space, study.bench.backbone.shapes, study.info.landmarks) | {
        "data": data,
        "metric": study.info.metric.model_dump(),
        "full_steps": study.info.full_steps,
        "estimate": estimate,
    }


def _data(task: Task) -> dict[str, Any]:
    """Kind, metric, labels, and the rows used of those given."""
    return {
        "task": task.name,
        "kind": task.kind.name,
        "metric": task.metric.name,
        "train": {"used": len(task.train), "rows": task.rows},
        "validation": {"used": len(task.validation), "rows": task.validation_rows},
        "labels": _labels(task),
    }


def _labels(task: Task) -> dict[str, int] | None:
    """Number of training examples by label; None where numbers or texts are predicted."""
    targets = task.train.targets
    if not task.labels or not isinstance(targets, np.ndarray):
        return None
    if targets.ndim == 2:  # several labels an example
        counts = targets.sum(axis=0).astype(int)
    else:
        counts = np.bincount(targets.astype(np.int64), minlength=len(task.labels))
    return dict(zip(task.labels, counts.tolist(), strict=True))


def _lengths(study: PlannedStudy) -> dict[str, int]:
    """Quantiles of the training texts' lengths in tokens, cut as a search would cut them."""
    train = study.bench.train
    values = np.quantile(train.inputs.lengths, list(_QUANTILES.values()), method="higher")
    found = dict(zip(_QUANTILES, map(int, values), strict=True))
    return found | {"cut": train.truncated}


def _estimate(
    study: PlannedStudy, options: Options, results: Sequence[TrialResult]
) -> dict[str, Any] | None:
    from peftsearch.backbone.device import default_workers_here
    from peftsearch.training.bench import set_threads
    from peftsearch.workers.estimate import parallel_trials, trial_time, trials_within

    limits, settings = limits_of(options, wait_for_others=False), worker_settings(options)
    set_threads(settings.threads)
    device = str(study.bench.backbone.device.type)
    print_note("measuring some steps of a few configurations …")
    time = trial_time(study, results)
    if time is None:
        return None
    workers = options.get("workers") or default_workers_here(device)
    cores = len(os.sched_getaffinity(0))
    parallel = parallel_trials(device, workers, settings.threads, cores)
    facts: dict[str, Any] = {
        "full_s": _rounded(time.mean_s),
        "full_s_measured": [_rounded(value) for value in time.full_s],
        "stopped_s": _rounded(time.stopped_s) if study.info.stopping else None,
        "samples": None if time.predicted is None else time.predicted.facts(),
        "workers": workers,
    }
    if limits.seconds is not None:
        facts["seconds"] = limits.seconds
        facts["trials_at_least"] = trials_within(limits.seconds, max(time.full_s), parallel)
        facts["trials"] = trials_within(limits.seconds, time.mean_s, parallel)
        shortest = time.stopped_s if study.info.stopping else min(time.full_s)
        facts["trials_at_most"] = trials_within(limits.seconds, shortest, parallel)
    elif limits.trials is not None:
        facts["search_s"] = _rounded(limits.trials * time.mean_s / parallel)
    return facts


def _rounded(seconds: float) -> float:
    """Rounded to two digits: an estimate has no more."""
    return float(f"{seconds:.2g}")


def _print(facts: dict[str, Any], options: Options) -> None:
    if "json" in options:
        print_json("dry_run", facts)
        return
    rows = [(e["from"], f"{e['tuned_pct']:.4g}", e["configuration"]) for e in facts["examples"]]
    print_table(("", "tuned %", "configuration"), rows)
    print_line()
    told = ("examples", "data", "metric", "full_steps", "estimate")
    for key, value in facts.items():
        if key not in told:
            print_line(f"{key}: {value}")
    if "data" in facts:
        print_line()
        for line in (*_data_lines(facts), *_estimate_lines(facts, options)):
            print_line(line)


def _data_lines(facts: dict[str, Any]) -> list[str]:
    data = facts["data"]
    lines = [f"training: {_of(data['train'])}", f"validation: {_of(data['validation'])}"]
    if data["labels"]:
        shown = [f"{name} {count:,}" for name, count in list(data["labels"].items())[:_LABELS]]
        more = len(data["labels"]) - len(shown)
        lines.append(f"labels: {', '.join(shown)}{f' and {more:,} more' if more > 0 else ''}")
    lines.append(f"{data['kind']}, metric {data['metric']}{_constant(facts)}")
    if "tokens" in data:
        tokens = dict(data["tokens"])
        cut = tokens.pop("cut")
        spread = ", ".join(f"{name} {count}" for name, count in tokens.items())
        lines.append(f"tokens of a text: {spread}; cut at {data['max_length']}: {cut:,} texts")
    return lines


def _of(split: dict[str, Any]) -> str:
    if split["rows"] is None:
        return f"{split['used']:,} rows, set aside of the training data"
    return f"{split['used']:,} rows used of {split['rows']:,}"


def _constant(facts: dict[str, Any]) -> str:
    metric = facts.get("metric")
    return "" if metric is None else f" (from {metric['worst']:.4g}, a constant answer's)"


def _estimate_lines(facts: dict[str, Any], options: Options) -> list[str]:
    found = facts["estimate"]
    if found is None:
        return []
    stops = found["stopped_s"] is not None
    stopped = f", {found['stopped_s']:g} s for one that is stopped at its first rung"
    lines = [
        f"estimate: about {found['full_s']:g} s a trial of full length "
        f"({facts['full_steps']:,} steps; {_between(found['full_s_measured'])})"
        + (stopped if stops else ", and none is stopped")
    ]
    if found["samples"] is not None:
        lines.append(samples_line(found["samples"]))
    workers = counted(found["workers"], "worker")
    if "trials" in found:
        shortest = "stopped early" if stops else "as short as the shortest"
        lines.append(
            f"with {workers} about {found['trials']:,} trials of full length in "
            f"{found['seconds'] / 60:g} min after loading, and at most "
            f"{found['trials_at_most']:,} if all are {shortest}"
        )
    elif "search_s" in found:
        lines.append(f"with {workers} about {found['search_s'] / 60:.2g} min after loading")
    return lines


def _between(seconds: list[float]) -> str:
    few = f"{counted(len(seconds), 'configuration')} measured"
    return f"{few}: {min(seconds):g} to {max(seconds):g}" if len(seconds) > 1 else few
