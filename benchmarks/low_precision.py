"""Do low rungs in low precision rank configurations as exact ones do, and how much faster are they?

    python benchmarks/low_precision.py [--configurations 16] [--train 2000] [--eval 400] [--full 4]
        [--out FILE]

MiniLM and tweets; the seeds of the demo's space and random samples of it, drawn with a fixed seed.
Each is trained to the lowest rung (1/4 of two epochs) exactly, in each low precision, and exactly
with another seed, which says how far two exact values differ; the exact one goes on to full length,
the first of them (`--full`) in low precision too. Arms follow one another configuration by
configuration, each time beginning with another; one thread, CPU seconds; what is kept of frozen
states is made before and counted nowhere. FILE gets a line a trial; those it has are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from scipy.stats import kendalltau, spearmanr  # noqa: E402

from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS  # noqa: E402
from peftsearch.design.budget import TrainingBudget  # noqa: E402
from peftsearch.design.configuration import Configuration  # noqa: E402
from peftsearch.policy.seeds import seeds_of  # noqa: E402
from peftsearch.space.random_samples import draw_samples  # noqa: E402
from peftsearch.space.space import load_space  # noqa: E402
from peftsearch.task.spec import TaskSpec  # noqa: E402
from peftsearch.training.bench import Workbench  # noqa: E402
from peftsearch.training.frozen.caching_cost import SHARED_BY  # noqa: E402
from peftsearch.training.loop import TrainingRun  # noqa: E402

_EXACT, _AGAIN = "exact", "exact, another seed"
_LOW = [name for name, precision in LOW_PRECISIONS.items() if precision.is_here]
_ARMS = [_EXACT, *_LOW, _AGAIN]


def main() -> None:
    asked = _arguments()
    torch.set_num_threads(1)
    spec = TaskSpec(name="demo:tweets", train_examples=asked.train)
    bench = Workbench.prepare("demo:minilm", spec)
    budget = TrainingBudget(epochs=2, rungs=(0.25, 1.0), rung_examples=asked.eval)
    trials = _read(asked.out)
    for index, one in enumerate(_configurations(bench, asked.configurations)):
        first = index % len(_ARMS)
        for arm in _ARMS[first:] + _ARMS[:first]:
            if (one.hash, arm) in trials:
                continue
            full = arm == _EXACT or (arm in _LOW and index < asked.full)
            trials[one.hash, arm] = _trained(bench, one, arm, budget, full)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trials[one.hash, arm]) + "\n")
    print(_table(trials))


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(t["hash"], t["arm"]): t for t in map(json.loads, lines)}


def _configurations(bench: Workbench, count: int) -> list[Configuration]:
    """The space's seeds that have rungs to compare, and as many samples again as are wanted."""
    space, shapes = load_space("demo"), bench.backbone.shapes
    seeds = [s.configuration for s in seeds_of(space, shapes) if s.configuration.modifications]
    samples = draw_samples(space.on(shapes)).configurations
    some = seeds[: count // 2]
    return list({c.hash: c for c in (*some, *samples)}.values())[:count]


def _trained(
    bench: Workbench, one: Configuration, arm: str, budget: TrainingBudget, full: bool
) -> dict[str, Any]:
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, one, budget, int(arm == _AGAIN)),
        shared_by=SHARED_BY,
        low_rungs=arm if arm in _LOW else None,
    ) as run:
        for data in (bench.train, bench.validation):
            run.frozen.prepare(data, 2.0, run.model.pooled)
        found: dict[str, Any] = {"hash": one.hash, "arm": arm, "described": one.describe()}
        run.train_to(run.rung_steps[0])
        found["train_s"] = run.cpu_s
        found["rung"] = _measured(run, bench, budget.rung_examples)
        found["eval_s"] = run.cpu_s - found["train_s"]
        if full:
            run.train_to(run.full_steps)
            found["full"] = _measured(run, bench, None)
    return found


def _measured(run: TrainingRun, bench: Workbench, limit: int | None) -> dict[str, float]:
    """The metric, and the loss with its sign turned: greater is better in both."""
    evaluation = run.evaluate(bench.validation, limit)
    metric = bench.task.metric
    value = metric.value(*evaluation.pair(metric, bench.task.validation.targets))
    return {metric.name: value, "loss": -evaluation.loss}


def _table(trials: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Arms in rows: how fast, and how they rank against the exact rung and the exact end."""
    whole = [h for h, arm in trials if arm == _EXACT and all((h, a) in trials for a in _ARMS)]
    title = "| | training | evaluation |"
    columns = [(what, stage) for stage in ("rung", "full") for what in ("accuracy", "loss")]
    for what, stage in columns:
        title += f" {what}, exact {stage} |"
    lines = [
        f"{len(whole)} configurations. Times exact, CPU; Spearman's and Kendall's rank correlation "
        "of a rung's values with those of the exact rung, and with those of exact full length.\n",
        title,
        "|---|" + "--:|" * (title.count("|") - 2),
    ]
    for arm in _ARMS:
        speeds = [_speed(trials, whole, arm, part) for part in ("train_s", "eval_s")]
        ranks = [_ranks(trials, whole, arm, what, stage) for what, stage in columns]
        lines.append(f"| {arm} | {' | '.join([*speeds, *ranks])} |")
    return "\n".join([*lines, "", _differences(trials)])


def _speed(
    trials: dict[tuple[str, str], dict[str, Any]], whole: list[str], arm: str, part: str
) -> str:
    exact, own = (sum(trials[h, a][part] for h in whole) for a in (_EXACT, arm))
    return f"{exact / own:.2f}"


def _ranks(
    trials: dict[tuple[str, str], dict[str, Any]],
    whole: list[str],
    arm: str,
    what: str,
    stage: str,
) -> str:
    own = [trials[h, arm]["rung"][what] for h in whole]
    exact = [trials[h, _EXACT][stage][what] for h in whole]
    return f"{spearmanr(own, exact).statistic:.2f} {kendalltau(own, exact).statistic:.2f}"


def _differences(trials: dict[tuple[str, str], dict[str, Any]]) -> str:
    """At full length, which is computed exactly from where the low rung ended."""
    lines = []
    for arm in _LOW:
        both = [(t, trials[h, _EXACT]) for (h, a), t in trials.items() if a == arm and "full" in t]
        if both:
            parts = [f"{t['full']['accuracy'] - e['full']['accuracy']:+.4f}" for t, e in both]
            lines.append(f"Accuracy at full length after rungs in {arm}, less exact: {parts}")
    return "\n".join(lines).replace("'", "").replace("[", "").replace("]", "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--eval", type=int, default=400)
    parser.add_argument("--full", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("low_precision.jsonl"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
