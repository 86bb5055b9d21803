"""Table of well-known data sets (`known_datasets.yaml`): kind, columns, splits and metric."""

from __future__ import annotations

from importlib.resources import files

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ruamel.yaml import YAML

from peftsearch.errors import did_you_mean
from peftsearch.task.kinds.table import KINDS, kind_named
from peftsearch.task.spec import TaskSpec

__all__ = ["KNOWN_DATASETS", "KnownDataset", "KnownSplits", "completed", "known_dataset"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KnownSplits(_Row):
    """Names of the splits on the Hub; None where there is none, or none with targets."""

    train: str = Field(min_length=1)
    validation: str | None = None
    test: str | None = None


class KnownDataset(_Row):
    """One row: a data set's names, columns, splits, kind and metric."""

    name: str = Field(pattern=r"^[^/:\s]+/[^/:\s]+(:[^/:\s]+)?$")
    """owner/dataset or owner/dataset:config."""
    aliases: tuple[str, ...] = ()
    kind: str
    text: tuple[str, ...] = Field(min_length=1, max_length=2)
    label: str = Field(min_length=1)
    splits: KnownSplits
    metric: str

    @model_validator(mode="after")
    def _fits_together(self) -> KnownDataset:
        if self.kind not in KINDS:
            raise ValueError(f"kind '{self.kind}' unknown{did_you_mean(self.kind, KINDS)}")
        if self.metric not in KINDS[self.kind].metrics:
            raise ValueError(f"metric '{self.metric}' does not fit {self.kind}")
        return self

    def note(self, spec: TaskSpec) -> str:
        """A note for the user on the columns and splits read, given a completed spec."""
        columns = f"{' + '.join(spec.text)} → {' + '.join(spec.labels) or spec.label}"
        validation = self.splits.validation or "a part of the training split"
        test = (
            f"{self.splits.test} as test" if self.splits.test else "no test (its labels are hidden)"
        )
        kind = f"{spec.kind}, " if spec.kind else ""
        return f"{self.name} is known: {kind}{columns}; {validation} as validation, {test}"


def _read() -> tuple[KnownDataset, ...]:
    text = files("peftsearch.task.sources").joinpath("known_datasets.yaml").read_text("utf-8")
    return tuple(map(KnownDataset.model_validate, YAML(typ="safe", pure=True).load(text)))


KNOWN_DATASETS: tuple[KnownDataset, ...] = _read()

_BY_NAME = {name: row for row in KNOWN_DATASETS for name in (row.name, *row.aliases)}


def known_dataset(name: str) -> KnownDataset | None:
    """The row of a data set by its name or an alias; None if it is not in the table."""
    return _BY_NAME.get(name)


def completed(spec: TaskSpec, row: KnownDataset) -> TaskSpec:
    """The spec, completed from the row where the user left fields open.

    With a target column of the user's own, the kind and the metric are open again. Of two columns
    that can be translated either way, naming one as the text (or the target) makes the other the
    target (or the text).
    """
    if spec.labels:
        return spec.model_copy(update={"text": spec.text or row.text})
    text, label = _columns(spec, row)
    kind = spec.kind or (row.kind if label in (row.label, *row.text) else None)
    fits = kind is not None and row.metric in kind_named(kind).metrics
    metric = spec.metric or (row.metric if fits else None)
    return spec.model_copy(update={"text": text, "label": label, "kind": kind, "metric": metric})


def _columns(spec: TaskSpec, row: KnownDataset) -> tuple[tuple[str, ...], str]:
    if KINDS[row.kind].output == "texts":
        if spec.text == (row.label,) and spec.label is None:
            return spec.text, row.text[0]
        if spec.label == row.text[0] and not spec.text:
            return (row.label,), spec.label
    return spec.text or row.text, spec.label or row.label
