"""Trials that share passes end as they would one after the other; nothing is lost on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftsearch.backbone.attach import attention
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import OutOfMemory, PeftsearchError
from peftsearch.policy.decisions import Continue, Stop, Verdict
from peftsearch.policy.landmarks import Landmarks
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import RungValue, TrialResult
from peftsearch.space.file.document import Document
from peftsearch.space.space import Space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.study.study import Assignment
from peftsearch.task.spec import TaskSpec
from peftsearch.training import loss_monitor
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort import graph_cache
from peftsearch.training.cohort import joint_batch as joint
from peftsearch.training.cohort.cohort import Cohort
from peftsearch.training.cohort.graph_cache import GraphCache
from peftsearch.training.cohort.pass_clock import PassClock
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.memory.allocator import BETWEEN_TRIALS
from peftsearch.workers import worker as workers
from peftsearch.workers.cohort_scheduler import CohortScheduler
from peftsearch.workers.events import Event, TrialProgress, TrialRequeued
from peftsearch.workers.limits import Limits, WorkerSettings
from peftsearch.workers.trial import PreparedTrial, TrialRunner
from peftsearch.workers.worker import Worker
from support.emulated_graphs import EmulatedRecorder
from support.standin import create, open_study, take
from support.verdicts import verdict

BUDGET = TrainingBudget(max_steps=12, rungs=(0.5, 1.0), rung_examples=10)
METHOD_NAMES = ("lora", "mam", "bitfit", "houlsby", "ia3")
DIVERGES = 3


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path) -> StudyFolder:
    return create(tiny_bert, tmp_path)


def assignments() -> list[Assignment]:
    """The one at `DIVERGES` is lost in training."""
    made = []
    for number, name in enumerate(METHOD_NAMES):
        lost = number == DIVERGES
        training = Training(batch_size=8, head_lr=10.0 if lost else 1e-2, max_grad_norm=1e6)
        one = METHODS[name].configuration(Head("mean"), training)
        made.append(Assignment(number, one, "sampled"))
    return made


def runner_in(folder: StudyFolder, bench: Workbench, stops: Sequence[int] = ()) -> TrialRunner:
    """`stops`: trials that are stopped at the first rung."""
    return TrialRunner(
        bench=bench,
        budget=BUDGET,
        seed=0,
        record=lambda asked, value: folder.trial(asked.number).append_rung(value),
        judge=lambda asked, value: verdict(
            asked.number, value.rung > 0 or asked.number not in stops
        ),
        stop=lambda: False,
    )


def together(
    runner: TrialRunner, folder: StudyFolder, size: CohortSize
) -> dict[int, TrialResult | None]:
    trials = CohortScheduler(runner, folder, size)
    waiting, found = assignments(), {}
    while waiting or trials.in_flight:
        while waiting and trials.has_room:
            asked = waiting.pop(0)
            folder.trial(asked.number).write_configuration({})
            assert trials.begin(asked) is None
        for ended, result in trials.advance():
            assert ended.number not in found
            found[ended.number] = result
    return found


def assert_close(one: Sequence[RungValue], other: Sequence[RungValue]) -> None:
    """The same rungs, and losses in fp32 after some steps of AdamW."""
    assert [(v.rung, v.step, v.examples) for v in one] == [
        (v.rung, v.step, v.examples) for v in other
    ]
    for own, expected in zip(one, other, strict=True):
        assert own.loss == pytest.approx(expected.loss, abs=1e-4)
        assert own.train_loss == pytest.approx(expected.train_loss, abs=1e-4)


@pytest.mark.slow
def test_each_ends_as_alone_whether_it_is_full_stopped_or_lost(
    bench: Workbench, folder: StudyFolder, tmp_path: Path, tiny_bert: Path
) -> None:
    found = together(runner_in(folder, bench, stops=[1]), folder, CohortSize(3, 3))
    other = create(tiny_bert, tmp_path / "alone")
    runner = runner_in(other, bench, stops=[1])
    alone = {a.number: runner.run(a, other.trial(a.number)) for a in assignments()}
    assert found.keys() == alone.keys()
    for number, expected in alone.items():
        result = found[number]
        assert result is not None
        assert expected is not None
        assert (result.state, result.cause) == (expected.state, expected.cause)
        assert (expected.cohort, result.cohort) == (1, 3)
        assert_close(result.curve, expected.curve)
    assert [found[n].state for n in range(5)] == ["full", "stopped", "full", "failed", "full"]  # type: ignore[union-attr]


@pytest.mark.slow
def test_interrupted_they_are_all_saved_and_go_on_alone(
    bench: Workbench, folder: StudyFolder, tmp_path: Path, tiny_bert: Path
) -> None:
    passes = []
    runner = TrialRunner(
        *(bench, BUDGET, 0),
        record=lambda asked, value: folder.trial(asked.number).append_rung(value),
        judge=lambda asked, value: Continue(asked.number),
        stop=lambda: len(passes) > 8 or bool(passes.append(1)),
    )
    trials = CohortScheduler(runner, folder, CohortSize(3, 3))
    asked = [a for a in assignments() if a.number != DIVERGES][:3]
    for one in asked:
        folder.trial(one.number).write_configuration({})
        assert trials.begin(one) is None
    ended = trials.advance()
    assert [result for _, result in ended] == [None] * 3
    assert all(folder.trial(one.number).checkpoint_path.exists() for one in asked)
    other = create(tiny_bert, tmp_path / "alone")
    for one in asked:
        resumed = Assignment(one.number, one.configuration, "sampled", resumed=True)
        result = runner_in(folder, bench).run(resumed, folder.trial(one.number))
        expected = runner_in(other, bench).run(one, other.trial(one.number))
        assert result is not None
        assert expected is not None
        assert_close(result.curve, expected.curve)
        assert result.cohort == 3, "a checkpoint knows"


def test_what_does_not_fit_together_is_put_back_and_the_rest_goes_on(
    bench: Workbench, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, sizes = Cohort.step, []

    def step(self: Cohort, runs: list[object]) -> object:
        sizes.append(len(runs))
        if len(runs) > 2:
            raise OutOfMemory("CUDA out of memory")
        return inner(self, runs)  # type: ignore[arg-type]

    monkeypatch.setattr(Cohort, "step", step)
    size = CohortSize(4, 4)
    found = together(runner_in(folder, bench), folder, size)
    assert max(sizes[1:]) == 2
    assert size.size == 2
    assert [n for n, result in found.items() if result is None] == [2, 3]
    assert all(folder.trial(n).checkpoint_path.exists() for n in (2, 3))
    assert {found[n].state for n in (0, 1, 4)} == {"full"}  # type: ignore[union-attr]


def test_one_that_does_not_fit_alone_has_failed_with_its_cause(
    bench: Workbench, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Cohort, runs: object) -> object:
        raise OutOfMemory("CUDA out of memory")

    monkeypatch.setattr(Cohort, "step", full)
    trials = CohortScheduler(runner_in(folder, bench), folder, CohortSize(2, 2))
    assert trials.begin(assignments()[0]) is None
    ((_, result),) = trials.advance()
    assert result is not None
    assert (result.state, result.cause) == ("failed", "out_of_memory")


def test_losses_that_nobody_has_looked_at_are_saved_with_the_rest(
    bench: Workbench,
    folder: StudyFolder,
    tmp_path: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where losses are looked at after every few steps."""
    monkeypatch.setitem(loss_monitor._STEPS, "cpu", 16)
    passes: list[int] = []
    runner = replace(
        runner_in(folder, bench), stop=lambda: len(passes) > 3 or bool(passes.append(1))
    )
    trials, asked = CohortScheduler(runner, folder, CohortSize(2, 2)), assignments()[0]
    folder.trial(0).write_configuration({})
    assert trials.begin(asked) is None
    assert trials.advance() == [(asked, None)]
    result = runner_in(folder, bench).run(replace(asked, resumed=True), folder.trial(0))
    other = create(tiny_bert, tmp_path / "alone")
    expected = runner_in(other, bench).run(asked, other.trial(0))
    assert result is not None
    assert expected is not None
    assert_close(result.curve, expected.curve)


@pytest.mark.slow
def test_evaluations_are_no_part_of_the_time_of_a_pass(
    bench: Workbench, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two members that reach their rungs at once, each evaluated for long."""
    windows: list[float] = []
    monkeypatch.setattr(
        CohortSize, "measured", lambda self, members, pass_s, memory: windows.append(pass_s)
    )
    clock_s = [0.0]

    def takes(owner: type, name: str, seconds: float) -> None:
        inner = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            clock_s[0] += seconds
            return inner(*arguments)

        monkeypatch.setattr(owner, name, timed)

    takes(PreparedTrial, "_evaluate", 1000.0)
    takes(Cohort, "step", 2.0)
    monkeypatch.setattr(PassClock, "_now", lambda self: clock_s[0])
    budget = TrainingBudget(max_steps=90, rungs=(0.1, 0.4, 1.0), rung_examples=10)
    runner = replace(runner_in(folder, bench), budget=budget)
    trials = CohortScheduler(runner, folder, CohortSize(64, 2))
    for asked in assignments()[:2]:
        folder.trial(asked.number).write_configuration({})
        assert trials.begin(asked) is None
    while trials.in_flight:
        trials.advance()
    assert windows
    assert set(windows) == {2.0}


def test_a_trial_that_was_cut_off_trains_by_itself(bench: Workbench, folder: StudyFolder) -> None:
    """It may be what took the others with it."""
    trials = CohortScheduler(runner_in(folder, bench), folder, CohortSize(4, 4))
    asked = assignments()[0]
    trial = trials.runner.prepare(asked, folder.trial(0))
    cut_off = replace(asked, resumed=True, alone=True)
    assert trials.shares_passes(trial)
    assert not trials.shares_passes(replace(trial, assignment=cut_off))
    study = open_study(folder)
    number = take(study).number
    study.recover()
    again = take(study)
    assert (again.number, again.resumed, again.alone) == (number, True, True)
    study.requeue(number)
    back = take(study)
    assert (back.number, back.resumed, back.alone) == (number, True, False)


class _Killed(BaseException):
    """What ends a process between a checkpoint and what follows."""


def test_a_trial_that_ends_as_it_joins_is_told(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    """Put back at a rung where it is now stopped, with nothing else in flight."""
    study = searched(tmp_path, tiny_bert, tiny_sentiment_csv)

    def worker(judge: Callable[[Assignment, RungValue], Verdict]) -> Worker:
        arguments = (str(study.root), 0, Limits(trials=1), time.monotonic, WorkerSettings(1, 4))
        made = Worker(*arguments, lambda _: None, lambda: False)
        policy = made.study.policy
        lora = tuple(one for one in policy.landmarks.others if one.label == "lora")
        policy.landmarks = Landmarks(others=lora)
        object.__setattr__(made.scheduler.runner, "judge", judge)
        return made

    def killed(*_: object) -> Verdict:
        raise _Killed

    first = worker(killed)
    with pytest.raises(_Killed):
        first.run()
    first.study.requeue(0)
    worker(lambda asked, value: Stop(asked.number)).run()
    assert [(r.number, r.state) for r in study.read().results] == [(0, "stopped")]
    assert study.read().running == 0


SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 12, rungs: [0.5, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}, ffn: {at: [out]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, {scaled: {s: [2, 4]}}, gated]}
  ffn: {form: [none, relu]}
train: {batch_size: 8, lr: {log: [1e-3, 1e-1]}}
seed_with: [head-only-mean, lora, full, prefix]
"""


def searched(tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path) -> StudyFolder:
    request = NewStudy(
        name="s",
        space=Space(Document("space.yaml", SPACE)),
        space_name="space.yaml",
        model=str(tiny_bert),
        task=TaskSpec(train=str(tiny_sentiment_csv)),
        landmarks="all",
    )
    return create_study(request, tmp_path, "")


@pytest.mark.slow
def test_a_search_of_cohorts_evaluates_everything_once(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads and full fine-tuning train alone in between; each ends with memory given back."""
    asked: list[int] = []
    monkeypatch.setattr(workers, "trim_above", asked.append)
    study = searched(tmp_path, tiny_bert, tiny_sentiment_csv)
    arguments = (str(study.root), 0, Limits(trials=12), time.monotonic, WorkerSettings(1, 4))
    Worker(*arguments, lambda _: None, lambda: False).run()
    assert asked == [BETWEEN_TRIALS] * len(asked)
    assert len(asked) >= 12
    record = study.read()
    trained = [r for r in record.results if r.state in ("full", "stopped")]
    assert record.running == 0
    assert len({r.configuration_hash for r in trained}) == len(trained) >= 12
    by_method = {r.method: r.cohort for r in trained if r.method}
    assert by_method["full"] == by_method["head-only-mean"] == 1
    assert max(r.cohort for r in trained) == 4
    assert not list(study.root.glob("trials/*/checkpoint.safetensors"))
    bench = _bench(study)
    for result in trained:
        losses = [value.loss for value in result.curve]
        assert np.allclose(_trained_again(bench, study, result), losses, atol=1e-4)


def _bench(study: StudyFolder) -> Workbench:
    info = study.read_info()
    return Workbench.prepare(info.model, TaskSpec.model_validate(info.task), "cpu", info.max_length)


def _trained_again(bench: Workbench, study: StudyFolder, result: TrialResult) -> list[float]:
    """The losses of a trial's rungs, alone."""
    last, own = result.rung or 0, study.trial(1000 + result.number)
    runner = TrialRunner(
        *(bench, BUDGET, 0),
        record=lambda asked, value: own.append_rung(value),
        judge=lambda asked, value: verdict(asked.number, value.rung < last),
        stop=lambda: False,
    )
    own.write_configuration(result.configuration or {})
    configuration = Configuration.from_json(result.configuration or {})
    runner.run(Assignment(1000 + result.number, configuration, "sampled"), own)
    return [value.loss for value in own.read_curve()]


def test_members_that_are_evaluated_keep_their_places_and_what_is_recorded(
    bench: Workbench, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rung changes no member, so that passes after it are replays at once."""
    monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())
    monkeypatch.setitem(joint._MULTIPLE, "cpu", 64)
    monkeypatch.setattr(graph_cache, "PAYS", float("inf"))
    trials = CohortScheduler(runner_in(folder, bench), folder, CohortSize(2, 2))
    recorder = EmulatedRecorder()
    trials.cohort.graphs = GraphCache(recorder, trials._log)
    for asked in assignments()[:2]:
        folder.trial(asked.number).write_configuration({})
        assert trials.begin(asked) is None
    trials.advance()
    assert recorder.made == 1
    before_it, compared = 3, 1
    assert recorder.played == compared + BUDGET.max_steps - before_it - compared
    assert [len(folder.trial(n).read_curve()) for n in (0, 1)] == [2, 2]
    assert trials.cohort.graphs.held == 0, "given back as soon as one has ended"


def test_why_passes_do_without_graphs_is_in_the_logs_of_all(
    bench: Workbench, folder: StudyFolder
) -> None:
    trials = CohortScheduler(runner_in(folder, bench), folder, CohortSize(2, 2))
    for asked in assignments()[:2]:
        assert trials.begin(asked) is None
    graphs_of_them = GraphCache(EmulatedRecorder(), trials._log)
    graphs_of_them.disable("the device said no")
    for number in (0, 1):
        assert "the device said no" in folder.trial(number).log_path.read_text("utf-8")
    for one in list(trials.in_flight):
        one.run.model.detach()


def test_an_evaluation_in_a_worker_ends_when_it_is_told_to_stop_and_not_when_time_is_up(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    study = searched(tmp_path, tiny_bert, tiny_sentiment_csv)
    heard: list[Event] = []

    def evaluates() -> bool:
        return any(
            isinstance(event, TrialProgress) and event.phase == "evaluates" for event in heard
        )

    def worker(stop: Callable[[], bool]) -> Worker:
        arguments = (str(study.root), 0, Limits(trials=1), time.monotonic, WorkerSettings(1))
        made = Worker(*arguments, heard.append, stop)
        policy = made.study.policy
        lora = tuple(one for one in policy.landmarks.others if one.label == "lora")
        policy.landmarks = Landmarks(others=lora)
        return made

    worker(evaluates).run()
    assert isinstance(heard[-1], TrialRequeued)
    assert (study.read().results, study.trial(0).read_curve()) == ((), ())

    heard.clear()
    late = worker(lambda: False)
    object.__setattr__(late.scheduler.runner, "stop", evaluates)
    late._last_start = lambda: -math.inf if evaluates() else math.inf  # type: ignore[method-assign]
    late.run()
    assert isinstance(heard[-1], TrialRequeued)
    assert [value.rung for value in study.trial(0).read_curve()] == [0]


def test_data_that_are_read_differently_are_refused_with_both_causes(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    info = searched(tmp_path, tiny_bert, tiny_sentiment_csv).read_info()
    assert workers.bench_of(info, "cpu").task.fingerprint == info.data_fingerprint
    other = info.model_copy(update={"data_fingerprint": "0"})
    with pytest.raises(PeftsearchError, match=r"changed since .* or are read differently by this"):
        workers.bench_of(other, "cpu")
