"""One trial: begun anew where its checkpoint is damaged, and cut short in an evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Training
from peftsearch.design.methods import METHODS
from peftsearch.policy.decisions import Continue, Pause, Stop, Verdict
from peftsearch.records.examples import read_examples
from peftsearch.records.records import RungValue
from peftsearch.records.trial_folder import TrialFolder
from peftsearch.study.study import Assignment
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.model import TunedModel
from peftsearch.training.tensor_file import load_tensors, save_tensors
from peftsearch.workers.trial import TrialRunner


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    return Workbench.prepare(str(tiny_bert), TaskSpec(train=str(tiny_sentiment_csv)))


def runner(
    bench: Workbench,
    folder: TrialFolder,
    stop: Callable[[], bool] = lambda: False,
    abort_evaluation: Callable[[], bool] = lambda: False,
) -> TrialRunner:
    return TrialRunner(
        bench=bench,
        budget=TrainingBudget(max_steps=8, rungs=(0.5, 1.0)),
        seed=0,
        record=lambda _, value: folder.append_rung(value),
        judge=lambda *_: Continue(0),
        stop=stop,
        abort_evaluation=abort_evaluation,
    )


def configuration() -> Configuration:
    return METHODS["lora"].configuration(training=Training(batch_size=16, head_lr=1e-2))


def without_clock(curve: tuple[RungValue, ...]) -> list[RungValue]:
    clock: dict[str, Any] = {"wall_s": 0.0, "cpu_s": 0.0, "eval_s": 0.0}
    return [value.model_copy(update=clock) for value in curve]


def wrong_fact(path: Path) -> None:
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, facts | {"eval_s": []})


def wrong_tensor(path: Path) -> None:
    """The last that is read, so that the others have been taken."""
    tensors, facts = load_tensors(path)
    name = max(n for n in tensors if n.startswith("optimiser/exp_avg/"))
    save_tensors(path, tensors | {name: torch.ones(1)}, facts)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.slow
def test_a_paused_trial_goes_on_to_the_curve_of_one_that_was_not(
    bench: Workbench, tmp_path: Path
) -> None:
    whole, folder = TrialFolder(tmp_path / "whole", 0), TrialFolder(tmp_path / "paused", 0)
    assignment = Assignment(0, configuration(), "sampled")
    expected = runner(bench, whole).run(assignment, whole)
    verdicts: list[Verdict] = [Pause(0), Continue(0), Continue(0)]
    judged: list[int] = []

    def judge(_: Assignment, value: RungValue) -> Verdict:
        judged.append(value.rung)
        return verdicts[len(judged) - 1]

    pausing = replace(runner(bench, folder), judge=judge)
    assert pausing.run(assignment, folder) is None
    assert [value.rung for value in folder.read_curve()] == [0]
    result = pausing.run(replace(assignment, resumed=True), folder)
    assert expected is not None
    assert result is not None
    assert judged == [0, 0, 1]  # taken up at its rung, it is judged there again
    assert (result.state, result.metric) == ("full", expected.metric)
    assert folder.examples_path.read_bytes() == whole.examples_path.read_bytes()
    assert without_clock(result.curve) == without_clock(expected.curve)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [wrong_fact, wrong_tensor, cut_off])
def test_a_trial_whose_checkpoint_is_damaged_has_the_curve_of_one_begun_anew(
    damage: Callable[[Path], None], bench: Workbench, tmp_path: Path
) -> None:
    whole = TrialFolder(tmp_path / "whole", 0)
    assignment = Assignment(0, configuration(), "sampled")
    expected = runner(bench, whole, lambda: False).run(assignment, whole)
    assert expected is not None

    folder, asked = TrialFolder(tmp_path / "cut", 0), iter(range(100))
    assert runner(bench, folder, lambda: next(asked) >= 6).run(assignment, folder) is None
    damage(folder.checkpoint_path)
    again = Assignment(0, configuration(), "sampled", resumed=True)
    result = runner(bench, folder, lambda: False).run(again, folder)
    assert result is not None
    assert without_clock(result.curve) == without_clock(expected.curve)
    assert "restarts from the beginning" in folder.log_path.read_text()
    found = load_tensors(folder.adapter_path)[0]
    for name, tensor in load_tensors(whole.adapter_path)[0].items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("rungs_before", [0, 1])
def test_an_evaluation_is_cut_short_and_the_trial_goes_on_from_its_step(
    rungs_before: int, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftsearch.training.objectives.base.evaluation_tokens", lambda _: 64)
    whole = TrialFolder(tmp_path / "whole", 0)
    assignment, asked = Assignment(0, configuration(), "sampled"), []

    def never() -> bool:
        asked.append(len(whole.read_curve()))
        return False

    expected = runner(bench, whole, abort_evaluation=never).run(assignment, whole)
    assert expected is not None
    batches = asked.count(rungs_before)
    assert batches > 2

    folder, times = TrialFolder(tmp_path / "cut", 0), 0
    (tmp_path / "cut").mkdir()

    def in_the_middle() -> bool:
        nonlocal times
        times += len(folder.read_curve()) == rungs_before
        return times > batches // 2

    assert runner(bench, folder, abort_evaluation=in_the_middle).run(assignment, folder) is None
    assert not folder.examples_path.exists()
    assert times == batches // 2 + 1
    assert len(folder.read_curve()) == rungs_before
    _, facts = load_tensors(folder.checkpoint_path)
    assert facts["step"] == expected.curve[rungs_before].step

    again = Assignment(0, configuration(), "sampled", resumed=True)
    steps: list[int] = []

    def stops() -> bool:
        steps.append(1)
        return False

    result = runner(bench, folder, stops).run(again, folder)
    assert result is not None
    assert without_clock(result.curve) == without_clock(expected.curve)
    assert len(steps) == expected.curve[-1].step - expected.curve[rungs_before].step
    found = load_tensors(folder.adapter_path)[0]
    for name, tensor in load_tensors(whole.adapter_path)[0].items():
        assert torch.equal(found[name], tensor)


def test_a_trial_resolves_its_bench_once_and_places_its_configuration_once(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for owner, name in ((Workbench, "for_training"), (Configuration, "within")):
        inner = getattr(owner, name)

        def counted(
            self: Any, argument: Any, inner: Callable[..., Any] = inner, name: str = name
        ) -> Any:
            calls.append(name)
            return inner(self, argument)

        monkeypatch.setattr(owner, name, counted)
    folder = TrialFolder(tmp_path / "trial", 0)
    result = runner(bench, folder).run(Assignment(0, configuration(), "sampled"), folder)
    assert result is not None
    assert (result.state, len(result.curve)) == ("full", 2)
    assert sorted(calls) == ["for_training", "within"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_result_says_what_the_trial_cost(bench: Workbench, tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial", 0)
    result = runner(bench, folder).run(Assignment(0, configuration(), "sampled"), folder)
    assert result is not None
    assert result.train_s is not None
    assert result.train_cpu_s is not None
    assert result.eval_cpu_s is not None
    assert min(result.train_s, result.train_cpu_s, result.eval_s, result.eval_cpu_s) > 0
    assert result.train_s + result.eval_s == pytest.approx(result.wall_s, abs=2e-3)
    assert result.train_cpu_s + result.eval_cpu_s == pytest.approx(result.cpu_s, abs=2e-3)
    examples = sum(value.examples for value in result.curve)
    assert result.eval_examples == examples == 2 * len(bench.task.validation.texts)
    rounded_s = 1e-3  # of eval_s
    assert result.eval_s_per_example is not None
    assert abs(result.eval_s_per_example * examples - result.eval_s) <= rounded_s
    assert result.peak_rss_bytes is not None
    assert result.peak_rss_bytes > bench.backbone.shapes.body_parameters * 4
    assert result.peak_device_bytes is None
    assert (result.mergeable, result.plain_lora) == (True, True)
    written = folder.adapter_path.read_bytes()
    assert result.adapter_bytes == len(written) - 8 - int.from_bytes(written[:8], "little")


def test_costs_of_a_trial_that_was_interrupted_are_those_of_all_its_parts(
    bench: Workbench, tmp_path: Path
) -> None:
    folder, asked = TrialFolder(tmp_path / "cut", 0), iter(range(100))
    assignment = Assignment(0, configuration(), "sampled")
    assert runner(bench, folder, lambda: next(asked) >= 6).run(assignment, folder) is None
    tensors, before = load_tensors(folder.checkpoint_path)
    spent = {"wall_s": 900.0, "eval_s": 300.0, "cpu_s": 600.0, "eval_cpu_s": 200.0}
    save_tensors(folder.checkpoint_path, tensors, before | spent | {"peak_rss_bytes": 1 << 50})
    result = runner(bench, folder).run(replace(assignment, resumed=True), folder)
    assert result is not None
    assert result.train_s is not None
    assert result.train_cpu_s is not None
    assert result.eval_cpu_s is not None
    assert 600 < result.train_s < 700
    assert 400 < result.train_cpu_s < 500
    assert 300 < result.eval_s < 400
    assert 200 < result.eval_cpu_s < 300
    assert result.peak_rss_bytes == 1 << 50


def test_a_checkpoint_of_an_earlier_version_has_no_costs_but_seconds(
    bench: Workbench, tmp_path: Path
) -> None:
    folder, asked = TrialFolder(tmp_path / "cut", 0), iter(range(100))
    assignment = Assignment(0, configuration(), "sampled")
    assert runner(bench, folder, lambda: next(asked) >= 6).run(assignment, folder) is None
    tensors, facts = load_tensors(folder.checkpoint_path)
    for key in ("eval_cpu_s", "peak_rss_bytes", "peak_device_bytes"):
        del facts[key]
    save_tensors(folder.checkpoint_path, tensors, facts)
    result = runner(bench, folder).run(replace(assignment, resumed=True), folder)
    assert result is not None
    assert result.state == "full"
    assert not folder.log_path.exists()  # it was not begun anew


def test_the_metric_of_full_length_is_that_of_the_examples_that_are_kept(
    bench: Workbench, tmp_path: Path
) -> None:
    folder = TrialFolder(tmp_path / "trial", 0)
    result = runner(bench, folder).run(Assignment(0, configuration(), "sampled"), folder)
    assert result is not None
    kept = read_examples(folder.examples_path)
    assert kept.metric == bench.task.metric.name
    assert len(kept) == len(bench.task.validation.texts)
    assert kept.value() == result.metric
    # Each as the adapter's own predictions have it.
    with TunedModel(bench.backbone, configuration(), bench.task.outputs, finished=True) as model:
        model.load(load_tensors(folder.adapter_path)[0])
        predicted = bench.objective.evaluate(model, bench.validation).predicted
    assert kept.scores is not None
    assert kept.scores.tolist() == (predicted == bench.task.validation.targets).tolist()


def test_examples_are_kept_before_the_value_is_recorded(bench: Workbench, tmp_path: Path) -> None:
    """Killed in between, the trial is evaluated again; the other way round it would never be."""
    folder = TrialFolder(tmp_path / "trial", 0)
    there: list[bool] = []

    def record(_: Assignment, value: RungValue) -> None:
        there.append(folder.examples_path.exists())
        folder.append_rung(value)

    trial = replace(runner(bench, folder), record=record)
    assert trial.run(Assignment(0, configuration(), "sampled"), folder) is not None
    assert there == [False, True]


def test_a_trial_that_is_stopped_early_keeps_no_examples(bench: Workbench, tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial", 0)
    stopping = replace(runner(bench, folder), judge=lambda *_: Stop(0, "enough"))
    result = stopping.run(Assignment(0, configuration(), "sampled"), folder)
    assert result is not None
    assert result.state == "stopped"
    assert not folder.examples_path.exists()
