"""Records of studies that were never run, for what is made of records."""

from __future__ import annotations

from peftsearch.records.records import MetricScale, RungValue, StudyInfo, TrialResult

__all__ = ["info", "result"]


def info(name: str = "study", task: str = "tweets") -> StudyInfo:
    return StudyInfo(
        name=name,
        id="0" * 32,
        seed=0,
        created_at="2026-01-01T00:00:00+00:00",
        space="demo",
        space_hash="",
        model="demo:minilm",
        model_fingerprint="f",
        task={},
        task_name=task,
        data_fingerprint="d",
        labels=("a", "b"),
        train_examples=2000,
        eval_examples=1000,
        metric=MetricScale(name="accuracy", worst=0.4, best=1.0),
        budget_lo_pct=0.005,
        budget_hi_pct=5,
        body_parameters=22_565_376,
        full_steps=126,
        rungs=(0.25, 1.0),
        max_length=64,
    )


def result(number: int, metric: float | None, tuned: float, **more: object) -> TrialResult:
    state = more.pop("state", "full")
    curve = tuple(
        RungValue(
            rung=rung,
            step=step,
            fraction=fraction,
            metric=(metric or 0.0) - 0.05 * (1 - rung),
            loss=0.7,
            train_loss=0.7,
            examples=400,
            wall_s=20.0 * (rung + 1),
            cpu_s=20.0 * (rung + 1),
        )
        for rung, step, fraction in ((0, 32, 0.25), (1, 126, 1.0))
        if metric is not None and (rung == 0 or state == "full")
    )
    fields: dict[str, object] = {
        "number": number,
        "state": state,
        "origin": "sampled",
        "description": f"relu∥ffn.out r={number + 1}",
        "metric": metric,
        "metric_se": 0.014,
        "tuned_pct": tuned,
        "tuned_parameters": int(tuned * 225_653),
        "curve": curve,
        "cpu_s": 40.0,
        "wall_s": 40.0,
        "finished_at": f"2026-01-01T00:{number:02d}:00+00:00",
    }
    return TrialResult.model_validate(fields | more)
