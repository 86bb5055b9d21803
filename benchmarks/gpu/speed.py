"""MiniLM with LoRA: Trainer + peft, and 1 to 32 configurations on one pass, in fp32, tf32 and bf16.

    python speed.py [SECONDS THAT IT MAY TAKE]

Milliseconds of a pass by the clock, of the host's work in it by part, of the GPU's kernels; peak
memory; and seconds of whole trials. `step_ms`: a step of one configuration.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from common import ON_GPU, Facts, seconds_asked
from cuda_graphs import always_record
from host_parts import host_parts
from members import begin, precision, together, workbench
from timing import kernels_of, peak_gib, repeated, reset_peak, wait

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.training.bench import Workbench
from peftsearch.training.optimisations import Optimisations

_MIXED = (
    *("lora", "mam", "houlsby", "bitfit"),
    *("prefix", "scaled-parallel-adapter", "ia3", "lora-all"),
)
_TRAIN, _EVAL, _BATCH = (2000, 500, 32) if ON_GPU else (32, 8, 4)
_WARM, _TIMED, _TRIAL = (60, 64, 63) if ON_GPU else (1, 2, 1)
"""Passes before those that are timed (graphs are captured in the meantime), passes that are timed,
and steps of a whole trial.
"""
_PATIENCE_S = 4.0
"""Fewer passes if they take longer."""
_ONE, _SOME, _MANY, _MOST = (1, 4, 16, 32) if ON_GPU else (1, 2, 3, 4)
"""Configurations on a pass."""

Arm = tuple[str, Callable[[], dict[str, Any]]]
"""Name, and the measurement."""


def bench(name: str = "fp32") -> Workbench:
    return workbench(precision(name), _TRAIN, _EVAL)


def configuration(name: str = "fp32", method: str = "lora") -> Configuration:
    """LoRA of rank 8 on queries and values of all layers, as Trainer has it; or another method."""
    training = Training(batch_size=_BATCH, head_lr=5e-3, precision=precision(name))
    own = METHODS[method].configuration(Head("first"), training)
    eight = tuple(m.with_width(8) if m.form.name == "linear" else m for m in own.modifications)
    return Configuration(eight, own.head, own.training)


def configurations(count: int, name: str, methods: Sequence[str]) -> list[Configuration]:
    return [configuration(name, methods[i % len(methods)]) for i in range(count)]


def trainer(name: str = "fp32", documented: bool = False) -> dict[str, Any]:
    """Trainer with peft, as documented or with every switch."""
    import trainer as own  # peft and Trainer take seconds to import

    arm = own.documented if documented else own.every_switch
    return arm(bench(name), configuration(name))


def alone() -> dict[str, float]:
    """One by itself, as `--cohort 1` trains it: no graphs, but whatever else one alone saves."""
    own = bench()
    with begin(own, own.backbone, configuration(), optimisations=Optimisations()) as run:
        run.train_to(_WARM)
        wait()
        began = time.perf_counter()
        run.train_to(_WARM + _TIMED)
        wait()
        return {"step_ms": round(1000 * (time.perf_counter() - began) / _TIMED, 3)}


def passes(
    count: int,
    name: str = "fp32",
    methods: Sequence[str] = ("lora",),
    graphs: bool = True,
    shuffled: bool = False,
    listed: bool = False,
) -> dict[str, Any]:
    """Passes of members that stay together. `shuffled`: each with an order of texts of its own;
    `listed`: the longest kernels are printed.
    """
    reset_peak()
    seeds = range(count) if shuffled else None
    ones = configurations(count, name, methods)
    with together(bench(name), ones, seeds, graphs) as members:
        repeated(members.step, _WARM, _PATIENCE_S)
        wait()
        members.replays = 0
        with host_parts() as host:
            began = time.perf_counter()
            done = repeated(members.step, _TIMED, _PATIENCE_S)
            wait()
            pass_ms = 1000 * (time.perf_counter() - began) / done
        found = {"pass_ms": pass_ms, "step_ms": pass_ms / count, "peak_gib": peak_gib()}
        found |= {f"host_{part}_ms": 1000 * seconds / done for part, seconds in host.items()}
        found |= {"replayed": members.replays / done, "passes": done}
        if ON_GPU or listed:  # profiling takes long on a CPU
            found |= kernels_of(members.step, f"{count} members, {name}" if listed else None)
    return {key: round(value, 3) for key, value in found.items()} | {"notes": members.notes}


def trials(count: int, name: str = "fp32") -> dict[str, Any]:
    """Seconds of whole trials side by side: attached, 63 steps, each evaluated on 500 tweets."""
    marks = [time.perf_counter()]

    def mark() -> None:
        wait()
        marks.append(time.perf_counter())

    own = bench(name)
    with together(own, configurations(count, name, ("lora",))) as members:
        mark()
        for _ in range(_TRIAL):
            members.step()
        mark()
        losses = [float(run.evaluate(own.validation).losses.mean()) for run in members.runs]
        mark()
    each = [(end - begin) / count for begin, end in pairwise(marks)]
    names = ("attach_s", "train_s", "evaluate_s")
    found = {part: round(seconds, 4) for part, seconds in zip(names, each, strict=True)}
    return found | {"trials_an_hour": round(3600 / sum(each)), "loss": losses[0]}


def trials_without_cudnn(count: int, name: str) -> dict[str, Any]:
    """cuDNN, torch's first choice for attention in half precision, plans anew for every shape."""
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        return trials(count, name)
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


def arms() -> Iterator[Arm]:
    """In order of importance: time may run out."""
    yield "(a) Trainer + peft, as documented", partial(trainer, documented=True)
    yield "(b) Trainer + peft, every switch", trainer
    yield "alone, fp32", alone
    for count in (_ONE, _SOME, _MANY, _MOST):
        listed = count in (_ONE, _MANY)
        yield f"{count} lora, fp32", partial(passes, count, listed=listed)
    for count in (_ONE, _MANY):
        yield f"{count} lora, fp32, no graphs", partial(passes, count, graphs=False)
    for name in ("tf32", "bf16"):
        for count in (_ONE, _MANY, _MOST):
            listed = count == _MANY
            yield f"{count} lora, {name}", partial(passes, count, name, listed=listed)
    yield f"{_MANY} trials, fp32", partial(trials, _MANY)
    yield "1 trial, fp32", partial(trials, 1)
    yield f"{_MANY} trials, bf16", partial(trials, _MANY, "bf16")
    yield f"{_MANY} trials, bf16, no cuDNN", partial(trials_without_cudnn, _MANY, "bf16")
    yield "8 mixed, fp32", partial(passes, 8, methods=_MIXED)
    if ON_GPU:
        yield "32 mixed, fp32", partial(passes, 32, methods=_MIXED, listed=True)
    yield f"{_MANY} lora, fp32, each its own order", partial(passes, _MANY, shuffled=True)
    yield "(b) in tf32", partial(trainer, "tf32")
    yield "(b) in bf16", partial(trainer, "bf16")
    for name in ("tf32", "bf16"):
        yield f"{_SOME} lora, {name}", partial(passes, _SOME, name)


def main(arguments: list[str]) -> None:
    if ON_GPU:  # emulated graphs would slow a CPU down
        always_record()
    facts = Facts("speed", seconds_asked(arguments))
    for name, measure in arms():
        facts.add(name, measure)
    facts.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
