"""Two local workers against one: the same configurations, searched by as many processes.

    python benchmarks/workers.py [--workers 1 2] [--configurations 12] [--rounds 2] [--train 600]

MiniLM and tweets, one thread a worker, one epoch, no early stopping: fixed random configurations of
a space, enqueued, are trained and evaluated by the real workers on a journal. Seconds of the wall's
clock from the first trial's beginning to the last one's end (loading left out), and of the whole
with loading. Frozen states begin unkept each time. It wants as many free cores as workers. Needs
the demo extra.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import mean

os.environ.setdefault("OMP_NUM_THREADS", "1")

import optuna

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.records.folder import StudyFolder
from peftsearch.space.decode import decode
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.study.study import Study
from peftsearch.task.spec import TaskSpec
from peftsearch.workers.events import Event, TrialBegan, TrialEnded
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.run import run_search

_MODEL = "demo:minilm"
_SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.05, 2]}, epochs: 1, rungs: [1]}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
  ffn: {form: [none, relu]}
train: {lr: {log: [1e-4, 1e-2]}}
"""


def main() -> None:
    asked = _arguments()
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in asked.workers}
    for index in range(asked.rounds):
        order = asked.workers if index % 2 == 0 else asked.workers[::-1]
        for count in order:
            found[count].append(_searched(count, asked.configurations, asked.train))
    print("| workers | s, first trial to last | times | s with loading | times |")
    print("|--:|--:|--:|--:|--:|")
    first = found[asked.workers[0]]
    for count, seconds in found.items():
        columns = []
        for part in (0, 1):
            times = mean(a[part] / b[part] for a, b in zip(first, seconds, strict=True))
            columns.append(f"{mean(one[part] for one in seconds):.1f} | {times:.2f}")
        print(f"| {count} | {' | '.join(columns)} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--configurations", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--train", type=int, default=600)
    return parser.parse_args()


def _searched(workers: int, configurations: int, train: int) -> tuple[float, float]:
    """Seconds of one search, without and with loading."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["PEFTSEARCH_CACHE"] = f"{name}/cache"
        folder = _study(Path(name), configurations, train)
        times: list[float] = []
        trained: list[str] = []

        def on_event(event: Event | None) -> None:
            if isinstance(event, TrialBegan | TrialEnded):
                times.append(time.monotonic())
            if isinstance(event, TrialEnded):
                trained.append(event.result.state)

        began = time.monotonic()
        run_search(folder, Limits(configurations), workers, WorkerSettings(1), on_event)
        whole_s = time.monotonic() - began
    if trained != ["full"] * configurations:
        raise SystemExit(f"not all were trained to the end: {trained}")
    return times[-1] - times[0], whole_s


def _study(root: Path, configurations: int, train: int) -> StudyFolder:
    """A study in which the configurations wait."""
    space = Space(Document("space.yaml", _SPACE))
    task = TaskSpec(name="demo:tweets", train_examples=train, eval_examples=300)
    asked = NewStudy("workers", space, "space.yaml", _MODEL, task)
    folder = create_study(asked, root / "studies", "")
    shapes = load_shapes(_MODEL)
    with closing(Study(folder, folder.read_info(), space, shapes)) as study:
        source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        hashes: set[str] = set()
        while len(hashes) < configurations:
            trial = source.ask()
            one = decode(space.on(shapes), trial).configuration
            if one is not None and one.modifications and one.hash not in hashes:
                hashes.add(one.hash)
                study.study.enqueue_trial(trial.params)
    return folder


if __name__ == "__main__":
    main()
