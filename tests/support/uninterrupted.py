"""Trials of a study trained again in one go, to compare with those that were cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from peftsearch.design.configuration import Configuration
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.records.trial_folder import TrialFolder
from peftsearch.study.settings import budget_of, space_of, task_of
from peftsearch.study.study import Assignment
from peftsearch.training.bench import Workbench, set_threads
from peftsearch.workers.trial import TrialRunner
from support.verdicts import verdict

__all__ = ["uninterrupted", "without_clock"]


def uninterrupted(
    folder: StudyFolder, results: list[TrialResult], root: Path
) -> Iterator[tuple[TrialResult, tuple[RungValue, ...]]]:
    """Each trial again, in a folder of `root`, from its beginning to the rung where it ended."""
    info = folder.read_info()
    bench = Workbench.prepare(info.model, task_of(info), info.device, info.max_length)
    threads = torch.get_num_threads()
    for result in results:
        set_threads(result.threads or threads)  # of the worker: two threads sum in another order
        own = TrialFolder(root / str(result.number), result.number)
        runner = TrialRunner(
            bench=bench,
            budget=budget_of(space_of(folder, info), info),
            seed=info.seed,
            record=lambda _, value, own=own: own.append_rung(value),  # type: ignore[misc]
            judge=lambda _, value, last=result.rung: verdict(0, value.rung < (last or 0)),  # type: ignore[misc]
            stop=lambda: False,
        )
        configuration = Configuration.from_json(result.configuration or {})
        try:
            runner.run(Assignment(result.number, configuration, "sampled"), own)
        finally:
            set_threads(threads)
        yield result, own.read_curve()


def without_clock(curve: tuple[RungValue, ...]) -> list[RungValue]:
    return [
        value.model_copy(update={"wall_s": 0.0, "cpu_s": 0.0, "eval_s": 0.0}) for value in curve
    ]
