"""Whether a GPU computes what it should: members as alone, graphs as ordinary passes, same bits.

    python checks.py [BEGINNING OF A CHECK'S NAME ...]

Without names all checks. Differences are shares of a run's largest value. Those that peftsearch
promises a limit for say whether they `passed`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from common import DEVICE, ON_GPU, Facts, measured
from cuda_graphs import always_record
from members import begin, model, precision, together, workbench
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.training.bench import Workbench

_TWELVE = (
    *("lora", "mam", "houlsby", "bitfit", "prefix", "scaled-parallel-adapter"),
    *("ia3", "lora-all", "dora", "unipelt", "ln-tuning", "loreft"),
)
_METHODS = _TWELVE if ON_GPU else _TWELVE[:2]
_IN_BF16 = ("prefix", "ln-tuning", "bitfit") if ON_GPU else ()
_STEPS, _REPLAYED_STEPS = (10, 40) if ON_GPU else (2, 8)
_BATCH, _LENGTH = (8, 48) if ON_GPU else (2, 16)
_TRAIN, _EVAL = (256, 64) if ON_GPU else (32, 8)

_FP64 = 1e-9
"""Members against the same alone, over 20 AdamW steps (docs/performance.md)."""
_LOSSES = 1e-4
"""Losses in fp32 on two devices, in nats: 24 bits, and sums in another order."""
_GRAPHS = 1e-3
"""With graphs and without, as the test of graphs on a GPU has it; no bit should differ."""

State = dict[str, Tensor]


def bench(name: str = "fp32") -> Workbench:
    return workbench(precision(name), _TRAIN, _EVAL, _LENGTH)


def configuration(name: str, computed_in: str = "fp32") -> Configuration:
    """A method; those with names of even length read the first token, the others all."""
    training = Training(batch_size=_BATCH, head_lr=5e-3, precision=precision(computed_in))
    return METHODS[name].configuration(Head("mean" if len(name) % 2 else "first"), training)


def trained(
    names: Sequence[str], steps: int = _STEPS, computed_in: str = "fp32", **how: Any
) -> tuple[list[State], int, list[str]]:
    """Members after so many passes, the number of replays, and notes. Seeds differ, and with them
    texts and lengths.
    """
    ones = [configuration(name, computed_in) for name in names]
    with together(bench(computed_in), ones, range(len(ones)), **how) as members:
        for _ in range(steps):
            members.step()
        return members.values(), members.replays, members.notes


def trained_alone(name: str, seed: int, backbone: Backbone) -> State:
    """The same member by itself."""
    with begin(bench(), backbone, configuration(name), seed) as run:
        run.train_to(_STEPS)
        return {key: value.detach().double().cpu() for key, value in run.model.parameters.items()}


def furthest(found: State, expected: State) -> float:
    """The largest difference, as a share of the largest expected value."""
    # Tensors, whose maximum of a NaN is NaN: Python's `max` may pass over it.
    largest = torch.stack([value.abs().max() for value in expected.values()]).max()
    differences = [(found[name] - expected[name]).abs().max() for name in expected]
    return float(torch.stack(differences).max() / largest)


def alone(dtype: torch.dtype) -> dict[str, Any]:
    """Members of a cohort against the same configurations alone."""
    backbone = load_backbone(model(), DEVICE, dtype)
    found, _, _ = trained(_METHODS, graphs=False, backbone=backbone)
    expected = [trained_alone(name, seed, backbone) for seed, name in enumerate(_METHODS)]
    each = dict(zip(_METHODS, map(furthest, found, expected), strict=True))
    facts = {"furthest": max(each.values()), "by_method": each}
    return facts | ({"passed": facts["furthest"] <= _FP64} if dtype == torch.float64 else {})


def graphs(names: Sequence[str], computed_in: str) -> dict[str, Any]:
    """Passes with CUDA graphs against passes without."""
    found, replays, notes = trained(names, _REPLAYED_STEPS, computed_in)
    expected, _, _ = trained(names, _REPLAYED_STEPS, computed_in, graphs=False)
    worst = max(map(furthest, found, expected))
    passed = replays > 0 and not notes and worst <= _GRAPHS
    return {"passed": passed, "replays": replays, "notes": notes, "furthest": worst}


def graphs_by_method(names: Sequence[str], computed_in: str) -> dict[str, Any]:
    """Every method by itself: which of them cannot be recorded."""
    return {name: measured(partial(graphs, [name], computed_in)) for name in names}


def waits() -> dict[str, Any]:
    """Places where the host waits for the device within a pass: there should be none."""
    if not ON_GPU:
        return {"skipped": "needs a GPU"}
    ones = [configuration(name) for name in _METHODS]
    with (
        together(bench(), ones, graphs=False) as members,
        warnings.catch_warnings(record=True) as w,
    ):
        warnings.simplefilter("always")
        for _ in range(2):
            members.step()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(4):
                members.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = {f"{one.filename}:{one.lineno} {str(one.message)[:60]}" for one in w}
    return {"passed": not places, "places": sorted(places)}


def twice() -> dict[str, Any]:
    """Whether the same is computed to the same bits again, alone and in a cohort."""
    again = {
        "alone": lambda: [trained_alone("lora", 0, bench().backbone)],
        "together": lambda: trained(_METHODS[:4], graphs=False)[0],
    }
    worst = {name: max(map(furthest, run(), run())) for name, run in again.items()}
    return {"passed": not any(worst.values()), "furthest": max(worst.values())} | worst


def evaluated() -> dict[str, Any]:
    """Losses of an evaluation on the device and on the CPU, their largest difference in nats."""
    losses = []
    for own in (bench(), workbench("fp32", _TRAIN, _EVAL, _LENGTH, "cpu")):
        with begin(own, own.backbone, configuration("lora")) as run:
            losses.append(run.evaluate(own.validation).losses)
    worst = float(abs(losses[0] - losses[1]).max())
    return {"passed": worst <= _LOSSES, "furthest": worst}


CHECKS: dict[str, Callable[[], dict[str, Any]]] = {
    # First what cannot fail in a capture, after which torch before 2.12 is not to be trusted.
    "alone, fp64": partial(alone, torch.float64),
    "alone, fp32": partial(alone, torch.float32),
    "waits, 12 methods": waits,
    "the same bits twice": twice,
    "evaluated, as on a CPU": evaluated,
    "graphs, 4 lora, fp32": partial(graphs, _METHODS[:1] * 4, "fp32"),
    "graphs, 4 lora, bf16": partial(graphs, _METHODS[:1] * 4, "bf16"),
    "graphs by method, fp32": partial(graphs_by_method, _METHODS if ON_GPU else ["lora"], "fp32"),
    "graphs, 12 methods, fp32": partial(graphs, _METHODS, "fp32"),
    "graphs by method, bf16": partial(graphs_by_method, _IN_BF16, "bf16"),
}


def main(arguments: list[str]) -> None:
    always_record()
    facts = Facts("checks")
    for name, check in CHECKS.items():
        if name.startswith(tuple(arguments or [""])):
            facts.add(name, check)
    facts.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
