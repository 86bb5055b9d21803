"""What a user asks of `peftsearch search`: the task, and the study that is gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from peftsearch.search.folder import StudyFolder
    from peftsearch.task.spec import TaskSpec

__all__ = [
    "default_name",
    "existing_study",
    "languages_of",
    "refuse_cohort_of_low_rungs",
    "refuse_other_low_rungs",
    "task_spec",
]


def task_spec(
    asked: dict[str, Any], seed: int, recommended: Mapping[str, Any] | None = None
) -> TaskSpec:
    """What the user said about the task, over what a space recommends; UsageError if wrong."""
    from pydantic import ValidationError

    from peftsearch.task.spec import TaskSpec

    said = {key: value for key, value in asked.items() if value not in (None, ())}
    whole = {**(recommended or {}), **said, "split_seed": seed}
    if recommended and "generation" in recommended:  # beams alone are said; its limits stay
        whole["generation"] = {**recommended["generation"], **said.get("generation", {})}
    try:
        return TaskSpec(**whole)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = str(problem["msg"]).removeprefix("Value error, ")
        raise UsageError(f"--{where.replace('_', '-')}: {message}") from error


def languages_of(said: str | None) -> tuple[str, str] | None:
    """Two codes, or None."""
    if said is None:
        return None
    codes = [code.strip() for code in said.split(",")]
    if len(codes) != 2 or not all(codes):
        raise UsageError("--languages wants two codes, source and target: en_XX,ro_RO")
    return codes[0], codes[1]


def default_name(space: str, spec: TaskSpec) -> str:
    """A study's name where the user gave none: the space's and the data's."""
    source = spec.name or Path(spec.train or "task").stem
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in f"{space}-{source}")
    return name.strip("-.")[:100] or "study"


def existing_study(
    study: str | None, studies: Path | None, space: str | None, model: str | None, spec: TaskSpec
) -> StudyFolder:
    """The study to continue; what is said about it again must be what it was begun with."""
    from peftsearch.search.folder import StudyFolder
    from peftsearch.space.space import load_space

    if study is None and space is None:
        raise UsageError("which study? give --study NAME with --resume")
    name = default_name(load_space(str(space)).name, spec) if study is None else study
    folder = StudyFolder.open(name, studies)
    info = folder.read_info()
    if space is not None and load_space(space).hash != info.space_hash:
        raise UsageError(
            f"space '{space}' is not the one study '{name}' was begun with; leave it out to go on "
            f"with {folder.space_path}, or begin a new study"
        )
    if model is not None and model != info.model:
        raise UsageError(f"study '{name}' was begun with --model {info.model}, not {model}")
    began = info.task
    for key in ("name", "train", "eval", "test", "label", "kind", "metric", "template"):
        said = getattr(spec, key)
        if said is not None and said != began.get(key):
            flag = "task" if key == "name" else key
            raise UsageError(f"study '{name}' was begun with --{flag} {began.get(key)}, not {said}")
    return folder


def refuse_cohort_of_low_rungs(cohort: int | None, low_rungs: str | None) -> None:
    """Low rungs are for CPUs, which train one configuration at a time."""
    if low_rungs is not None and cohort is not None and cohort > 1:
        raise UsageError(
            f"--cohort {cohort} with low rungs in {low_rungs}: such rungs are trained one by one; "
            "leave out one of the two"
        )


def refuse_other_low_rungs(folder: StudyFolder, said: str | None) -> None:
    """Values of one rung are compared with one another, and so are of one precision."""
    began = folder.read_info().low_rungs
    if said is not None and said != began:
        how = f"with --low-rungs {began}" if began else "without --low-rungs"
        raise UsageError(f"study '{folder.name}' was begun {how}: go on {how}")
