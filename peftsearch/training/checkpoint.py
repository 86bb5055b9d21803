"""Checkpoints: everything that a run needs to continue bit for bit, as one file.

Data order, dropout and learning rates are functions of the seed and the step, so no random state
and no schedule is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from peftsearch.errors import ConfigurationError, DataError
from peftsearch.training.average import WeightAverage
from peftsearch.training.model import TunedModel
from peftsearch.training.tensor_file import load_tensors, number_in, save_tensors

__all__ = ["Progress", "load_checkpoint", "run_facts", "save_checkpoint"]

_OPTIMISER, _AVERAGE = "optimiser/", "average/"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Progress:
    """Progress of a run, and its cost in seconds."""

    step: int = 0
    """Optimiser steps taken."""
    smoothed_loss: float | None = None
    first_loss: float = 0.0
    """The loss that a rise is measured against."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    eval_s: float = 0.0
    """The part of `wall_s` spent on evaluations."""
    eval_cpu_s: float = 0.0
    """The part of `cpu_s` spent on evaluations."""
    peak_rss_bytes: int | None = None
    """See `PeakMemory`."""
    peak_device_bytes: int | None = None
    cohort: int = 1
    """The most runs that shared a pass, this one included."""

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any], full_steps: int) -> Progress:
        """Read from a checkpoint's facts; KeyError or ValueError if they make no sense."""
        step = int(number_in(facts, "step"))
        if step > full_steps:
            raise ValueError(f"step {step} of {full_steps}")
        has_loss = facts["smoothed_loss"] is not None
        return cls(
            step=step,
            smoothed_loss=number_in(facts, "smoothed_loss") if has_loss else None,
            # Checkpoints of earlier versions have none of the facts with a default.
            first_loss=number_in(facts, "first_loss", 0.0),
            wall_s=number_in(facts, "wall_s"),
            cpu_s=number_in(facts, "cpu_s"),
            eval_s=number_in(facts, "eval_s", 0.0),
            eval_cpu_s=number_in(facts, "eval_cpu_s", 0.0),
            peak_rss_bytes=_count_in(facts, "peak_rss_bytes"),
            peak_device_bytes=_count_in(facts, "peak_device_bytes"),
            cohort=int(number_in(facts, "cohort", 1)),
        )


def _count_in(facts: Mapping[str, Any], key: str) -> int | None:
    return None if facts.get(key) is None else int(number_in(facts, key))


def run_facts(model: TunedModel, seed: int, progress: Progress) -> dict[str, Any]:
    """The facts beside a run's tensors: its identity (configuration and seed) and progress."""
    return {"configuration_hash": model.configuration.hash, "seed": seed} | asdict(progress)


def save_checkpoint(
    path: Path,
    model: TunedModel,
    average: WeightAverage,
    optimiser: Optimizer | None,
    seed: int,
    progress: Progress,
) -> None:
    """Write trained tensors, their averages and the optimiser's state to `path`, atomically."""
    tensors: dict[str, Tensor] = dict(model.parameters)
    tensors |= {f"{_AVERAGE}{name}": value for name, value in average.values.items()}
    for name, parameter in model.parameters.items():
        state = optimiser.state.get(parameter, {}) if optimiser else {}
        for key, value in state.items():
            tensors[f"{_OPTIMISER}{key}/{name}"] = value
    save_tensors(path, tensors, run_facts(model, seed, progress))


def load_checkpoint(
    path: Path,
    model: TunedModel,
    average: WeightAverage,
    optimiser: Optimizer | None,
    seed: int,
    full_steps: int,
) -> Progress:
    """Copy a checkpoint's tensors into the model, averages and optimiser; returns its progress.

    Raises DataError if the file belongs to another run, which leaves everything as it was, or is
    damaged, after which some of the tensors may have been copied: the run is then useless.
    """
    tensors, facts = load_tensors(path)
    if (facts.get("configuration_hash"), facts.get("seed")) != (model.configuration.hash, seed):
        raise DataError(f"{path}: a checkpoint of another configuration or seed")
    try:
        progress = Progress.of_facts(facts, full_steps)
        own, averages, states = _by_owner(tensors)
        model.load(own)
        average.load(averages)
        for name, parameter in model.parameters.items():
            assert optimiser is not None
            _load_state(optimiser, name, parameter, states, model.optimisations.fused, progress)
    except (ConfigurationError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a whole checkpoint ({error})") from error
    return progress


_Tensors = dict[str, Tensor]


def _by_owner(tensors: _Tensors) -> tuple[_Tensors, _Tensors, _Tensors]:
    """The model's tensors, the averages and the optimiser's states, the last two without prefix."""
    states = {n: t for n, t in tensors.items() if n.startswith(_OPTIMISER)}
    averages = {n: t for n, t in tensors.items() if n.startswith(_AVERAGE)}
    own = {n: t for n, t in tensors.items() if n not in states | averages}
    return (
        own,
        {n.removeprefix(_AVERAGE): t for n, t in averages.items()},
        {n.removeprefix(_OPTIMISER): t for n, t in states.items()},
    )


def _load_state(
    optimiser: Optimizer,
    name: str,
    parameter: Tensor,
    states: _Tensors,
    fused: bool,
    progress: Progress,
) -> None:
    """Set the optimiser's state of one parameter, kept in the file as `KEY/NAME`."""
    keyed = ((n.split("/", 1), tensor) for n, tensor in states.items())
    state = {key: tensor for (key, owner), tensor in keyed if owner == name}
    # Before its first step AdamW has no state.
    if progress.step and not _fits(state, parameter):
        raise ValueError(f"the optimiser's state of '{name}' does not fit it")
    # The fused AdamW keeps its count of steps on the device, the others on the CPU.
    optimiser.state[parameter] = {
        key: value.to(parameter.device if value.ndim or fused else "cpu")
        for key, value in state.items()
    }


def _fits(state: _Tensors, parameter: Tensor) -> bool:
    """Whether AdamW can continue from a state: its moments have the parameter's shape and dtype,
    its count of steps is a scalar.
    """
    if state.keys() != {"step", *_MOMENTS}:
        return False
    step = state["step"]
    alike = all(
        state[key].shape == parameter.shape and state[key].dtype == parameter.dtype
        for key in _MOMENTS
    )
    return alike and step.shape == torch.Size() and step.dtype in (torch.float32, torch.float64)
