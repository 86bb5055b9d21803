"""Data sets by their Hub name, `owner/dataset:config`, through the `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from peftsearch.backbone.loading.hub import prepare_hub
from peftsearch.errors import DataError, MissingError, PeftsearchError, UsageError
from peftsearch.task.guess_kind import labels_in
from peftsearch.task.rows.nested import frame_of
from peftsearch.task.rows.rows import Rows
from peftsearch.task.sources.assemble import assemble
from peftsearch.task.sources.class_names import without_hidden
from peftsearch.task.sources.known import KnownDataset, KnownSplits, completed, known_dataset
from peftsearch.task.sources.splitting import VALIDATION
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

__all__ = ["load_hub"]


def load_hub(spec: TaskSpec) -> Task:
    """A data set from the Hub (or its local cache); none of its code is run. For known data sets
    the table completes the spec where the user left fields open.

    Nothing of the test split is read before `test()`, which returns None if its labels are hidden.
    """
    assert spec.name is not None
    name, row = spec.name, known_dataset(spec.name)
    found = _found(row.name if row else name)
    splits = _splits(name, found, row)
    spec = completed(spec, row) if row else spec
    train = _rows(found, splits.train, name)
    if row:
        train = replace(train, notes=(*train.notes, row.note(spec)))
    label, names = labels_in(spec, train)

    def read(split: str) -> Rows:
        rows = _rows(found, split, name)
        return without_hidden(rows, label, names)

    def read_test() -> Rows | None:
        rows = read(splits.test) if splits.test else None
        return None if rows is None or rows.table.empty else rows

    return assemble(
        spec,
        name,
        without_hidden(train, label, names),
        read(splits.validation) if splits.validation else None,
        read_test if splits.test or splits.validation else None,
    )


def _found(name: str) -> Any:
    """The splits of `owner/dataset:config`, without reading any rows."""
    path, _, config = name.partition(":")
    if not path.strip():
        raise UsageError(
            f"--task '{name}': a data set's name is owner/dataset or owner/dataset:config"
        )
    state = prepare_hub()
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    # The library passes on what its HTTP client, parsers and file systems raise: no list of
    # those would be complete.
    try:
        return datasets.load_dataset(path, config or None)
    except Exception as error:
        if not _needs_code(error):
            raise _refused(name, state, error) from error
        first = error
    try:
        return _converted(path, config)
    except Exception as error:
        raise _refused(name, state, first) from error


def _converted(path: str, config: str) -> Any:
    """The Hub's own parquet files of a data set whose repository holds a script: one folder a
    config, https://huggingface.co/docs/dataset-viewer/parquet.
    """
    import datasets

    return datasets.load_dataset(
        path, data_dir=config or "default", revision="refs/convert/parquet"
    )


def _needs_code(error: Exception) -> bool:
    return "scripts are no longer supported" in str(error)


def _refused(name: str, state: str, error: Exception) -> PeftsearchError:
    import datasets

    why = " ".join(str(error).split())[:300]
    if isinstance(error, datasets.exceptions.DatasetBuildError):
        return DataError(f"'{name}': its files cannot be read as one table ({why})")
    if isinstance(error, ValueError) and ("onfig name" in why or "BuilderConfig" in why):
        return DataError(f"'{name}': {why}")
    if _needs_code(error):
        return DataError(
            f"'{name}' needs its own loading script, which is never run, and the Hub has no "
            "converted tables: give local files, or name a config (owner/dataset:config)"
        )
    reason = state or (f" ({why})" if why else "")
    return MissingError(
        f"data set '{name[:100]}' cannot be loaded from the Hugging Face Hub{reason}: check "
        "the name and the connection (a data set loaded before is cached for offline use), or "
        "give local files with --train, --text and --label"
    )


def _splits(name: str, found: Any, row: KnownDataset | None) -> KnownSplits:
    """The splits of the known row, else those with the usual names; DataError if one is missing."""
    validation = next((split for split in VALIDATION if split in found), None)
    usual = KnownSplits(
        train="train", validation=validation, test="test" if "test" in found else None
    )
    splits = row.splits if row else usual
    for split in (splits.train, splits.validation, splits.test):
        if split is not None and split not in found:
            raise DataError(f"'{name}' has no {split} split; it has: {', '.join(map(str, found))}")
    return splits


def _rows(found: Any, split: str, name: str) -> Rows:
    shown, data = f"{name} {split}", found[split]
    table = frame_of(shown, data.with_format("arrow")[:])
    return Rows(shown, table, classes=dict(_class_names("", data.features)))


def _class_names(within: str, features: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Class names by column, for indices or lists of indices; nested columns' names have a dot."""
    for column, feature in features.items():
        if isinstance(feature, dict):
            yield from _class_names(f"{within}{column}.", feature)
            continue
        if isinstance(feature, list):  # of one kind of thing, in old versions
            feature = feature[0]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            yield f"{within}{column}", tuple(names)
