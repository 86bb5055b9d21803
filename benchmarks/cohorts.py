"""Cohorts: 1, 4 and 16 configurations on one pass of the backbone, beside Trainer and peft; on a
GPU with CUDA graphs and without.

    python benchmarks/cohorts.py [--device cuda] [--model demo:minilm | host]
        [--methods lora | mixed] [--sizes 1 4 16] [--steps 20] [--rounds 3] [--out FILE]

Milliseconds that one step of one configuration takes, arms interleaved in every round, the slope
between a short and a long training, so that loading and attaching do not count. On a GPU wall time,
on a CPU the process's CPU time on one thread. `--model host` is a BERT of six layers and d=16 with
batches of 2 short texts: nearly nothing is computed, and what is left is what the host does, which
is what a fast GPU waits for. On a GPU take 400 steps: then what is recorded is so within the short
training, too. (a) trains on the same device, its frozen model in the same precision. Needs the demo
extra and peft.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

sys.path.insert(0, str(Path(__file__).parent / "throughput"))

import torch  # noqa: E402
from arms import documented  # noqa: E402

from peftsearch.design.budget import TrainingBudget  # noqa: E402
from peftsearch.design.configuration import Configuration, Head, Training  # noqa: E402
from peftsearch.design.methods import METHODS  # noqa: E402
from peftsearch.task.spec import TaskSpec  # noqa: E402
from peftsearch.training.bench import Workbench  # noqa: E402
from peftsearch.training.cohort.cohort import Cohort, member_optimisations  # noqa: E402
from peftsearch.training.loop import TrainingRun  # noqa: E402
from peftsearch.training.optimisations import Optimisations  # noqa: E402

ONE_OF_EACH = (
    "lora",
    "mam",
    "houlsby",
    "bitfit",
    "prefix",
    "scaled-parallel-adapter",
    "ia3",
    "lora-all",
)
_ALL = Optimisations()
Trains = Callable[[int], None]
"""So many steps of every configuration of an arm."""


def main() -> None:
    asked = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFTSEARCH_CACHE"] = folder
        bench = _bench(asked, Path(folder))
        arms = _arms(bench, asked)
        found: dict[str, list[float]] = {name: [] for name in arms}
        for index in range(asked.rounds):
            names = list(arms)
            random.Random(index).shuffle(names)
            for name in names:
                trains, count = arms[name]
                found[name].append(_step_ms(trains, asked.steps, bench) / count)
                print(f"{index} {name}: {found[name][-1]:.2f} ms", file=sys.stderr, flush=True)
    facts = vars(asked) | {"device_name": _device_name(bench), "step_ms": found}
    if asked.out:
        asked.out.write_text(json.dumps(facts, indent=1, default=str), encoding="utf-8")
    print(_table(facts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="demo:minilm")
    parser.add_argument("--methods", choices=("lora", "mixed"), default="lora")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _bench(asked: argparse.Namespace, folder: Path) -> Workbench:
    spec = TaskSpec(name="demo:tweets", train_examples=2000, eval_examples=64)
    if asked.model != "host":
        return Workbench.prepare(asked.model, spec, asked.device, precision=asked.precision)
    asked.batch = 2
    return Workbench.prepare(str(hollow_bert(folder / "model")), spec, asked.device, max_length=8)


def hollow_bert(folder: Path) -> Path:
    """A model with MiniLM's layers and tokenizer, and hardly anything in them."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from peftsearch.backbone.loading.load import model_source

    tokenizer = AutoTokenizer.from_pretrained(model_source("demo:minilm"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _arms(bench: Workbench, asked: argparse.Namespace) -> dict[str, tuple[Trains, int]]:
    """Name → (what trains so many steps, how many configurations that is)."""
    one = _configurations("lora", 1, asked.batch)[0]
    arms: dict[str, tuple[Trains, int]] = {
        "(a) Trainer + peft, LoRA": (
            lambda steps: _trainer(bench, one, steps),
            1,
        )
    }
    kinds = {"": _ALL}
    if bench.backbone.device.type == "cuda":
        kinds[", no graphs"] = _ALL.without("graphs")
    for size in asked.sizes:
        members = _configurations(asked.methods, size, asked.batch)
        for kind, optimisations in kinds.items():
            arms[f"{size} together{kind}"] = (
                lambda steps, members=members, optimisations=optimisations: _cohort(
                    bench, members, steps, optimisations
                ),
                size,
            )
    return arms


def _configurations(methods: str, count: int, batch: int) -> list[Configuration]:
    names = ["lora"] if methods == "lora" else list(ONE_OF_EACH)
    training = Training(batch_size=batch, head_lr=5e-3)
    made = []
    for index in range(count):
        own = METHODS[names[index % len(names)]].configuration(Head("first"), training)
        made.append(replace(own, modifications=tuple(map(_eight, own.modifications))))
    return made


def _eight(modification: Any) -> Any:
    """LoRA of rank 8, which is what (a) trains."""
    return modification.with_width(8) if modification.form.name == "linear" else modification


def _trainer(bench: Workbench, one: Configuration, steps: int) -> None:
    documented(bench, one, TrainingBudget(max_steps=steps, rungs=(1.0,)), 0)


def _cohort(
    bench: Workbench, members: list[Configuration], steps: int, optimisations: Optimisations = _ALL
) -> None:
    """As a search trains them: on a CPU one is trained by itself."""
    budget = TrainingBudget(max_steps=10_000, rungs=(1.0,))

    def run_of(place: Any, one: Configuration, seed: int) -> TrainingRun:
        data = bench.train, bench.objective
        return TrainingRun(
            place, *data, one, budget, seed, optimisations=member_optimisations(optimisations)
        )

    if len(members) == 1 and bench.backbone.device.type == "cpu":
        with run_of(bench.backbone, members[0], 0) as run:
            run.train_to(steps)
        return
    cohort = Cohort.of(bench.backbone, optimisations, lambda line: print(line, file=sys.stderr))
    runs = [run_of(cohort.member_backbone(), one, seed) for seed, one in enumerate(members)]
    for _ in range(steps):
        cohort.step(runs)
    for run in runs:
        run.loss_monitor.check()
        run.model.detach()


def _step_ms(trains: Trains, steps: int, bench: Workbench) -> float:
    short, long = max(2, steps // 10), max(2, steps // 10) + steps
    return 1000 * (_seconds(trains, long, bench) - _seconds(trains, short, bench)) / steps


def _seconds(trains: Trains, steps: int, bench: Workbench) -> float:
    clock = time.perf_counter if bench.backbone.device.type == "cuda" else time.process_time
    began = clock()
    trains(steps)
    if bench.backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - began


def _device_name(bench: Workbench) -> str:
    device = bench.backbone.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"


def _table(facts: dict[str, Any]) -> str:
    reference = facts["step_ms"]["(a) Trainer + peft, LoRA"]
    lines = [
        f"{facts['model']}, {facts['methods']}, batch {facts['batch']}, {facts['device_name']}:",
        "",
        "| | ms a step and configuration | times (a) |",
        "|---|--:|--:|",
    ]
    for name, values in facts["step_ms"].items():
        ratios = [a / own for a, own in zip(reference, values, strict=True)]
        spread = f"{mean(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        lines.append(f"| {name} | {mean(values):.2f} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
