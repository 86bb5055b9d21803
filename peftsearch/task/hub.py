"""Data sets by their Hub name, `owner/dataset:config`, through the `datasets` library."""

from __future__ import annotations

from typing import Any

from peftsearch.backbone.hub import prepare_hub
from peftsearch.errors import DataError, MissingError
from peftsearch.task.assemble import assemble
from peftsearch.task.classification import ClassificationTask
from peftsearch.task.rows import Rows
from peftsearch.task.spec import TaskSpec

__all__ = ["load_hub"]

_VALIDATION = ("validation", "validation_matched", "dev", "valid")


def load_hub(spec: TaskSpec) -> ClassificationTask:
    """A classification data set from the Hub (or its local cache); no code of it is run."""
    assert spec.name is not None
    path, _, config = spec.name.partition(":")
    found = _load(spec.name, path, config or None)
    if "train" not in found:
        raise DataError(f"'{spec.name}' has no train split; it has: {', '.join(map(str, found))}")
    validation = next((name for name in _VALIDATION if name in found), None)
    train = _rows(found, "train", spec.name)
    has_test = "test" in found and _has_labels(found["test"], spec)

    def read_test() -> Rows | None:
        return _rows(found, "test", str(spec.name)) if has_test else None

    return assemble(
        spec,
        spec.name,
        train,
        _rows(found, validation, spec.name) if validation else None,
        read_test if has_test or validation else None,
        _class_names(found["train"], spec),
    )


def _load(name: str, path: str, config: str | None) -> Any:
    state = prepare_hub()
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, config)
    except ValueError as error:
        text = " ".join(str(error).split())
        if "onfig name" in text or "BuilderConfig" in text:
            raise DataError(f"'{name}': {text[:300]}") from error
        raise _not_here(name, state) from error
    except (OSError, RuntimeError) as error:
        raise _not_here(name, state) from error


def _not_here(name: str, state: str) -> MissingError:
    return MissingError(
        f"data set '{name}' is not to be had from the Hugging Face Hub here{state}: check the "
        "name and the connection, or give local files with --train, --text and --label"
    )


def _rows(found: Any, split: str, name: str) -> Rows:
    return Rows(f"{name} {split}", found[split].to_pandas().astype(object))


def _has_labels(data: Any, spec: TaskSpec) -> bool:
    """GLUE hides its test labels behind −1."""
    column = spec.label or "label"
    return column in data.column_names and set(data[column][:100]) != {-1}


def _class_names(data: Any, spec: TaskSpec) -> tuple[str, ...] | None:
    names = getattr(data.features.get(spec.label or "label"), "names", None)
    return tuple(names) if names else None
