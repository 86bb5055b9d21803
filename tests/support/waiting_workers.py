"""Share of their time that many workers train: trials only wait, everything else is real.

    PYTHONPATH=tests python -m support.waiting_workers [--journal] [--workers 8] [--trials 400] \\
        [--rung 1.0]

Each trial has three rungs, is judged at each by the real scheduler, and goes on whatever it says.
Prints the share of all workers' time that was spent in trials, from the first ask to the last tell,
and decisions (a configuration given out, a rung judged, a trial told) a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.records.folder import StudyFolder
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.copies import register_in_database, update_folder
from support import standin
from support.crowd import Crowd, TimedWorker, search_s
from support.killed_workers import SPACE as FIXED
from support.postgres import postgres_server
from support.tiny import build_tiny_bert

RUNGS = (0.25, 0.5, 1.0)
# Learning rates, so that the sampler does not run out of configurations.
SPACE = FIXED.replace("lr: 0.001", "lr: {log: [1e-4, 1e-2]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", action="store_true")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--rung", type=float, default=1.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        root = Path(name)
        model = build_tiny_bert(root / "model")
        info = standin.info(model).model_copy(update={"rungs": RUNGS})
        if not asked.journal:
            whole = stack.enter_context(postgres_server()).new_database()
            os.environ[VARIABLE] = whole
            info = info.model_copy(update={"storage": StorageAddress.parse(whole).redacted})
        folder = StudyFolder.create(info, SPACE, {}, root / "studies", "")
        register_in_database(folder)
        shapes = load_shapes(str(model))
        crowd = Crowd(lambda _: folder, shapes, asked.trials, asked.rung, TimedWorker)
        crowd.run(asked.workers, limit_s=3600.0)
        wall_s = search_s(folder)
        update_folder(folder, print)
        results = [r for r in folder.read().results if r.state == "full"]
        rungs = sum(len(folder.trial(r.number).read_curve()) for r in results)
    share = rungs * asked.rung / (asked.workers * wall_s)
    decisions = (2 * len(results) + rungs) / wall_s
    print(
        f"{len(results)} trials, {rungs} rungs of {asked.rung:g} s, {asked.workers} workers, "
        f"{wall_s:.1f} s: {share:.1%} of their time in trials, {decisions:.1f} decisions a second"
    )


if __name__ == "__main__":
    main()
