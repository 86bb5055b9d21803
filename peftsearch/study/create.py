"""Creating a study: loads and checks everything, then writes the study's folder."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from peftsearch.backbone.loading.language import Tokenizers
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.errors import DataError
from peftsearch.policy.landmarks import default_landmarks
from peftsearch.policy.table import sampler_named
from peftsearch.records.environment import environment
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import MetricScale, PublishedValue, StudyInfo
from peftsearch.space.space import Space
from peftsearch.study.new_study import NewStudy
from peftsearch.study.settings import for_kind
from peftsearch.task.task import Task
from peftsearch.training.batches import BatchOrder
from peftsearch.training.bench import Workbench
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.choose import scale_of_values

__all__ = ["NewStudy", "PlannedStudy", "create_study", "planned"]


@dataclass(frozen=True)
class PlannedStudy:
    """A validated study that is not yet written: its record, model, data and space."""

    info: StudyInfo
    bench: Workbench
    space: Space


def create_study(
    asked: NewStudy,
    studies: Path | None,
    resume_command: str,
    notify: Callable[[str], None] = lambda _: None,
    task: Task | None = None,
) -> StudyFolder:
    """Load model and data once to check and measure them, then write the study's folder. `asked`
    has passed `refuse_unusable`, which loads nothing.

    `resume_command` is quoted in the error that the study already exists; `task` is the data, if
    already loaded.
    """
    StudyFolder.new(asked.name, studies, resume_command)  # refuse before the slow part
    info = planned(asked, notify, task).info
    return StudyFolder.create(
        info, asked.space.document.text, environment(), studies, resume_command
    )


def planned(
    asked: NewStudy, notify: Callable[[str], None] = lambda _: None, task: Task | None = None
) -> PlannedStudy:
    """Load and check everything that `create_study` would write; writes nothing. `asked` has
    passed `refuse_unusable`.
    """
    asked = asked.with_absolute_paths()
    task = task or asked.open_task()
    precision = str(asked.space.file.train.precision.choices[0])
    bench = Workbench.prepare(
        *(asked.model, asked.limited_task, asked.device, asked.max_length),
        with_prompts=offers_prompts(asked.space),
        notify=notify,
        tokenizers=Tokenizers(asked.tokenizer, asked.target_tokenizer, asked.task.languages),
        precision=precision,
        task=task,
    )
    shortest = [int(n) for n in asked.space.file.train.max_length.extremes if float(n)]
    if shortest:
        bench.refuse_no_room(min(shortest))
    for line in _measures(asked, bench):
        notify(line)
    space = for_kind(asked.space, bench.task.kind.name)
    space.on(bench.backbone.shapes)  # refused here, before there is a folder
    landmarks = asked.landmarks or default_landmarks(space, bench.backbone.shapes)
    return PlannedStudy(_info(asked, bench, precision, landmarks), bench, space)


def _measures(asked: NewStudy, bench: Workbench) -> Iterator[str]:
    """Messages about the data as the model reads them: counts, lengths, truncated texts."""
    targets = f", targets at most {bench.lengths.target}" if bench.lengths.target else ""
    yield (
        f"{bench.task.sizes}, at most {bench.max_length} tokens{targets} "
        f"({bench.train.truncated:,} cut)"
    )
    if bench.writing is not None and bench.writing.is_decoder and asked.task.template is None:
        shown = bench.writing.whole_template.replace("\n", "\\n")
        yield f"the model reads '{shown}' and then writes the target (change it with --template)"
    train = asked.space.file.train
    smallest = int(min(float(value) for value in train.batch_size.extremes))
    if len(bench.train) < smallest and train.batch_tokens.choices == (0,):
        yield f"fewer training examples than a batch of {smallest}: each step uses all of them"
    if "linear" in train.schedule.choices and len(asked.space.file.budgets.rungs) > 1:
        yield (
            "linear schedule: a score at a rung does not predict the score at full length, so "
            "trials with it are evaluated at full length only and never stopped early"
        )


def offers_prompts(space: Space) -> bool:
    """Whether a configuration of the space, or a seed, may put tokens before the text."""
    offered = {str(form) for slot in space.file.choices.values() for form in slot.form.choices}
    seeded = {
        m.form.name for seed in space.file.seed_with for m in METHODS[seed.method].modifications
    }
    return "prompt" in offered | seeded


def _info(asked: NewStudy, bench: Workbench, precision: str, landmarks: str) -> StudyInfo:
    budgets = asked.space.file.budgets
    task = bench.task
    usual = asked.space.training_like(())
    per_epoch = BatchOrder(bench.train.lengths, usual, asked.seed).per_epoch
    budget = budgets.training_budget()
    spec = asked.limited_task.model_copy(update={"max_target": bench.lengths.target or None})
    return StudyInfo(
        name=asked.name,
        id=uuid.uuid4().hex,
        seed=asked.seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        space=asked.space_name,
        space_hash=asked.space.hash,
        model=asked.model,
        model_fingerprint=bench.backbone.fingerprint,
        task=spec.model_dump(mode="json"),
        task_name=task.name,
        data_fingerprint=task.fingerprint,
        labels=task.labels,
        kind=task.kind.name,
        train_examples=len(task.train),
        eval_examples=len(task.validation),
        metric=_scale(bench),
        budget_lo_pct=budgets.tuned_pct.low,
        budget_hi_pct=budgets.tuned_pct.high,
        body_parameters=bench.backbone.shapes.body_parameters,
        full_steps=budget.full_steps(per_epoch),
        rungs=budget.rungs,
        max_length=bench.max_length,
        asked_max_length=asked.max_length,
        asked_max_target=asked.task.max_target,
        storage=asked.storage,
        artifacts=asked.artifacts,
        device=asked.device,
        rung_examples=asked.rung_examples,
        tokenizer=asked.tokenizer,
        target_tokenizer=asked.target_tokenizer,
        without=asked.without,
        low_rungs=asked.low_rungs,
        sampler=sampler_named(asked.sampler),
        stopping=asked.stopping,
        landmarks=landmarks,
        reading=task.reading,
        text_template=task.spec.template,
        precision=precision,
        value_scale=scale_of_values(bench.objective),
        published=PublishedValue.all_of(asked.space.file.published),
    )


def _scale(bench: Workbench) -> MetricScale:
    """The metric's scale, from a constant predictor, or from the untuned model for losses."""
    metric, worst = bench.task.metric, bench.task.worst
    if worst is None:
        untuned = Configuration(head=Head("none"))
        with TunedModel(bench.backbone, untuned, 0) as model:
            evaluation = bench.objective.evaluate(model, bench.validation, predict=False)
        worst = metric.value(*evaluation.pair(metric, None))
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
