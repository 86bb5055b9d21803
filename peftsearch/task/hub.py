"""Data sets by their Hub name, `owner/dataset:config`, through the `datasets` library."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.hub import prepare_hub
from peftsearch.errors import DataError, MissingError, PeftsearchError, UsageError
from peftsearch.task.assemble import assemble, kind_of
from peftsearch.task.columns import find_columns
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

__all__ = ["load_hub"]

_VALIDATION = ("validation", "validation_matched", "dev", "valid")
_HIDDEN = -1
"""What stands for a label that is not given: GLUE's test splits, SNLI's undecided pairs."""


def load_hub(spec: TaskSpec) -> Task:
    """A data set from the Hub (or its local cache); no code of it is run.

    Of the test split nothing is read before `test()`: whether its labels are given shows then.
    """
    assert spec.name is not None
    name = spec.name
    path, _, config = name.partition(":")
    if not path.strip():
        raise UsageError(
            f"--task '{name}': a data set's name is owner/dataset or owner/dataset:config"
        )
    found = _load(name, path, config or None)
    if "train" not in found:
        raise DataError(f"'{name}' has no train split; it has: {', '.join(map(str, found))}")
    train = _rows(found, "train", name)
    kind, _ = kind_of(spec, train)
    label = find_columns(train, spec.text, spec.label, kind.target_names, kind.needs_target).label
    names = _class_names(found["train"], label) if kind.output == "labels" else None
    validation = next((split for split in _VALIDATION if split in found), None)

    def read_test() -> Rows | None:
        rows = _labelled(_rows(found, "test", name), label, names) if "test" in found else None
        return None if rows is None or rows.table.empty else rows

    return assemble(
        spec,
        name,
        _labelled(train, label, names),
        _labelled(_rows(found, validation, name), label, names) if validation else None,
        read_test if "test" in found or validation else None,
        names,
    )


def _load(name: str, path: str, config: str | None) -> Any:
    state = prepare_hub()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        return datasets.load_dataset(path, config)
    # The library passes on what its HTTP client, parsers and file systems raise: no list of
    # those would be complete.
    except Exception as error:
        raise _refused(name, state, error) from error


def _refused(name: str, state: str, error: Exception) -> PeftsearchError:
    import datasets

    why = " ".join(str(error).split())[:300]
    if isinstance(error, datasets.exceptions.DatasetBuildError):
        return DataError(f"'{name}': its files cannot be read as one table ({why})")
    if isinstance(error, ValueError) and ("onfig name" in why or "BuilderConfig" in why):
        return DataError(f"'{name}': {why}")
    if "scripts are no longer supported" in why:
        return DataError(f"'{name}' needs code of its own, which is never run; give local files")
    reason = state or (f" ({why})" if why else "")
    return MissingError(
        f"data set '{name[:100]}' is not to be had from the Hugging Face Hub here{reason}: check "
        "the name and the connection (a data set loaded once is kept for work without one), or "
        "give local files with --train, --text and --label"
    )


def _rows(found: Any, split: str, name: str) -> Rows:
    return Rows(f"{name} {split}", found[split].to_pandas().astype(object))


def _labelled(rows: Rows, label: str | None, names: tuple[str, ...] | None) -> Rows:
    """The rows whose label is not hidden, with a note on how many are left out.

    Without class names −1 may be a label like any other, unless there is no other.
    """
    if label is None or label not in rows.table.columns:
        return rows
    hidden = rows.table[label].map(lambda value: value == _HIDDEN).astype(bool)
    if not hidden.any() or (names is None and not hidden.all()):
        return rows
    note = f"{rows.name}: {int(hidden.sum()):,} rows without a label (−1) left out"
    return Rows(rows.name, rows.table[~hidden], (*rows.notes, note))


def _class_names(data: Any, label: str | None) -> tuple[str, ...] | None:
    names = getattr(data.features.get(label), "names", None)
    return tuple(names) if names else None
