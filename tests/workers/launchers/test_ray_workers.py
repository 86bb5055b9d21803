"""Who is started on a Ray cluster, who is started again, who is not, and who is told to stop."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from peftsearch.records.records import TrialResult
from peftsearch.workers.events import (
    Event,
    TrialEnded,
    WorkerPlaced,
    WorkerReady,
    WorkersPending,
    WorkerStopped,
)
from peftsearch.workers.launchers.ray import workers as ray_workers
from peftsearch.workers.launchers.ray.actor import WorkerActor
from peftsearch.workers.launchers.ray.cluster import Share
from peftsearch.workers.launchers.ray.job import WorkerJob
from peftsearch.workers.launchers.ray.workers import RayWorkers
from peftsearch.workers.limits import Limits, WorkerSettings
from support.fake_ray import FakeRay, OutOfMemoryError, RayError, RayTaskError, Script

JOB = WorkerJob(0, "s", "postgresql://me:s3cret@db/x", Path("studies"), Limits(), WorkerSettings())
ENDED = TrialEnded(0, TrialResult.model_construct(number=0, state="full"))


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "_PAUSE_S", 0.0)


def placed(worker: int = 0, node: str = "alive000") -> WorkerPlaced:
    return WorkerPlaced(worker, f"{node} (host)")


def start(*scripts: Script, workers: int = 1, job: WorkerJob = JOB) -> tuple[FakeRay, RayWorkers]:
    ray = FakeRay(*scripts)
    return ray, RayWorkers(ray, job, workers, Share(1, 0.25))


def errors(events: list[Event | None]) -> list[str]:
    return [e.error for e in events if isinstance(e, WorkerStopped) and e.error is not None]


def test_each_takes_its_share_spread_over_the_nodes_and_is_heard_while_it_is_told_to_stop() -> None:
    ray, workers = start([WorkerStopped(0)])
    list(workers.run())
    assert (ray.asked["num_cpus"], ray.asked["num_gpus"]) == (1, 0.25)
    assert ray.asked["scheduling_strategy"] == "SPREAD"
    assert ray.asked["max_concurrency"] == 2


def test_whoever_dies_is_started_again_and_the_way_it_died_is_said() -> None:
    ways: list[tuple[Exception, str, str]] = [
        (RayError(), "gone0000", "its node is gone"),
        (RayError(), "alive000", "its process ended"),
        (OutOfMemoryError(), "alive000", "out of memory"),
        (RayTaskError(KeyError("x")), "alive000", "'x'"),
        (StopIteration(), "alive000", "its process ended"),
    ]
    for error, node, how in ways:
        ray, workers = start([placed(0, node), error], [placed(), WorkerStopped(0)])
        events = list(workers.run())
        assert errors(events) == [f"died on {node} (host) ({how}), restarting"]
        assert events[-1] == WorkerStopped(0)
        assert len(ray.actors) == 2


def test_five_deaths_in_a_row_without_an_ended_trial_are_enough() -> None:
    dies: Script = [placed(), RayError()]
    tries: Script = [placed(), ENDED, RayError()]
    ray, workers = start(dies, dies, dies, dies, tries, dies, dies, dies, dies)
    said = errors(list(workers.run()))
    assert len(ray.actors) == 9
    assert [text.endswith("restarting") for text in said] == [True] * 8 + [False]
    assert said[-1].endswith("5 times without finishing a trial, not restarted")


def test_a_pause_that_doubles_stands_before_each_new_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now, begun = [0.0], list[float]()
    monkeypatch.setattr(ray_workers.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_workers.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(ray_workers, "_PAUSE_S", 2.0)
    ray, workers = start(*[[RayError()]] * 5)
    for _ in workers.run():
        begun += [now[0]] * (len(ray.actors) - len(begun))
    assert begun == [0.0, 2.0, 6.0, 14.0, 30.0]


def test_once_one_found_nothing_more_to_do_none_is_started_and_who_has_no_place_is_let_go() -> None:
    ray, workers = start(
        [placed(0), WorkerStopped(0)], [placed(1), ENDED, ENDED, RayError()], [], workers=3
    )
    events = list(workers.run())
    assert len(ray.actors) == 3
    assert errors(events) == ["died on alive000 (host) (its process ended)"]
    assert ray.actors[2] in ray.killed


def test_a_sentence_of_one_worker_ends_that_one_alone() -> None:
    refused = WorkerStopped(0, "model 'm' is not here", 3)
    ray, workers = start([placed(0), refused], [placed(1), ENDED, WorkerStopped(1)], workers=2)
    events = list(workers.run())
    assert refused in events
    assert events[-1] == WorkerStopped(1)
    assert len(ray.actors) == 2


def test_a_stop_is_told_once_to_whoever_has_a_place_and_ends_the_rest() -> None:
    ray, workers = start([placed(0)], [], workers=2)
    events: list[Event | None] = []
    for event in workers.run():
        events.append(event)
        if event == placed(0):
            workers.stop()
    assert [actor.stops for actor in ray.actors] == [1, 0]
    assert ray.actors[1] in ray.killed
    assert events[-1] == WorkerStopped(0)


def test_a_kill_ends_them_at_once() -> None:
    ray, workers = start([placed(0)], [placed(1)], workers=2)
    for event in workers.run():
        if event == placed(1):
            workers.kill()
    assert set(ray.killed) == set(ray.actors)


def test_a_cluster_without_room_is_said_once_and_the_time_limit_ends_the_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(ray_workers.time, "monotonic", lambda: float(next(clock)))
    job = WorkerJob(0, "s", JOB.storage, Path("studies"), Limits(seconds=100.0), WorkerSettings())
    ray, workers = start([], [], workers=2, job=job)
    events = [event for event in workers.run() if event is not None]
    assert events == [WorkersPending(2, "1 CPU and 0.25 GPU")]
    assert set(ray.killed) == set(ray.actors)


def test_a_worker_that_is_started_again_has_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(ray_workers.time, "monotonic", lambda: now[0])
    job = WorkerJob(0, "s", JOB.storage, Path("studies"), Limits(7, 100.0, True), WorkerSettings())
    ray, workers = start(
        [placed(), WorkerReady(0), RayError()], [placed(), WorkerStopped(0)], job=job
    )
    for event in workers.run():
        if len(ray.actors) == 1:  # it loads for 10 s, and dies 30 s later
            now[0] = {placed(): 10.0, WorkerReady(0): 40.0}.get(event, now[0])
    jobs = [WorkerJob.from_bytes(actor.jobs[0]) for actor in ray.actors]
    assert [one.limits for one in jobs] == [Limits(7, 100.0, True), Limits(7, 70.0, True)]


def test_whoever_works_on_after_the_time_limit_and_its_grace_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(ray_workers.time, "monotonic", lambda: now[0])
    job = WorkerJob(0, "s", JOB.storage, Path("studies"), Limits(seconds=100.0), WorkerSettings())
    ray, workers = start([placed(), WorkerReady(0)], job=job)
    stopped_at = []
    for _ in workers.run():
        stopped_at += [now[0]] * (ray.actors[0].stops - len(stopped_at))
        now[0] += 1.0
    assert stopped_at == [112.0]  # it was ready at 1; trials under way may run a tenth longer


def test_a_job_does_not_show_the_password() -> None:
    assert "s3cret" not in repr(JOB)
    assert WorkerJob.from_bytes(JOB.to_bytes()) == JOB


def test_a_job_that_cannot_be_run_is_a_death_with_its_reason() -> None:
    said: list[object] = []
    WorkerActor()._work(0, b"no job", said.append)
    assert [type(one) for one in said] == [RuntimeError, type(None)]
    assert "UnpicklingError" in str(said[0])
