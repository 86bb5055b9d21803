"""Peak memory and time of a million examples: read, tokenised, trained on; then from the cache.

Usage: million_examples.py [EXAMPLES] [FOLDER]. Makes a csv of short texts (seeded), and runs the
product's own path on it twice, each time in a process of its own. Needs the demo extra.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 50
WORDS = (
    "the a and of to in is you that it he was for on are as with his they at be this have from "
    "or one had by word but not what all were we when your can said there use an each which she "
    "do how their if will up other about out many then them these so some her would make like"
).split()


def main(examples: int, folder: Path) -> None:
    file = folder / "examples.csv"
    write(file, examples)
    print(f"{examples:,} examples, {file.stat().st_size / 1e6:.0f} MB of csv")
    environment = os.environ | {"PEFTSEARCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    for run in ("first time", "from the cache"):
        print(f"{run}:", flush=True)
        command = [sys.executable, __file__, "--run", str(file)]
        subprocess.run(command, check=True, env=environment)


def write(file: Path, examples: int) -> None:
    draw = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        out.write("text,label\n")
        for number in range(examples):
            words = " ".join(draw.choices(WORDS, k=draw.randint(5, 30)))
            out.write(f"{number} {words},{number % 2}\n")


def measured_run(file: str) -> None:
    import torch

    from peftsearch.backbone.loading.load import load_backbone
    from peftsearch.design.budget import TrainingBudget
    from peftsearch.design.methods import METHODS
    from peftsearch.task.sources.load import load_task
    from peftsearch.task.spec import TaskSpec
    from peftsearch.training.bench import Workbench
    from peftsearch.training.loop import TrainingRun

    torch.set_num_threads(1)
    began = time.perf_counter()

    def report(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  {what:28} {peak:8.0f} MiB peak {time.perf_counter() - began:8.1f} s", flush=True)

    load_backbone("demo:minilm")
    report("model loaded")
    load_task(TaskSpec(train=file))
    report("data read and split")
    bench = Workbench.prepare("demo:minilm", TaskSpec(train=file))
    report("tokens at hand")
    configuration = METHODS["lora"].configuration()
    budget = TrainingBudget(max_steps=STEPS)
    with TrainingRun(
        *(bench.backbone, bench.train, bench.objective, configuration, budget), seed=0
    ) as run:
        run.train_to(STEPS)
    report(f"{STEPS} steps trained")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        measured_run(sys.argv[2])
    else:
        count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
        with tempfile.TemporaryDirectory() as made:
            main(count, Path(sys.argv[2]) if len(sys.argv) > 2 else Path(made))
