"""Creating a study: loads and checks everything, then writes the study's folder."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from peftsearch.backbone.device import refuse_absent_device
from peftsearch.errors import DataError
from peftsearch.policy.landmarks import default_landmarks
from peftsearch.policy.table import sampler_named
from peftsearch.records.environment import environment
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import MetricScale, PublishedValue, StudyInfo
from peftsearch.space.space import Space
from peftsearch.study.new_bench import new_bench, precision_of
from peftsearch.study.new_study import NewStudy
from peftsearch.study.settings import for_kind
from peftsearch.study.untuned import untuned_metric, untuned_metric_apart
from peftsearch.task.task import Task
from peftsearch.training.batches import BatchOrder
from peftsearch.training.bench import Workbench
from peftsearch.training.objectives.choose import scale_of_values

__all__ = ["NewStudy", "PlannedStudy", "create_study", "plan_study"]


@dataclass(frozen=True)
class PlannedStudy:
    """A validated study that is not yet written: its record, model, data and space."""

    info: StudyInfo
    bench: Workbench
    space: Space


def create_study(
    request: NewStudy,
    studies: Path | None,
    resume_command: str,
    notify: Callable[[str], None] = lambda _: None,
    task: Task | None = None,
) -> StudyFolder:
    """Load model and data once to check and measure them, then write the study's folder. `request`
    has passed `refuse_unusable`, which loads nothing. Nothing is computed on a GPU in this process,
    which may go on to start the workers.

    `resume_command` is quoted in the error that the study already exists; `task` is the data, if
    already loaded.
    """
    StudyFolder.new(request.name, studies, resume_command)  # refuse before the slow part
    refuse_absent_device(request.device)
    info = plan_study(request, notify, task, device="cpu").info
    return StudyFolder.create(
        info, request.space.document.text, environment(), studies, resume_command
    )


def plan_study(
    request: NewStudy,
    notify: Callable[[str], None] = lambda _: None,
    task: Task | None = None,
    device: str | None = None,
) -> PlannedStudy:
    """Load and check everything that `create_study` would write; writes nothing. `request` has
    passed `refuse_unusable`. `device`: where the model is loaded (None: the study's device).
    """
    request = request.with_absolute_paths()
    bench = new_bench(request, device or request.device, notify, task)
    shortest = [int(n) for n in request.space.file.train.max_length.extremes if float(n)]
    if shortest:
        bench.refuse_no_room(min(shortest))
    for line in _measures(request, bench):
        notify(line)
    space = for_kind(request.space, bench.task.kind.name)
    space.on(bench.backbone.shapes)  # refused here, before there is a folder
    landmarks = request.landmarks or default_landmarks(space, bench.backbone.shapes)
    return PlannedStudy(_info(request, bench, landmarks), bench, space)


def _measures(request: NewStudy, bench: Workbench) -> Iterator[str]:
    """Messages about the data as the model reads them: counts, lengths, truncated texts."""
    targets = f", targets at most {bench.lengths.target}" if bench.lengths.target else ""
    yield (
        f"{bench.task.sizes}, at most {bench.max_length} tokens{targets} "
        f"({bench.train.truncated:,} cut)"
    )
    if bench.writing is not None and bench.writing.is_decoder and request.task.template is None:
        shown = bench.writing.whole_template.replace("\n", "\\n")
        yield f"the model reads '{shown}' and then writes the target (change it with --template)"
    train = request.space.file.train
    smallest = int(min(float(value) for value in train.batch_size.extremes))
    if len(bench.train) < smallest and train.batch_tokens.choices == (0,):
        yield f"fewer training examples than a batch of {smallest}: each step uses all of them"
    if "linear" in train.schedule.choices and len(request.space.file.budgets.rungs) > 1:
        yield (
            "linear schedule: a score at a rung does not predict the score at full length, so "
            "trials with it are evaluated at full length only and never stopped early"
        )


def _info(request: NewStudy, bench: Workbench, landmarks: str) -> StudyInfo:
    budgets = request.space.file.budgets
    task = bench.task
    usual = request.space.nearest_training(())
    per_epoch = BatchOrder(bench.train.lengths, usual, request.seed).per_epoch
    budget = budgets.training_budget()
    spec = request.limited_task.model_copy(update={"max_target": bench.lengths.target or None})
    return StudyInfo(
        name=request.name,
        id=uuid.uuid4().hex,
        seed=request.seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        space=request.space_name,
        space_hash=request.space.hash,
        model=request.model,
        model_fingerprint=bench.backbone.fingerprint,
        task=spec.model_dump(mode="json"),
        task_name=task.name,
        data_fingerprint=task.fingerprint,
        labels=task.labels,
        kind=task.kind.name,
        train_examples=len(task.train),
        eval_examples=len(task.validation),
        metric=_scale(request, bench),
        budget_lo_pct=budgets.tuned_pct.low,
        budget_hi_pct=budgets.tuned_pct.high,
        body_parameters=bench.backbone.shapes.body_parameters,
        full_steps=budget.full_steps(per_epoch),
        rungs=budget.rungs,
        max_length=bench.max_length,
        asked_max_length=request.max_length,
        asked_max_target=request.task.max_target,
        storage=request.storage,
        artifacts=request.artifacts,
        device=request.device,
        rung_examples=request.rung_examples,
        tokenizer=request.tokenizer,
        target_tokenizer=request.target_tokenizer,
        without=request.without,
        low_rungs=request.low_rungs,
        sampler=sampler_named(request.sampler),
        stopping=request.stopping,
        landmarks=landmarks,
        reading=task.reading,
        text_template=task.spec.template,
        precision=precision_of(request),
        value_scale=scale_of_values(bench.objective),
        published=PublishedValue.all_of(request.space.file.published),
    )


def _scale(request: NewStudy, bench: Workbench) -> MetricScale:
    """The metric's scale, from a constant predictor, or from the untuned model for losses."""
    metric, worst = bench.task.metric, bench.task.worst
    if worst is None:
        is_here = request.device.startswith(bench.backbone.device.type)
        worst = untuned_metric(bench) if is_here else untuned_metric_apart(request)
    if not math.isfinite(worst) or worst == metric.best:
        raise DataError(
            f"{metric.name} is {worst:g} before anything is tuned: no configuration can be "
            "compared with it; choose another --metric, or look at the validation data"
        )
    return MetricScale(
        name=metric.name,
        maximise=metric.maximise,
        worst=worst,
        best=metric.best,
        decimals=metric.decimals,
        title=metric.title,
    )
