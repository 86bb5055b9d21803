"""Parsed `search` options: the task, a new study, or the study to resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.api.options import FIXED, Begun, Said, is_given, task_fields
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.search.limits import Limits, Means
    from peftsearch.space.file.files import Files
    from peftsearch.space.space import Space
    from peftsearch.study.new_study import NewStudy
    from peftsearch.task.spec import TaskSpec

__all__ = [
    *("default_name", "existing_study", "given", "limits_of", "means_of", "new_study"),
    *("refuse_cohort_of_low_rungs", "refuse_other_means", "seconds_of", "separator_of"),
    "task_spec",
]

DEFAULT_SPACE = "unified"


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the user gave, out of all parameters of `search`, in the form that studies
    record: repeated options as tuples, separators as characters, the artifacts' folder as a whole
    path.
    """
    said = {key: value for key, value in parameters.items() if is_given(value)}
    said |= {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    if "languages" in said:
        said["languages"] = _languages(said["languages"])
    if "artifacts" in said:
        said["artifacts"] = _artifacts(said["artifacts"])
    if "separator" in said:
        said["separator"] = separator_of(said["separator"])
    return said


def separator_of(said: str) -> str | None:
    """The character that a separator's name means (`tab`); UsageError if it cannot be one."""
    return task_spec({"separator": said}).separator


def _languages(said: str) -> tuple[str, str]:
    codes = [code.strip() for code in said.split(",")]
    if len(codes) != 2 or not all(codes):
        raise UsageError("--languages wants two codes, source and target: en_XX,ro_RO")
    return codes[0], codes[1]


def _artifacts(said: str) -> str:
    """The whole path of a folder; addresses of buckets and file:// unchanged."""
    from peftsearch.paths import absolute

    return said if "://" in said else absolute(said)


def task_spec(said: Said, recommended: Mapping[str, Any] | None = None) -> TaskSpec:
    """The task as the user described it, completed by a space's recommendation; UsageError for
    values that are not allowed.
    """
    from pydantic import ValidationError

    from peftsearch.task.spec import TaskSpec

    fields = task_fields(said)
    whole = {**(recommended or {}), **fields, "split_seed": said.get("seed", 0)}
    if recommended and "generation" in recommended:  # an option sets beams alone: keep the rest
        whole["generation"] = {**recommended["generation"], **fields.get("generation", {})}
    try:
        return TaskSpec(**whole)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = str(problem["msg"]).removeprefix("Value error, ")
        raise UsageError(f"--{where.replace('_', '-')}: {message}") from error


def default_name(space: Space, said: Said) -> str:
    """The name of a study without --study: those of the space and the data, joined."""
    spec = task_spec(said, _recommended_task(space, said, whole=False))
    source = spec.name or Path(spec.train or "task").stem
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{space.name}-{source}")
    return name.strip("-.")[:100] or "study"


def _recommended_task(space: Space, said: Said, whole: bool = True) -> Mapping[str, Any] | None:
    """The space's recommended task, None where the user names data; paths are whole, or as written
    in the space file.
    """
    recommended = space.file.recommended
    if recommended is None or "task" in said or "train" in said:
        return None
    files, task = _files_of(space), dict(recommended.task)
    for key in ("train", "eval", "test"):
        if whole and isinstance(task.get(key), str):
            task[key] = files.data(["recommended", "task", key], task[key])
    return task


def _recommended_model(space: Space) -> str | None:
    recommended = space.file.recommended
    if recommended is None:
        return None
    return _files_of(space).source(["recommended", "model"], recommended.model)


def _files_of(space: Space) -> Files:
    """Resolves the paths in a space file: beside it, or in the working folder."""
    from peftsearch.space.file.files import Files

    return Files(space.document, Path(space.document.name).parent)


def new_study(said: Said) -> NewStudy:
    """The study that the options describe, with files as the user named them, unopened."""
    from peftsearch.cli.storage import use_storage
    from peftsearch.records.storage_name import JOURNAL
    from peftsearch.space.space import load_space
    from peftsearch.study.new_study import NewStudy

    space_name = said.get("space", DEFAULT_SPACE)
    space = load_space(space_name)
    recommended = space.file.recommended
    model = said.get("model") or _recommended_model(space)
    if model is None:
        raise UsageError("no model: give --model NAME (a Hub name, a folder, or demo:minilm)")
    longest = said.get("max_length") or (recommended.max_length if recommended else None)
    return NewStudy(
        name=said["study"] if "study" in said else default_name(space, said),
        space=space,
        space_name=space_name,
        model=model,
        task=task_spec(said, _recommended_task(space, said)),
        seed=said.get("seed", 0),
        device=said.get("device", "cpu"),
        max_length=longest,
        rung_examples=said.get("eval_limit"),
        tokenizer=said.get("tokenizer"),
        target_tokenizer=said.get("target_tokenizer"),
        without=said.get("without", ()),
        low_rungs=said.get("low_rungs"),
        storage=use_storage(said["storage"]) if "storage" in said else JOURNAL,
        artifacts=said.get("artifacts"),
    )


def existing_study(said: Said) -> StudyFolder:
    """The study to resume. UsageError for options that differ from those it was begun with."""
    from peftsearch.records.folder import StudyFolder
    from peftsearch.space.space import load_space

    if "study" not in said and "space" not in said:
        raise UsageError("which study? give --study NAME with --resume")
    space = load_space(said["space"]) if "space" in said else None
    name = said["study"] if "study" in said or space is None else default_name(space, said)
    folder = StudyFolder.open(name, said.get("studies"))
    info = folder.read_info()
    if space is not None and space.hash != info.space_hash:
        raise UsageError(
            f"space '{said['space']}' is not the one study '{name}' was begun with; leave it out "
            f"to go on with {folder.space_path}, or begin a new study"
        )
    task_spec(said)  # refuses values that no study may have
    _refuse_differences(said, Begun(folder, info))
    return folder


def _refuse_differences(said: Said, begun: Begun) -> None:
    """UsageError, in one sentence, for all options that differ from those of the study."""
    found = [option.difference(said[option.name], begun) for option in FIXED if option.name in said]
    differences = [one for one in found if one is not None]
    if differences:
        raise UsageError(
            f"study '{begun.folder.name}' was begun with {'; with '.join(differences)}: leave out "
            "what differs to go on with it, or begin a new study"
        )


def seconds_of(minutes: float | None, hours: float | None) -> float | None:
    if minutes is not None and hours is not None:
        raise UsageError("give --minutes or --hours, not both")
    seconds = minutes * 60 if minutes is not None else hours * 3600 if hours is not None else None
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError("--minutes and --hours want a number; leave both out for no limit")
    return seconds


def limits_of(said: Said, waits: bool) -> Limits:
    from peftsearch.search.limits import Limits

    seconds = seconds_of(said.get("minutes"), said.get("hours"))
    return Limits(said.get("trials"), seconds, waits)


def means_of(said: Said) -> Means:
    from peftsearch.search.limits import Means

    return Means(said.get("threads", 1), said.get("cohort"), said.get("device"))


def refuse_other_means(folder: StudyFolder, means: Means) -> None:
    """UsageError for a device that is missing or cannot compute the study's low rungs, and for a
    cohort of them.
    """
    from peftsearch.backbone.device import refuse_unknown_device
    from peftsearch.space.space import load_space
    from peftsearch.study.low_rungs import refuse_low_rungs

    info = folder.read_info()
    device = means.device or info.device
    refuse_unknown_device(device)
    refuse_cohort_of_low_rungs(means.cohort, info.low_rungs)
    if info.low_rungs is not None:
        refuse_low_rungs(info.low_rungs, load_space(str(folder.space_path)), device)


def refuse_cohort_of_low_rungs(cohort: int | None, low_rungs: str | None) -> None:
    """UsageError for cohorts with low rungs, which CPUs train one configuration at a time."""
    if low_rungs is not None and cohort is not None and cohort > 1:
        raise UsageError(
            f"--cohort {cohort} with low rungs in {low_rungs}: such rungs are trained one by one: "
            "leave out one of the two"
        )
