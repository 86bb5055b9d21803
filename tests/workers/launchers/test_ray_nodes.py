"""Workers on a Ray cluster: spread, heard, started elsewhere when they die, stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import optuna
import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.records.folder import StudyFolder
from peftsearch.records.storage_name import VARIABLE
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.connection import close_storage, open_database
from peftsearch.study.storage.database.copies import register_in_database, update_folder
from peftsearch.workers.events import Event, TrialBegan, TrialEnded, WorkerPlaced, WorkerStopped
from peftsearch.workers.launchers.ray.cluster import Share, connected
from peftsearch.workers.launchers.ray.job import WorkerJob
from peftsearch.workers.launchers.ray.workers import RayWorkers
from peftsearch.workers.limits import Limits, WorkerSettings
from support import standin
from support.crowd import Wanted, metrics_of, parameters
from support.killed_workers import SPACE, problems_of
from support.postgres import PASSWORD, PostgresServer
from support.ray_bodies import GO, waits_at_rungs
from support.ray_nodes import RayNodes, ray_nodes

CONFIGURATIONS = 16
WORKERS = 2


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    pytest.importorskip("ray")
    with ray_nodes() as started:
        yield started


def begin(whole: str, model: Path, root: Path) -> tuple[StudyFolder, Wanted]:
    """A study in a database that wants so many configurations, known beforehand."""
    address = StorageAddress.parse(whole)
    places = {"storage": address.redacted, "artifacts": str(root / "artifacts")}
    info = standin.info(model).model_copy(update=places)
    home = StudyFolder.create(info, SPACE, {}, root / "home", "")
    register_in_database(home)
    wanted = parameters(
        Space(Document("space.yaml", SPACE)), load_shapes(str(model)), CONFIGURATIONS
    )
    storage = open_database(address)
    study = optuna.load_study(study_name=info.name, storage=storage)
    for given, _ in wanted.values():
        study.enqueue_trial(given)
    close_storage(storage)
    return home, wanted


@pytest.mark.slow
@pytest.mark.begins_first
def test_a_node_dies_and_every_trial_is_accounted_for_once_and_workers_start_elsewhere(
    nodes: RayNodes,
    postgres: PostgresServer,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = postgres.new_database()
    monkeypatch.setenv(VARIABLE, whole)
    home, wanted = begin(whole, tiny_bert, tmp_path)
    job = WorkerJob(
        worker=0,
        study=home.name,
        storage=whole,
        studies=tmp_path / "nodes",
        limits=Limits(CONFIGURATIONS, wait_for_others=True),
        settings=WorkerSettings(),
        main=waits_at_rungs,
    )
    events: list[Event] = []
    lost, moved = "", set[int]()
    with connected(nodes.address) as ray:
        for event in RayWorkers(ray, job, WORKERS, Share(1, 0.25)).run():
            events += [] if event is None else [event]
            first = dict(places(events)[:WORKERS])
            if len(first) < WORKERS:
                continue
            if not lost and isinstance(event, TrialEnded) and number_of(events, TrialEnded) >= 4:
                lost = first[event.worker]
                moved = {worker for worker, node in first.items() if node == lost}
                nodes.kill([nodes.name(n) for n in (0, 1)].index(lost))
            if lost and len(places(events)) >= WORKERS + len(moved):
                (tmp_path / "nodes" / home.name / GO).touch()
    assert len(set(first.values())) == 2
    again = places(events)[WORKERS:]
    assert {worker for worker, _ in again} == moved
    assert lost not in {node for _, node in again}
    ended = [event for event in events if isinstance(event, WorkerStopped)]
    assert {e.worker for e in ended if e.error is not None} == moved
    died = [e.error for e in ended if e.error is not None and e.error.startswith("died on")]
    assert len(died) == len(moved)
    assert [text for text in died if not text.startswith(f"died on {lost} (")] == []
    assert {e.worker for e in ended if e.error is None} == set(range(WORKERS))
    seen = {e.description for e in events if isinstance(e, TrialBegan) and e.number < 0}
    assert seen == {"GPUs 0"}
    notes: list[str] = []
    update_folder(home, notes.append)
    calm = metrics_of(wanted, load_shapes(str(tiny_bert)))
    assert [*notes, *problems_of(home, calm)] == []
    written = [path.read_bytes() for path in nodes.files.rglob("*") if path.is_file()]
    # The actors are named in these files: it is looked at where it counts.
    assert any(b"WorkerActor" in content for content in written)
    words = (PASSWORD.encode(), quote(PASSWORD, safe="").encode())
    assert [word for word in words if any(word in content for content in written)] == []


def places(events: list[Event]) -> list[tuple[int, str]]:
    """(worker, node) in the order in which they were placed."""
    return [(e.worker, e.node[:8]) for e in events if isinstance(e, WorkerPlaced)]


def number_of(events: list[Event], kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for event in events)
