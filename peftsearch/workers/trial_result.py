"""Results of trials: the record of one that ended, was stopped or failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import torch

from peftsearch.design.serving import why_not_merged, why_not_plain_lora
from peftsearch.errors import TrialFailure
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.study.study import Assignment
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun

__all__ = ["EndState", "ended_result", "failed_result"]

EndState = Literal["full", "stopped"]


def ended_result(
    assignment: Assignment,
    bench: Workbench,
    run: TrainingRun,
    curve: tuple[RungValue, ...],
    state: EndState,
) -> TrialResult:
    """The result of a trial trained to full length, or stopped at the last rung of `curve`."""
    last = curve[-1]
    return _result(
        assignment,
        bench,
        run.seed,
        state,
        {"metric": last.metric, "metric_se": last.metric_se, "rung": last.rung}
        | {"curve": curve}
        | _costs(run, curve),
    )


def failed_result(
    assignment: Assignment,
    bench: Workbench,
    seed: int,
    curve: tuple[RungValue, ...],
    failure: TrialFailure,
    run: TrainingRun | None,
) -> TrialResult:
    """The result of a trial that failed in training, or (`run` None) while it was attached."""
    why = {"cause": failure.cause, "message": str(failure), "curve": curve}
    costs = {} if run is None else _costs(run, curve)
    return _result(assignment, bench, seed, "failed", why | costs)


def _result(
    assignment: Assignment,
    bench: Workbench,
    seed: int,
    state: Literal["full", "stopped", "failed"],
    outcome: dict[str, Any],
) -> TrialResult:
    configuration, backbone = assignment.configuration, bench.backbone
    shapes = backbone.shapes
    # Tuned tensors are in fp32 beside a backbone in half precision (`TensorBuilder.dtype`).
    float_bytes = torch.promote_types(backbone.dtype, torch.float32).itemsize
    return TrialResult(
        number=assignment.number,
        state=state,
        origin=assignment.origin,
        method=assignment.method,
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        budget_pct=assignment.budget_pct,
        tuned_parameters=configuration.tuned_parameters(shapes),
        trained_parameters=configuration.trained_parameters(shapes, bench.task.outputs),
        tuned_pct=configuration.tuned_pct(shapes),
        adapter_bytes=configuration.stored_bytes(shapes, bench.task.outputs, float_bytes),
        mergeable=why_not_merged(configuration, shapes) is None,
        plain_lora=why_not_plain_lora(configuration) is None,
        seed=seed,
        threads=torch.get_num_threads(),
        device=str(backbone.device),
        dtype=str(backbone.dtype).removeprefix("torch."),
        model_fingerprint=backbone.fingerprint,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **outcome,
    )


def _costs(run: TrainingRun, curve: tuple[RungValue, ...]) -> dict[str, Any]:
    """Seconds and memory that a run took, and the computation it shared with others."""
    spent = run.progress
    eval_examples = sum(value.examples for value in curve)
    return {
        "wall_s": round(spent.wall_s, 3),
        "cpu_s": round(spent.cpu_s, 3),
        "train_s": round(spent.wall_s - spent.eval_s, 3),
        "train_cpu_s": round(spent.cpu_s - spent.eval_cpu_s, 3),
        "eval_s": round(spent.eval_s, 3),
        "eval_cpu_s": round(spent.eval_cpu_s, 3),
        "eval_examples": eval_examples,
        "eval_s_per_example": round(spent.eval_s / eval_examples, 9) if eval_examples else None,
        "peak_rss_bytes": spent.peak_rss_bytes,
        "peak_device_bytes": spent.peak_device_bytes,
        "kept_layers": run.frozen.kept_layers,
        "cohort": run.cohort,
    }
