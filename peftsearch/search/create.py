"""Beginning a study: everything is read and checked before anything is written."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peftsearch.design.configuration import Training
from peftsearch.design.methods import METHODS
from peftsearch.search.folder import StudyFolder
from peftsearch.search.records import MetricScale, StudyInfo
from peftsearch.search.workbench import Workbench, training_budget
from peftsearch.space.space import Space
from peftsearch.task.spec import TaskSpec

__all__ = ["NewStudy", "create_study", "environment"]

_PACKAGES = ("torch", "transformers", "datasets", "optuna", "safetensors", "numpy", "pandas")


@dataclass(frozen=True)
class NewStudy:
    """What a user asks a study to be."""

    name: str
    space: Space
    space_name: str
    model: str
    task: TaskSpec
    seed: int = 0
    device: str = "cpu"
    max_length: int | None = None


def create_study(
    asked: NewStudy,
    studies: Path | None,
    go_on: str,
    say: Callable[[str], None] = lambda _: None,
) -> StudyFolder:
    """Load model and data once to check and measure them, then write the study's folder.

    `go_on` is the command quoted if the study exists already.
    """
    StudyFolder.new(asked.name, studies, go_on)  # refuse before the slow part
    prompts = offers_prompts(asked.space)
    bench = Workbench.prepare(
        asked.model, spec_of(asked), asked.device, asked.max_length, prompts, say
    )
    say(
        f"{len(bench.task.train):,} training and {len(bench.task.validation):,} validation "
        f"examples, at most {bench.max_length} tokens ({bench.train.truncated:,} cut)"
    )
    asked.space.on(bench.backbone.shapes)  # refused here, before there is a folder
    info = _info(asked, bench)
    return StudyFolder.create(info, asked.space.document.text, environment(), studies, go_on)


def offers_prompts(space: Space) -> bool:
    """Whether a configuration of the space, or a seed, may put tokens before the text."""
    offered = {str(form) for slot in space.file.choices.values() for form in slot.form.choices}
    seeded = {
        m.form.name for seed in space.file.seed_with for m in METHODS[seed.method].modifications
    }
    return "prompt" in offered | seeded


def spec_of(asked: NewStudy) -> TaskSpec:
    """The task with the space's limits on examples, unless the user set their own."""
    budgets = asked.space.file.budgets
    limits = {
        "train_examples": asked.task.train_examples or budgets.train_examples,
        "eval_examples": asked.task.eval_examples or budgets.eval_examples,
    }
    return asked.task.model_copy(update=limits)


def _info(asked: NewStudy, bench: Workbench) -> StudyInfo:
    budgets = asked.space.file.budgets
    task = bench.task
    batch_size = int(asked.space.file.train.batch_size.nearest(Training().batch_size))
    budget = training_budget(budgets)
    return StudyInfo(
        name=asked.name,
        id=uuid.uuid4().hex,
        seed=asked.seed,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        space=asked.space_name,
        space_hash=asked.space.hash,
        model=asked.model,
        model_fingerprint=bench.backbone.fingerprint,
        task=spec_of(asked).model_dump(mode="json"),
        task_name=task.name,
        data_fingerprint=task.fingerprint,
        labels=task.labels,
        train_examples=len(task.train),
        eval_examples=len(task.validation),
        metric=MetricScale(
            name=task.metric.name,
            maximise=task.metric.maximise,
            worst=task.worst,
            best=task.metric.best,
        ),
        budget_lo_pct=budgets.tuned_pct.low,
        budget_hi_pct=budgets.tuned_pct.high,
        body_parameters=bench.backbone.shapes.body_parameters,
        full_steps=budget.full_steps(len(task.train), batch_size),
        rungs=budget.rungs,
        max_length=bench.max_length,
        device=asked.device,
    )


def environment() -> dict[str, Any]:
    """Versions and hardware, for whoever wants to repeat a study."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("peftsearch", *_PACKAGES)},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()
