"""`peftsearch.search`: a search from Python, with the names and defaults of the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

from peftsearch.api.create import create_from_options
from peftsearch.api.frames import data_path
from peftsearch.api.keywords import KeywordDisplay, keywords_in_errors
from peftsearch.api.options import Options
from peftsearch.api.progress.display import display_for
from peftsearch.api.request import limits_of, worker_settings
from peftsearch.api.resume import study_to_resume
from peftsearch.api.study import Study
from peftsearch.api.values import is_off, parse_options

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from peftsearch.api.progress.display import Display
    from peftsearch.records.folder import StudyFolder
    from peftsearch.space.space import Space

__all__ = ["search"]

PathText: TypeAlias = str | PathLike[str]
Data: TypeAlias = "PathText | pd.DataFrame | datasets.Dataset"


def search(
    space: PathText | Space | None = None,
    model: PathText | None = None,
    task: str | None = None,
    *,
    train: Data | None = None,
    eval: Data | None = None,
    test: Data | None = None,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    kind: str | None = None,
    metric: str | None = None,
    positive: str | None = None,
    template: str | None = None,
    no_header: bool = False,
    separator: str | None = None,
    beams: int | None = None,
    languages: str | tuple[str, str] | None = None,
    study: str | None = None,
    studies: PathText | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    hours: float | None = None,
    workers: int | None = None,
    threads: int | None = None,
    cohort: int | None = None,
    storage: str | None = None,
    artifacts: PathText | None = None,
    seed: int | None = None,
    device: str | None = None,
    max_length: int | None = None,
    max_target: int | None = None,
    tokenizer: PathText | None = None,
    target_tokenizer: PathText | None = None,
    train_examples: int | None = None,
    eval_examples: int | None = None,
    eval_limit: int | None = None,
    without: str | Sequence[str] | None = None,
    low_rungs: str | None = None,
    sampler: str | None = None,
    stopping: bool = True,
    landmarks: str | None = None,
    resume: bool = False,
    progress: bool | Callable[[str], object] = True,
) -> Study:
    """Search a space for the best configuration at every parameter budget; returns the study.

    Options have the names and defaults of `peftsearch search`, where `--help` lists them
    (`--no-stopping` is `stopping=False`):

    - `space`: a shipped space, a YAML file or a `Space` (default: `"unified"`)
    - `model`: a name on the Hub, a folder of a saved model, or `"demo:minilm"`
    - the data: `task` (`"owner/dataset:config"`, `"demo:tweets"`), or `train` and, if there are
      some, `eval` and `test`: files, pandas frames, or a `datasets.Dataset` each. Frames are
      written to `STUDIES/.data/`, where the study finds them when it is resumed.
    - `text` and `label`: names of columns (default: guessed, with a note)
    - when it ends: `trials`, `minutes` or `hours`; what it takes: `workers` (processes, default 1,
      or one a GPU), `threads` each, `device`
    - `study`: its name (default: that of the space and of the data); `studies`: the folder of
      studies (default: `./studies`)
    - `sampler` proposes configurations: `"tpe"` (the default), `"nsga2"` or `"random"`;
      `stopping=False` trains every trial to full length
    - `landmarks`: the published methods that are trained for comparison: `"none"`, `"lora"` (the
      default for spaces with LoRA, except recipes) or `"all"`
    - `resume=True` continues a study; options given again must not differ

    `progress`: True shows a bar in notebooks and the command line's messages elsewhere, False shows
    nothing; a function is called with each message.

    Workers are separate processes that do not import the calling script: no
    `if __name__ == "__main__":` is needed, and notebooks and `python -` work. Ctrl-C, or a
    notebook's stop button, lets workers save their trials, which takes seconds, and raises
    Interrupted; a second one ends them at once. Nothing is lost: `resume=True` continues.
    (Before the workers start, while the data are read, it is a plain KeyboardInterrupt.)

    Raises UsageError, SpaceError, DataError or MissingError for invalid arguments, before anything
    is written; NothingFeasible if no configuration reached full length.

    >>> study = peftsearch.search(
    ...     "space.yaml", model="tiny-bert", train="reviews.csv", study="reviews", trials=1,
    ...     progress=False,
    ... )
    >>> list(study.frontier().index)
    [0]
    """
    parameters = dict(locals())
    display = KeywordDisplay(display_for(parameters.pop("progress")))
    with keywords_in_errors():
        parameters["no_stopping"] = is_off("stopping", parameters.pop("stopping"))
        return _search(parameters, display)


def _search(parameters: Mapping[str, Any], display: Display) -> Study:
    data = {name: parameters[name] for name in ("train", "eval", "test")}
    options = parse_options({name: value for name, value in parameters.items() if name not in data})
    limits_of(options, wait_for_others=False)  # refused first
    paths = {name: data_path(one, name, options.get("studies")) for name, one in data.items()}
    options |= parse_options(paths)
    resume_call = _resume_call(options.get("study", "…"), options)
    folder = (
        study_to_resume(options)
        if "resume" in options
        else create_from_options(options, display.line, resume_call)
    )
    return _searched(folder, options, display)


def _searched(folder: StudyFolder, options: Options, display: Display) -> Study:
    from peftsearch.api.watch import watch_local
    from peftsearch.records.storage_name import is_database
    from peftsearch.workers.run import run_search

    limits = limits_of(options, wait_for_others=is_database(folder.read_info().storage))
    settings, workers = worker_settings(options), options.get("workers")
    outcome = watch_local(run_search, folder, limits, workers, settings, display)
    outcome.report_or_raise(display.line, _resume_call(folder.name, options))
    return Study(folder)


def _resume_call(name: str, options: Options) -> str:
    """The call that resumes a study."""
    studies = options.get("studies")
    place = "" if studies is None else f", studies={str(studies)!r}"
    return f"peftsearch.search(study={name!r}{place}, resume=True)"
