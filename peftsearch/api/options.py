"""The options of a search: the task field of each, and the rules for it when a study is resumed.

An option is a parameter of `peftsearch.search` and of the command line, and one row here. On resume
it may be changed, or it must equal the study's, or it is independent of the study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.records import StudyInfo
    from peftsearch.task.spec import TaskSpec

__all__ = [
    "CHANGEABLE",
    "FIXED",
    "NEUTRAL",
    "FixedOption",
    "Options",
    "RecordedOptions",
    "is_given",
    "task_fields",
]

Options = Mapping[str, Any]
"""The options that the user gave, by parameter of `search`; others are absent."""


def is_given(value: Any) -> bool:
    """True if the user gave this value; 0 counts."""
    return value is not None and value is not False and value != [] and value != ()


@dataclass(frozen=True)
class RecordedOptions:
    """The options that a study was created with, read from its record."""

    folder: StudyFolder
    info: StudyInfo

    @cached_property
    def task(self) -> TaskSpec:
        from peftsearch.records.task_spec import task_of

        return task_of(self.info)

    @property
    def rung_examples(self) -> int:
        from peftsearch.space.space import load_space

        own = load_space(str(self.folder.space_path)).file.budgets.rung_examples
        return self.info.rung_examples or own


_TYPED = {"\t": "tab", " ": "space"}
"""Separators that a command line calls by name."""

Same = Callable[[Any, Any], bool]
"""True if a value given now means the same as the recorded one."""


def _equal(given: Any, recorded: Any) -> bool:
    return bool(given == recorded)


def _same_set(given: Any, recorded: Any) -> bool:
    return set(given) == set(recorded or ())


def _same_data(given: Any, recorded: Any) -> bool:
    from peftsearch.paths import is_same_file
    from peftsearch.task.rows.parallel import parallel_paths
    from peftsearch.task.sources.absolute_paths import absolute_data

    pairs = [absolute_data(one) for one in (given, recorded or "")]
    parts = [parallel_paths(one) or (one,) for one in pairs]
    return len(parts[0]) == len(parts[1]) and all(map(is_same_file, *parts))


def _same_data_set(given: Any, recorded: Any) -> bool:
    from peftsearch.task.sources.known import known_dataset

    row = known_dataset(given)
    return given == recorded or (row is not None and row is known_dataset(recorded or ""))


def _same_source(given: Any, recorded: Any) -> bool:
    from peftsearch.backbone.loading.source import absolute_source
    from peftsearch.paths import is_same_file

    return recorded is not None and is_same_file(absolute_source(given), absolute_source(recorded))


def _same_sampler(given: Any, recorded: Any) -> bool:
    from peftsearch.policy.table import sampler_named

    return bool(sampler_named(given) == recorded)


@dataclass(frozen=True)
class FixedOption:
    """An option that is fixed for all trials of a study: on `--resume` it must not differ.

    `recorded` returns the values it may have then: as the user gave it, and as it was used.
    """

    name: str
    recorded: Callable[[RecordedOptions], tuple[Any, ...]]
    same: Same = _equal
    fields: Callable[[Any], dict[str, Any]] | None = None
    """Converts the value to fields of the TaskSpec; None if the option is not about the task."""
    comma: bool = False
    """True if several values are written as one, `a,b`; else the option is repeated."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def as_flags(self, value: Any) -> str:
        """`--seed 9`, `--text a --text b`, `--no-header`; `no --beams` where there is none."""
        if value is None or value is False or value == ():
            return f"no {self.flag}"
        if value is True:
            return self.flag
        each = value if isinstance(value, tuple) else (_TYPED.get(value, value),)
        if self.comma:
            each = (",".join(map(str, each)),)
        return " ".join(f"{self.flag} {one}" for one in each)

    def difference(self, given: Any, options: RecordedOptions) -> str | None:
        """`--seed 9, not --seed 0`; None where they mean the same."""
        values = self.recorded(options)
        if any(self.same(given, value) for value in values):
            return None
        recorded = next((value for value in values if value is not None), None)
        return f"{self.as_flags(recorded)}, not {self.as_flags(given)}"


def _task_option(
    name: str,
    key: str | None = None,
    recorded: Callable[[RecordedOptions], tuple[Any, ...]] | None = None,
    same: Same = _equal,
) -> FixedOption:
    """An option that sets the field `key` of the task."""
    field = key or name

    def of_task(options: RecordedOptions) -> tuple[Any, ...]:
        return (getattr(options.task, field),)

    return FixedOption(name, recorded or of_task, same, lambda given: {field: given})


def _label_columns(task: TaskSpec) -> tuple[str, ...]:
    return task.labels or ((task.label,) if task.label else ())


def _label_fields(given: tuple[str, ...]) -> dict[str, Any]:
    """One column is the label's; several are columns of 0 and 1."""
    return {"label": given[0]} if len(given) == 1 else {"labels": given}


FIXED: tuple[FixedOption, ...] = (
    FixedOption("model", lambda b: (b.info.model,), _same_source),
    _task_option("task", "name", same=_same_data_set),
    _task_option("train", same=_same_data),
    _task_option("eval", same=_same_data),
    _task_option("test", same=_same_data),
    _task_option("text"),
    FixedOption("label", lambda b: (_label_columns(b.task),), fields=_label_fields),
    _task_option("kind", recorded=lambda b: (b.task.kind, b.info.kind)),
    _task_option("metric", recorded=lambda b: (b.task.metric, b.info.metric.name)),
    _task_option("positive"),
    _task_option("template"),
    FixedOption(
        "no_header", lambda b: (not b.task.header,), fields=lambda given: {"header": not given}
    ),
    _task_option("separator"),
    FixedOption(
        "beams",
        lambda b: (b.task.generation.beams,),
        fields=lambda given: {"generation": {"beams": given}},
    ),
    FixedOption(
        "languages",
        lambda b: (b.task.languages,),
        fields=lambda given: {"languages": given},
        comma=True,
    ),
    FixedOption("seed", lambda b: (b.info.seed,)),
    FixedOption("max_length", lambda b: (b.info.asked_max_length, b.info.max_length)),
    _task_option("max_target", recorded=lambda b: (b.info.asked_max_target, b.task.max_target)),
    FixedOption("tokenizer", lambda b: (b.info.tokenizer,), _same_source),
    FixedOption("target_tokenizer", lambda b: (b.info.target_tokenizer,), _same_source),
    _task_option("train_examples"),
    _task_option("eval_examples"),
    FixedOption("eval_limit", lambda b: (b.rung_examples,)),
    FixedOption("without", lambda b: (b.info.without,), _same_set),
    FixedOption("low_rungs", lambda b: (b.info.low_rungs,)),
    FixedOption("sampler", lambda b: (b.info.sampler,), _same_sampler),
    FixedOption("no_stopping", lambda b: (not b.info.stopping,)),
    FixedOption("landmarks", lambda b: (b.info.landmarks,)),
    FixedOption("artifacts", lambda b: (b.info.artifacts,)),
)
"""Options that must not differ from the study's on `--resume`."""

CHANGEABLE = (
    *("trials", "minutes", "hours", "workers", "threads", "cohort", "device"),
    "storage",  # how this machine reaches the study's database
)
"""Options that may differ on each run."""

NEUTRAL = ("study", "studies", "space", "resume", "dry_run", "json")
"""Options that name the study and the action. The space is compared by its hash."""


def task_fields(options: Options) -> dict[str, Any]:
    """Fields of a TaskSpec from the options about the task."""
    fields: dict[str, Any] = {}
    for option in FIXED:
        if option.fields is not None and option.name in options:
            fields |= option.fields(options[option.name])
    return fields
