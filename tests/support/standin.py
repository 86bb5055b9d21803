"""A study whose trials are not trained: results are a function of the configuration."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.shapes import BackboneShapes
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import MetricScale, RungValue, StudyInfo, TrialResult
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study.storage.database.heartbeat import HeartbeatTiming
from peftsearch.study.study import Assignment, Study

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 1}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated, {scaled: {s: [2, 4]}}]}
  ffn: {form: [none, relu]}
train: {lr: 0.001}
seed_with: [head-only-mean, lora, prefix, full]
"""


def info(model: Path, name: str = "study") -> StudyInfo:
    return StudyInfo(
        name=name,
        id="0" * 32,
        seed=0,
        created_at="2026-01-01T00:00:00+00:00",
        space="space.yaml",
        space_hash="",
        model=str(model),
        model_fingerprint="",
        task={},
        task_name="none",
        data_fingerprint="",
        labels=("a", "b"),
        train_examples=1,
        eval_examples=1,
        metric=MetricScale(name="accuracy", worst=0.5, best=1.0),
        budget_lo_pct=0.5,
        budget_hi_pct=20,
        body_parameters=1,
        full_steps=4,
        rungs=(0.25, 1.0),
        max_length=8,
    )


def create(model: Path, studies: Path, space: str = SPACE, **changed: Any) -> StudyFolder:
    """A new study; `changed`: fields of its record."""
    return StudyFolder.create(info(model).model_copy(update=changed), space, {}, studies, "")


def open_study(
    folder: StudyFolder, worker: int = 0, timing: HeartbeatTiming | None = None
) -> Study:
    space = Space(Document.read(folder.space_path))
    shapes = load_shapes(folder.read_info().model)
    return Study(folder, folder.read_info(), space, shapes, worker, timing=timing)


def metric_of(assignment: Assignment) -> float:
    """Between .5 and 1, and nothing but a function of the configuration."""
    digest = hashlib.sha256(assignment.configuration.hash.encode()).digest()
    return 0.5 + digest[0] / 512


def finish(
    assignment: Assignment, shapes: BackboneShapes, state: str = "full", cause: str | None = None
) -> TrialResult:
    configuration = assignment.configuration
    rung = 1 if state == "full" else 0
    metric = None if state == "failed" else metric_of(assignment)
    curve = () if metric is None else (rung_value(rung, metric),)
    return TrialResult(
        number=assignment.number,
        state=state,  # type: ignore[arg-type]
        origin=assignment.origin,
        method=assignment.method,
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        budget_pct=assignment.budget_pct,
        tuned_parameters=configuration.tuned_parameters(shapes),
        tuned_pct=configuration.tuned_pct(shapes),
        metric=metric,
        metric_se=0.01,
        rung=None if metric is None else rung,
        cause=cause,
        curve=curve,
        wall_s=3.0,
        eval_s=1.0,
        train_s=2.0,
        peak_rss_bytes=10**9,
        adapter_bytes=4096,
        finished_at="2026-01-01T00:00:00+00:00",
    )


def rung_value(rung: int, metric: float) -> RungValue:
    return RungValue(
        rung=rung,
        step=4 if rung else 1,
        fraction=1.0 if rung else 0.25,
        metric=metric,
        loss=0.5,
        train_loss=0.5,
        examples=10,
        wall_s=1.0,
        cpu_s=1.0,
    )


def take(study: Study) -> Assignment:
    """The next assignment that needs training."""
    while True:
        asked = study.ask()
        if isinstance(asked, Assignment):
            return asked


def train_for_nothing(study: Study, assignment: Assignment, stop_early: bool = False) -> None:
    """Both rungs (or the first) recorded and told."""
    metric = metric_of(assignment)
    study.record_rung(assignment.number, rung_value(0, metric))
    if not stop_early:
        study.record_rung(assignment.number, rung_value(1, metric))
    study.tell(finish(assignment, study.shapes, "stopped" if stop_early else "full"))
