"""`peftsearch launch`: what is refused, and what workers on a cluster are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftsearch.cli.main import run
from peftsearch.errors import MissingError, UsageError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.storage_name import VARIABLE
from peftsearch.study.storage.database.address import StorageAddress
from peftsearch.study.storage.database.copies import register_in_database
from peftsearch.workers.events import Event, WorkerPlaced, WorkersPending, WorkerStopped
from peftsearch.workers.launchers.ray import workers as ray_workers
from peftsearch.workers.launchers.ray.cluster import Share, connected
from peftsearch.workers.launchers.ray.job import WorkerJob
from peftsearch.workers.limits import Limits, WorkerSettings
from support import standin
from support.postgres import PostgresServer


def test_a_study_with_a_journal_is_refused(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.create(tiny_bert, tmp_path)
    assert run(["launch", "ray", "study", "--studies", str(tmp_path), "--workers", "2"]) == 2
    assert "keeps a journal, which works on one machine only" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    extra = r"pip install 'peftsearch\[ray\]'"
    with pytest.raises(MissingError, match=extra), connected("auto"):
        raise AssertionError("unreachable")


def test_a_rays_client_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(UsageError, match="ray job submit"), connected("ray://head:10001"):
        raise AssertionError("unreachable")


def test_a_cluster_that_is_not_there_is_one_sentence_at_once() -> None:
    pytest.importorskip("ray")
    with (
        pytest.raises(
            MissingError, match=r"no Ray cluster at '127\.0\.0\.1:1' \(Connection refused\)"
        ),
        connected("127.0.0.1:1"),
    ):
        raise AssertionError("unreachable")


@pytest.fixture
def launched(
    postgres: PostgresServer, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the command on a study in a database that wants 9 configurations, without a cluster."""
    whole = postgres.new_database()
    monkeypatch.setenv(VARIABLE, whole)
    update = {"storage": StorageAddress.parse(whole).redacted, "device": "cuda"}
    info = standin.info(tiny_bert).model_copy(update=update)
    folder = StudyFolder.create(info, standin.SPACE, {}, tmp_path / "home", "")
    register_in_database(folder)
    study = standin.open_study(folder)
    study.set_target(9)
    study.close()
    asked: dict[str, Any] = {"whole": whole}

    def run_on_ray(
        address: str,
        job: WorkerJob,
        workers: int,
        share: Share,
        on_event: Callable[[Event | None], None],
    ) -> bool:
        asked.update(address=address, job=job, workers=workers, share=share)
        on_event(WorkersPending(1, str(share)))
        on_event(WorkerPlaced(0, "abc (host)"))
        on_event(None)
        on_event(WorkerStopped(1, "died on abc (host) (out of memory), restarting", 1))
        on_event(WorkerStopped(0))
        return False

    monkeypatch.setattr(ray_workers, "run_on_ray", run_on_ray)

    def launch(*arguments: str) -> tuple[int, dict[str, Any]]:
        where = ("--studies", str(tmp_path / "elsewhere"), "--workers", "3")
        return run(["launch", "ray", "study", *where, *arguments]), asked

    return launch


@pytest.mark.slow
def test_workers_go_as_far_as_the_search_on_a_gpu_each_in_a_copy_of_the_study(
    launched: Callable[..., tuple[int, dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, asked = launched()
    assert code == 1  # no configuration has reached full length
    assert (asked["address"], asked["workers"], asked["share"]) == ("auto", 3, Share(1, 1.0))
    assert asked["job"] == WorkerJob(
        *(0, "study", asked["whole"], tmp_path / "elsewhere"),
        *(Limits(9, None, True), WorkerSettings(1, None, "cuda")),
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:5] == [
        "1 of 3 workers has no place in the cluster yet: each needs 1 CPU and 1 GPU",
        "worker 0 starts on node abc (host)",
        "worker 1: died on abc (host) (out of memory), restarting",
        "worker 0 ended on node abc (host)",
    ]


@pytest.mark.slow
def test_shares_threads_and_limits_are_as_asked(
    launched: Callable[..., tuple[int, dict[str, Any]]],
) -> None:
    _, asked = launched("--gpus-each", "0.25", "--threads", "2", "--cohort", "4", "--hours", "1")
    assert asked["share"] == Share(2, 0.25)
    assert asked["job"].limits == Limits(9, 3600.0, True)
    assert asked["job"].settings == WorkerSettings(2, 4, "cuda")
    _, asked = launched("--gpus-each", "0", "--cpus-each", "0.5", "--trials", "5")
    assert asked["share"] == Share(0.5, 0.0)
    assert asked["job"].limits == Limits(5, None, True)
    assert asked["job"].settings == WorkerSettings(1, None, "cpu")
