"""The study to resume: opened by name, its options compared with those it was created with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftsearch.api.options import FIXED, Options, RecordedOptions
from peftsearch.api.request import (
    default_name,
    refuse_cohort_of_low_rungs,
    space_of,
    task_spec,
    worker_settings,
)
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.workers.limits import WorkerSettings

__all__ = ["existing_study", "refuse_unusable_settings", "study_to_resume"]


def study_to_resume(options: Options) -> StudyFolder:
    """The study that the options name, after checks that load nothing: its options, storage,
    device, model and data files.
    """
    from peftsearch.api.storage import apply_storage

    folder = existing_study(options)
    apply_storage(folder.name, folder.read_info().storage, options.get("storage"))
    refuse_unusable_settings(folder, worker_settings(options))
    from peftsearch.study.missing_files import refuse_missing  # with pandas

    refuse_missing(folder.read_info())
    return folder


def existing_study(options: Options) -> StudyFolder:
    """The study to resume. UsageError for options that differ from those it was created with."""
    from peftsearch.records.folder import StudyFolder

    if "study" not in options and "space" not in options:
        raise UsageError("--resume needs the name of a study: give --study NAME")
    space = space_of(options["space"]) if "space" in options else None
    name = options["study"] if "study" in options or space is None else default_name(space, options)
    folder = StudyFolder.open(name, options.get("studies"))
    info = folder.read_info()
    if space is not None and space.hash != info.space_hash:
        shown = options["space"] if isinstance(options["space"], str) else space.name
        raise UsageError(
            f"study '{name}' was not created with space '{shown}'; leave the space out "
            f"to continue with {folder.space_path}, or start a new study"
        )
    task_spec(options)  # refuses values that no study may have
    _refuse_differences(options, RecordedOptions(folder, info))
    return folder


def _refuse_differences(options: Options, recorded: RecordedOptions) -> None:
    """UsageError listing every option that differs from the study's."""
    found = [
        option.difference(options[option.name], recorded)
        for option in FIXED
        if option.name in options
    ]
    differences = [one for one in found if one is not None]
    if differences:
        raise UsageError(
            f"study '{recorded.folder.name}' was created with {'; with '.join(differences)}: "
            "leave out these options to continue it, or start a new study"
        )


def refuse_unusable_settings(folder: StudyFolder, settings: WorkerSettings) -> None:
    """UsageError for a device that is missing or does not support the study's low-precision rungs,
    and for a cohort size above 1 with such rungs; MissingError for a CPU where the space has
    precision tf32.
    """
    from peftsearch.backbone.device import refuse_tf32_on_a_cpu, refuse_unknown_device
    from peftsearch.space.space import load_space
    from peftsearch.study.low_rungs import refuse_low_rungs

    info = folder.read_info()
    device = settings.device or info.device
    refuse_unknown_device(device)
    refuse_cohort_of_low_rungs(settings.cohort, info.low_rungs)
    space = load_space(str(folder.space_path))
    if "tf32" in space.file.train.precision.choices:
        refuse_tf32_on_a_cpu(device)
    if info.low_rungs is not None:
        refuse_low_rungs(info.low_rungs, space, device)
