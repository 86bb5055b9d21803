"""Schemas of a study's files, as frozen pydantic models that reject unknown keys.

`study.json` is a `StudyInfo`, `trials/NNNNN/result.json` a `TrialResult`,
each line of `trials/NNNNN/curve.jsonl` a `RungValue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from peftsearch.frontier.hypervolume import HypervolumeScale, hypervolume
from peftsearch.frontier.pareto import Point, pareto
from peftsearch.records.storage_name import JOURNAL
from peftsearch.task.spec import ReadColumns
from peftsearch.wording import measured

if TYPE_CHECKING:
    from peftsearch.space.file.published import Published

__all__ = [
    *("COSTS", "MetricScale", "Origin", "PublishedValue", "RungValue", "StudyInfo", "StudyRecord"),
    "TrialResult",
]


Origin = Literal["seed", "sampled", "landmark"]
"""The origin of a trial's configuration; see `TrialResult`."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricScale(Record):
    """The task's metric: its direction, range and number of decimals.

    `worst` is the value of a constant predictor, or of the untuned model for losses; `best` is the
    best possible value.
    """

    name: str
    """For example `accuracy`."""
    maximise: bool = True
    worst: float
    best: float
    decimals: int = 4
    """Digits after the point of a written value."""
    title: str = ""
    """Display name: `ROUGE-2 F1 × 100`."""

    def format(self, value: float | None, error: float | None = None) -> str:
        """`0.7530 ± 0.0136`, `21.90`, or a dash."""
        return measured(value, error, self.decimals)


class PublishedValue(Record):
    """A result reported by a paper: plotted beside the study's own, not part of its frontier."""

    name: str
    metric: str
    value: float
    tuned_pct: float
    source: str

    @classmethod
    def all_of(cls, published: Published | None) -> tuple[PublishedValue, ...]:
        """The points of a space file, each with its metric and source."""
        if published is None:
            return ()
        return tuple(
            cls(
                name=point.label,
                metric=published.metric,
                value=point.value,
                tuned_pct=point.tuned_pct,
                source=published.source,
            )
            for point in published.points
        )


class RungValue(Record):
    """One evaluation during training: a point of the learning curve."""

    rung: int
    """Index of the rung, 0 the lowest; the last one is full length."""
    step: int
    fraction: float
    """Share of the full training length, in (0, 1]."""
    metric: float
    metric_se: float | None = None
    """Standard error of `metric` from the examples it was measured on."""
    loss: float
    """Mean evaluation loss: nats an example (of texts a token), or squared error."""
    train_loss: float | None
    """Smoothed; None before the first step."""
    examples: int
    """Evaluated examples."""
    wall_s: float
    """Seconds of this trial so far, evaluation included."""
    cpu_s: float
    eval_s: float = 0.0
    """Seconds of it that were evaluation."""
    low_precision: str | None = None
    """Precision of the frozen layers up to and at this rung; None: the backbone's own."""


class TrialResult(Record):
    """One finished trial.

    `state`: `full` trained to the last rung (only these are frontier points), `stopped` early,
    `failed` with `cause`, `duplicate` of trial `same_as`, `infeasible` if nothing fits its budget.
    `origin`: `seed` is a landmark within the space, `landmark` one outside it (head-only, full
    fine-tuning), `sampled` proposed by the sampler.

    None for costs (`COSTS`) that were not measured: of trials that were not trained, or were
    recorded by an earlier version.
    """

    schema_version: Literal[1] = 1
    number: int
    state: Literal["full", "stopped", "failed", "duplicate", "infeasible"]
    origin: Origin
    method: str | None = None
    """Name of the published method, for seeds and landmarks."""
    configuration: dict[str, Any] | None = None
    """`Configuration.to_json()`."""
    configuration_hash: str | None = None
    description: str = ""
    """The configuration in one readable line."""
    budget_pct: float | None = None
    """The sampled limit on tuned %, if the structure has a width."""
    tuned_parameters: int = 0
    trained_parameters: int = 0
    """Tuned parameters and the head."""
    tuned_pct: float = 0.0
    metric: float | None = None
    """At the last rung reached."""
    metric_se: float | None = None
    """Standard error of `metric` from the size of the evaluation set."""
    rung: int | None = None
    same_as: int | None = None
    cause: str | None = None
    message: str | None = None
    curve: tuple[RungValue, ...] = ()
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    dtype: str = "float32"
    """Type of the frozen backbone's weights."""
    model_fingerprint: str | None = None
    """Fingerprint of the backbone in that dtype; None: the study's."""
    cohort: int = 1
    kept_layers: int = 0
    """Lowest layers whose states were computed once and kept; all of them under a head alone."""
    wall_s: float = 0.0
    """Seconds of training and evaluation; of passes shared with others, this trial's share."""
    cpu_s: float = 0.0
    train_s: float | None = None
    """Part of `wall_s`: training, and computing the states of frozen layers for it."""
    train_cpu_s: float | None = None
    eval_s: float = 0.0
    """Part of `wall_s`: evaluations."""
    eval_cpu_s: float | None = None
    eval_examples: int | None = None
    """Examples evaluated at all rungs."""
    eval_s_per_example: float | None = None
    peak_rss_bytes: int | None = None
    """The most memory resident in the trial's process while it lasted, with the model, the data and
    any trials beside it in the process; None where it cannot be measured.
    """
    peak_device_bytes: int | None = None
    """The most that the process had allocated for tensors on a CUDA device; None on a CPU."""
    adapter_bytes: int | None = None
    """Tensors of a native export, head included, without the file's header."""
    mergeable: bool | None = None
    """Whether the body is the pretrained one with other values in its own tensors."""
    plain_lora: bool | None = None
    """Whether it is a LoRA of two matrices a layer, head left out, which vLLM serves."""
    finished_at: str = ""
    """UTC, ISO 8601."""


COSTS = (
    *("tuned_parameters", "trained_parameters", "adapter_bytes"),
    *("peak_rss_bytes", "peak_device_bytes"),
    *("wall_s", "cpu_s", "train_s", "train_cpu_s"),
    *("eval_s", "eval_cpu_s", "eval_examples", "eval_s_per_example"),
    *("mergeable", "plain_lora"),
)
"""Fields of a result that say what a configuration costs to train, to keep and to run."""


class StudyInfo(Record):
    """Settings and facts of a study, fixed when it is created (study.json)."""

    schema_version: Literal[1] = 1
    name: str
    id: str
    seed: int = Field(ge=0, lt=2**53)
    created_at: str
    space: str
    """Name or file of the space; `space.yaml` is a resolved copy."""
    space_hash: str
    model: str
    """As the user named it."""
    model_fingerprint: str
    task: dict[str, Any]
    """`TaskSpec` as JSON."""
    task_name: str
    data_fingerprint: str
    labels: tuple[str, ...]
    """Empty where numbers or texts are predicted."""
    kind: str = "classification"
    """The task's kind: classification, multilabel, regression, seq2seq or causal."""
    train_examples: int
    eval_examples: int
    metric: MetricScale
    budget_lo_pct: float = Field(gt=0, allow_inf_nan=False)
    budget_hi_pct: float = Field(gt=0, allow_inf_nan=False)
    """The space's budget range: the bounds of the hypervolume, in tuned %."""
    body_parameters: int
    full_steps: int
    rungs: tuple[float, ...]
    """Fractions of `full_steps`."""
    max_length: int = Field(ge=1)
    """Tokens that texts are cut to."""
    asked_max_length: int | None = None
    """As the user gave it; may be more than the model's limit."""
    asked_max_target: int | None = None
    rung_examples: int | None = None
    """Evaluation examples below full length, if the user overrode the space's."""
    tokenizer: str | None = None
    """Name or path of the model's tokenizer, if it is not beside the model."""
    target_tokenizer: str | None = None
    reading: ReadColumns | None = None
    """Columns that texts are built from; None in studies of older versions."""
    text_template: str | None = None
    """The template, with one `{text}` for the columns in `reading`."""
    precision: str = "fp32"
    value_scale: tuple[float, float] | None = None
    """Mean and standard deviation of the training targets, where numbers are predicted."""
    published: tuple[PublishedValue, ...] = ()
    """Results reported by the space's paper, plotted beside the frontier."""
    without: tuple[str, ...] = ()
    """Optimisations that the user switched off (docs/performance.md)."""
    low_rungs: str | None = None
    """The low precision of frozen layers below full length."""
    sampler: str = "tpe"
    """The policy that proposes configurations: a row of `policy/table.py`."""
    stopping: bool = True
    """Whether trials may be stopped below full length."""
    landmarks: str = "all"
    """The published methods that are trained, too: none, lora or all (`policy/landmarks.py`)."""
    storage: str = JOURNAL
    """The journal's file, or a database's address without its password."""
    artifacts: str | None = None
    """Address of the artifact store through which workers on several machines share checkpoints."""
    device: str = "cpu"

    @property
    def hypervolume_scale(self) -> HypervolumeScale:
        """The reference of the hypervolume, fixed when the study began."""
        return HypervolumeScale(
            lo_pct=self.budget_lo_pct,
            hi_pct=self.budget_hi_pct,
            worst=self.metric.worst,
            best=self.metric.best,
            maximise=self.metric.maximise,
        )


@dataclass(frozen=True)
class StudyRecord:
    """A study read from its folder: the input of reports, frontiers and exports."""

    info: StudyInfo
    results: tuple[TrialResult, ...]
    """By trial number."""
    running: int = 0
    """Unfinished trials; `read_study` counts those that no live worker has as waiting."""
    waiting: int = 0
    """Trials that were cut off or interrupted, and are continued by `--resume`."""

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Points of full-length trials, by number: metrics of stopped trials are not comparable."""
        return tuple(
            Point(r.number, r.metric, r.tuned_pct, r.metric_se or 0.0)
            for r in self.results
            if r.state == "full" and r.metric is not None
        )

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The non-dominated points in metric and tuned %, cheapest first."""
        return tuple(pareto(self.points, self.info.metric.maximise))

    @cached_property
    def hypervolume(self) -> float:
        """Hypervolume of the frontier over log tuned %, in [0, 1]."""
        return hypervolume(self.points, self.info.hypervolume_scale)
