"""The process that starts workers makes no context on a GPU; a worker begins on its own GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import peftsearch
from peftsearch.backbone import device as device_module
from peftsearch.cli.main import run
from peftsearch.records.folder import StudyFolder
from peftsearch.space.space import load_space
from peftsearch.study import create
from peftsearch.study.new_bench import new_bench
from peftsearch.study.new_study import NewStudy
from peftsearch.study.untuned import untuned_metric, untuned_metric_apart
from peftsearch.task.spec import TaskSpec
from peftsearch.workers.launchers.local import LocalWorkers
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.worker import Worker
from support.tiny import copying_rows, write_csv

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 4, rungs: [1]}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {lr: 0.01, batch_size: 8, precision: bf16}
"""


class Spawned(Exception):
    pass


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Two GPUs, as far as they are known without a context; what was done with them, in order."""
    if torch.cuda.is_initialized():
        pytest.skip("a test before this one has used a GPU")
    done: list[str] = []

    def initialise() -> None:
        done.append("context")
        raise AssertionError("a context on a GPU")

    def start(self: LocalWorkers, worker: int) -> None:
        done.append("spawned")
        raise Spawned

    monkeypatch.setattr(device_module.importlib.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.cuda, "_lazy_init", initialise)
    monkeypatch.setattr(LocalWorkers, "_start", start)
    yield done
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return path


def searched(tmp_path: Path, space: Path, model: Path, data: Path, **options: object) -> None:
    where = {"studies": tmp_path / "studies", "study": "s", "progress": False}
    given = {"model": str(model), "train": str(data), "device": "cuda", "trials": 1}
    peftsearch.search(str(space), **given, **where, **options)  # type: ignore[arg-type]


def test_any_use_of_a_gpu_would_be_noticed(events: list[str]) -> None:
    for use in (
        lambda: torch.empty(0, device="cuda:1"),
        lambda: torch.cuda.mem_get_info(0),
        lambda: torch.cuda.get_device_properties(0),
        lambda: torch.cuda.current_device(),
    ):
        with pytest.raises(AssertionError, match="a context"):
            use()
    assert events == ["context"] * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measures", "precision"),
    [(False, "bf16"), (True, "bf16"), (False, "tf32"), (False, "[tf32, fp32]")],
)
def test_a_search_spawns_its_workers_without_a_context(
    measures: bool,
    precision: str,
    events: list[str],
    tmp_path: Path,
    space: Path,
    tiny_bert: Path,
    tiny_bart: Path,
    tiny_sentiment_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new study and a resumed one, from Python and from the command line."""
    space.write_text(SPACE.replace("bf16", precision), encoding="utf-8")
    apart: list[NewStudy] = []

    def measured(request: NewStudy) -> float:
        apart.append(request)
        return 1.0

    monkeypatch.setattr(create, "untuned_metric_apart", measured)
    model, data, options = tiny_bert, tiny_sentiment_csv, {}
    if measures:
        model, data = tiny_bart, write_csv(tmp_path / "copies.csv", copying_rows(60))
        options = {"kind": "seq2seq", "metric": "loss"}
    with pytest.raises(Spawned):
        searched(tmp_path, space, model, data, **options)
    assert [one.device for one in apart] == ["cuda"] * measures
    with pytest.raises(Spawned):
        peftsearch.search(
            study="s", studies=tmp_path / "studies", resume=True, progress=False, trials=1
        )
    folder = ["s", "--studies", str(tmp_path / "studies")]
    with pytest.raises(Spawned):
        run(["worker", *folder])
    with pytest.raises(Spawned):
        run(["search", "--resume", "--study", *folder, "--trials", "1"])
    assert events == ["spawned"] * 4
    assert torch.backends.cuda.cudnn_sdp_enabled(), "the caller's process is left as it was"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "worker", "first"), [("cuda:1", 0, "cuda:1"), ("cuda", 1, "cuda:1")]
)
def test_a_worker_makes_its_gpu_the_current_one_before_anything_else(
    device: str,
    worker: int,
    first: str,
    events: list[str],
    tmp_path: Path,
    space: Path,
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
) -> None:
    with pytest.raises(Spawned):
        searched(tmp_path, space, tiny_bert, tiny_sentiment_csv)
    root = str(StudyFolder.open("s", tmp_path / "studies").root)
    begin: Callable[[], float] = time.monotonic
    with pytest.raises(peftsearch.MissingError, match="a context on a GPU"):
        Worker(
            *(root, worker, Limits(1, 60.0), begin, WorkerSettings(1, None, device)),
            *(lambda event: None, lambda: False),
        )
    assert events == ["spawned", first, "context"]
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def request_for(space: Path, model: Path, spec: TaskSpec) -> NewStudy:
    return NewStudy("s", load_space(str(space)), str(space), str(model), spec)


@pytest.mark.slow
def test_the_untuned_model_is_measured_the_same_in_a_process_of_its_own(
    tmp_path: Path, space: Path, tiny_bart: Path, tiny_sentiment_csv: Path
) -> None:
    data = write_csv(tmp_path / "copies.csv", copying_rows(60))
    request = request_for(
        space, tiny_bart, TaskSpec(train=str(data), kind="seq2seq", metric="perplexity")
    )
    assert untuned_metric_apart(request) == untuned_metric(new_bench(request, "cpu"))
    refused = TaskSpec(train=str(tiny_sentiment_csv), metric="perplexity")
    with pytest.raises(peftsearch.UsageError, match="does not fit classification"):
        untuned_metric_apart(request_for(space, tiny_bart, refused))
