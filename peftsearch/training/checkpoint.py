"""The state of a run under way, as a file: what a checkpoint holds, and going on from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftsearch.errors import ConfigurationError, DataError
from peftsearch.training.tensor_file import load_tensors, number_in, save_tensors

if TYPE_CHECKING:
    from peftsearch.training.loop import TrainingRun

__all__ = ["facts_of", "restore_run", "save_run"]

_OPTIMISER, _AVERAGE = "optimiser/", "average/"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_run(run: TrainingRun, path: Path) -> None:
    """Tuned tensors and head, their averages, the optimiser's state, and `facts_of`."""
    tensors: dict[str, Tensor] = dict(run.model.parameters)
    tensors |= {f"{_AVERAGE}{name}": value for name, value in run.average.values.items()}
    for name, parameter in run.model.parameters.items():
        state = run.optimiser.state.get(parameter, {}) if run.optimiser else {}
        for key, value in state.items():
            tensors[f"{_OPTIMISER}{key}/{name}"] = value
    save_tensors(path, tensors, facts_of(run))


def facts_of(run: TrainingRun) -> dict[str, Any]:
    """Whose state it is, how far it came, and what it cost."""
    return {
        "configuration_hash": run.model.configuration.hash,
        "seed": run.seed,
        "step": run.step,
        "smoothed_loss": run.watch.smoothed,
        "first_loss": run.watch.first,
        "wall_s": run.wall_s,
        "cpu_s": run.cpu_s,
        "eval_s": run.eval_s,
        "cohort": run.cohort,
    }


def restore_run(run: TrainingRun, path: Path) -> None:
    """The inverse of `save_run`; DataError if the file belongs to another run or is damaged: the
    run is then useless.
    """
    tensors, facts = load_tensors(path)
    own = (run.model.configuration.hash, run.seed)
    if (facts.get("configuration_hash"), facts.get("seed")) != own:
        raise DataError(f"{path}: a checkpoint of another configuration or seed")
    try:
        _take_facts(run, facts)
        _take_tensors(run, tensors)
    except (ConfigurationError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole checkpoint ({error})") from error


def _take_facts(run: TrainingRun, facts: dict[str, Any]) -> None:
    run.step = int(number_in(facts, "step"))
    if run.step > run.full_steps:
        raise ValueError(f"step {run.step} of {run.full_steps}")
    if facts["smoothed_loss"] is not None:
        run.watch.smoothed = number_in(facts, "smoothed_loss")
    run.watch.first = number_in(facts, "first_loss", 0.0)
    run.wall_s, run.cpu_s = number_in(facts, "wall_s"), number_in(facts, "cpu_s")
    run.eval_s = number_in(facts, "eval_s", 0.0)
    run.cohort = int(number_in(facts, "cohort", 1))


def _take_tensors(run: TrainingRun, tensors: dict[str, Tensor]) -> None:
    state = {n: t for n, t in tensors.items() if n.startswith(_OPTIMISER)}
    average = {n: t for n, t in tensors.items() if n.startswith(_AVERAGE)}
    run.model.load({n: t for n, t in tensors.items() if n not in state | average})
    run.average.load({n.removeprefix(_AVERAGE): t for n, t in average.items()})
    fused = run.model.optimisations.fused  # then the count of steps is on the device, too
    for name, parameter in run.model.parameters.items():
        assert run.optimiser is not None
        own = {
            key.split("/", 2)[1]: value
            for key, value in state.items()
            if key.split("/", 2)[2] == name
        }
        if run.step and not _fits(own, parameter):
            raise ValueError(f"the optimiser's state of '{name}' does not fit it")
        run.optimiser.state[parameter] = {
            key: value.to(parameter.device if value.ndim or fused else "cpu")
            for key, value in own.items()
        }


def _fits(state: dict[str, Tensor], parameter: Tensor) -> bool:
    """Whether AdamW can go on from it."""
    if state.keys() != {"step", *_MOMENTS}:
        return False
    step = state["step"]
    alike = all(
        state[key].shape == parameter.shape and state[key].dtype == parameter.dtype
        for key in _MOMENTS
    )
    return alike and step.shape == torch.Size() and step.dtype in (torch.float32, torch.float64)
