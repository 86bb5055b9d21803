"""A search whose workers are killed again and again, their database too, and what a calm one finds.

    PYTHONPATH=tests python -m support.killed_workers [--journal | --mysql] [--s3] \\
        [--workers 8] [--configurations 200] [--kill-every 3] [--rung 0.5] [--restarts 2]

runs the long form and prints what was killed and what is wrong afterwards; tests run a short one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.frontier.pareto import Point, pareto
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import TrialResult
from peftsearch.records.storage_name import VARIABLE
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study import recovery
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import close_storage, open_database
from peftsearch.study.storage.database.copies import (
    local_folder,
    register_in_database,
    update_folder,
)
from support import standin
from support.buckets import s3_server
from support.crowd import Crowd, Wanted, metrics_of, parameters
from support.mariadb import mariadb_server
from support.postgres import postgres_server
from support.servers import DatabaseServer
from support.tiny import build_tiny_bert

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 1, rungs: [0.25, 1]}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
  ffn: {form: [none, relu]}
train: {lr: 0.001}
"""
NEVER_BEGAN = "cut off while it was sampled"
"""Such a trial has no configuration: what was asked for is enqueued again."""


@dataclass(frozen=True)
class Plan:
    """What is searched, and how it is disturbed. `restarts`: seconds at which the database dies."""

    workers: int
    configurations: int
    rung_s: float
    kill_every_s: float
    restarts: Sequence[float] = ()


@dataclass(frozen=True)
class Outcome:
    killed: int
    wall_s: float
    problems: list[str]


def killed_on_many_machines(
    plan: Plan, server: DatabaseServer, model: Path, root: Path, artifacts: str | None = None
) -> Outcome:
    """Each worker has folders of its own, as if on a machine of its own."""
    whole = server.new_database()
    os.environ[VARIABLE] = whole  # for the workers, which are forks
    address = StorageAddress.parse(whole)
    places = {"storage": address.redacted, "artifacts": artifacts or str(root / "artifacts")}
    info = standin.info(model).model_copy(update=places)
    home = StudyFolder.create(info, SPACE, {}, root / "home", "")
    register_in_database(home)
    machines = [root / f"machine-{slot}" for slot in range(plan.workers)]
    crowd, wanted = _crowd(
        plan, model, lambda slot: local_folder(info.name, address, machines[slot])
    )
    storage = open_database(address)
    study = optuna.load_study(study_name=info.name, storage=storage)
    for given, _ in wanted.values():
        study.enqueue_trial(given)
    close_storage(storage)

    def restart() -> None:
        server.kill()
        server.start()

    began = time.monotonic()
    killed = crowd.run(plan.workers, plan.kill_every_s, [(s, restart) for s in plan.restarts])
    wall_s = time.monotonic() - began
    notes: list[str] = []
    update_folder(home, notes.append)
    problems = [*notes, *problems_of(home, metrics_of(wanted, crowd.shapes))]
    final = {result.number: result for result in home.read().results}
    for machine in machines:
        for result in StudyFolder.open(info.name, machine).read().results:
            if final.get(result.number) != result:
                problems.append(f"trial {result.number} ended otherwise on {machine.name}")
    return Outcome(killed, wall_s, problems)


def killed_on_one_machine(plan: Plan, model: Path, root: Path) -> Outcome:
    """All workers share the study's folder and its journal."""
    folder = standin.create(model, root, SPACE)
    crowd, wanted = _crowd(plan, model, lambda _: folder)
    study = standin.open_study(folder).study
    for given, _ in wanted.values():
        study.enqueue_trial(given)
    seen: dict[int, TrialResult] = {}
    problems: list[str] = []

    def look() -> None:
        now = {result.number: result for result in folder.read().results}
        problems.extend(f"trial {n} was lost or changed" for n in seen if now.get(n) != seen[n])
        seen.update(now)

    began = time.monotonic()
    looks = [(plan.kill_every_s * (n + 0.5), look) for n in range(1000)]
    killed = crowd.run(plan.workers, plan.kill_every_s, looks)
    look()
    problems.extend(problems_of(folder, metrics_of(wanted, crowd.shapes)))
    return Outcome(killed, time.monotonic() - began, problems)


def _crowd(plan: Plan, model: Path, place: Callable[[int], StudyFolder]) -> tuple[Crowd, Wanted]:
    recovery.MAX_CUT_OFFS = 10**6  # nothing is given up, however often it is killed
    shapes = load_shapes(str(model))
    wanted = parameters(Space(Document("space.yaml", SPACE)), shapes, plan.configurations)
    return Crowd(place, shapes, len(wanted), plan.rung_s), wanted


def problems_of(folder: StudyFolder, calm: dict[str, tuple[float, float]]) -> Iterator[str]:
    """What was not done as a calm run of the same configurations would have."""
    record = folder.read()
    ended = [r for r in record.results if r.state != "duplicate" and r.message != NEVER_BEGAN]
    hashes = [result.configuration_hash for result in ended]
    if sorted(map(str, hashes)) != sorted(calm):
        yield f"{len(hashes)} results of {len(set(hashes))} configurations, not {len(calm)}"
    for result in ended:
        if result.state != "full" or result.metric != calm[str(result.configuration_hash)][0]:
            yield f"trial {result.number} is {result.state} with {result.metric}: {result.message}"
    if record.running:
        yield f"{record.running} trials have no end"
    found = {(point.metric, point.tuned_pct) for point in record.front}
    points = [Point(i, metric, pct, 0.0) for i, (metric, pct) in enumerate(calm.values())]
    maximise = record.info.metric.maximise
    if found != {(point.metric, point.tuned_pct) for point in pareto(points, maximise)}:
        yield "another frontier than a calm run's"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", action="store_true")
    parser.add_argument("--mysql", action="store_true", help="MariaDB instead of PostgreSQL")
    parser.add_argument("--s3", action="store_true", help="checkpoints in a bucket, not a folder")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--configurations", type=int, default=200)
    parser.add_argument("--kill-every", type=float, default=3.0)
    parser.add_argument("--rung", type=float, default=0.5)
    parser.add_argument("--restarts", type=int, default=2)
    asked = parser.parse_args()
    restarts = [10.0 * (n + 1) for n in range(asked.restarts)]
    plan = Plan(asked.workers, asked.configurations, asked.rung, asked.kill_every, restarts)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = build_tiny_bert(root / "model")
        if asked.journal:
            outcome = killed_on_one_machine(plan, model, root / "studies")
        else:
            bucket = s3_server() if asked.s3 else contextlib.nullcontext({})
            with mariadb_server() if asked.mysql else postgres_server() as server, bucket as found:
                os.environ.update(found)
                artifacts = "s3://bucket/study" if asked.s3 else None
                outcome = killed_on_many_machines(plan, server, model, root, artifacts)
    print(
        f"{plan.configurations} configurations, {plan.workers} workers, {outcome.killed} killed, "
        f"the database {0 if asked.journal else len(restarts)} times, {outcome.wall_s:.0f} s: "
        f"{len(outcome.problems)} problems"
    )
    print("\n".join(outcome.problems))


if __name__ == "__main__":
    main()
