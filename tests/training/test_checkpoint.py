"""Checkpoints: whole or not there, of one run only, and exact at every step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError, DataError, OutOfMemory, TrialFailure
from peftsearch.task.spec import TaskSpec
from peftsearch.training import checkpoint
from peftsearch.training.bench import Workbench
from peftsearch.training.checkpoint import load_tensors, save_tensors
from peftsearch.training.loop import TrainingRun

STEPS = 14
BUDGET = TrainingBudget(max_steps=STEPS, rungs=(0.5, 1.0))


@pytest.fixture(scope="module")
def bench(tiny_roberta: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_roberta), spec)


def configured(name: str, **changes: Any) -> Configuration:
    training = Training(batch_size=24, warmup=0.5, **changes)
    return METHODS[name].configuration(Head("first", "trained"), training)


def begin(bench: Workbench, configuration: Configuration, seed: int = 0) -> TrainingRun:
    return TrainingRun(bench.backbone, bench.train, bench.objective, configuration, BUDGET, seed)


def everything(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Parameters, averages and optimiser state."""
    held = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    held |= {f"average/{n}": v.clone() for n, v in run.average.values.items()}
    for name, parameter in run.model.parameters.items():
        state = run.optimiser.state[parameter]
        held |= {f"{key}/{name}": value.clone() for key, value in state.items()}
    return held


@pytest.mark.slow
def test_cut_off_at_any_step_the_run_ends_as_if_it_had_not_been(
    bench: Workbench, tmp_path: Path
) -> None:
    """Warm-up, rung and two ends of epochs lie among the steps."""
    path, configuration = tmp_path / "checkpoint.safetensors", configured("mam")
    losses = []
    with begin(bench, configuration) as run:
        for _ in range(STEPS):
            run.train_to(run.step + 1)
            losses.append(run.smoothed_loss)
        whole, last = everything(run), run.evaluate(bench.validation)
    for cut in range(STEPS + 1):
        with begin(bench, configuration) as first:
            first.train_to(cut)
            first.save(path)
        torch.rand(7)  # the global generator is nobody's
        continued = []
        with begin(bench, configuration) as second:
            second.restore(path)
            assert second.step == cut
            while second.step < STEPS:
                second.train_to(second.step + 1)
                continued.append(second.smoothed_loss)
            ended, evaluation = everything(second), second.evaluate(bench.validation)
        assert continued == losses[cut:]
        assert ended.keys() == whole.keys()
        assert all(torch.equal(whole[n], ended[n]) for n in whole)
        assert evaluation.loss == last.loss
        assert (evaluation.predicted == last.predicted).all()


def test_evaluating_on_the_way_changes_nothing(bench: Workbench) -> None:
    ends = []
    for evaluate in (False, True):
        with begin(bench, configured("houlsby")) as run:
            for step in range(1, STEPS + 1):
                run.train_to(step)
                if evaluate:
                    run.evaluate(bench.validation, limit=5)
            ends.append(everything(run))
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_the_next_rung_follows_from_the_step_restored(bench: Workbench, tmp_path: Path) -> None:
    found = []
    for cut in (0, 6, 7, 13, 14):
        with begin(bench, configured("lora")) as run:
            run.train_to(cut)
            run.save(tmp_path / "c")
        with begin(bench, configured("lora")) as again:
            again.restore(tmp_path / "c")
            found.append(again.next_rung)
    assert found == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("name", "seed", "changes"),
    [("mam", 0, {}), ("lora", 1, {}), ("lora", 0, {"head_lr": 0.5})],
)
def test_a_checkpoint_of_another_run_is_refused(
    name: str, seed: int, changes: dict[str, Any], bench: Workbench, tmp_path: Path
) -> None:
    with begin(bench, configured("lora")) as run:
        run.save(tmp_path / "c")
    with begin(bench, configured(name, **changes), seed) as other:
        before = everything(other)
        with pytest.raises(DataError, match="another configuration or seed"):
            other.restore(tmp_path / "c")
        after = everything(other)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_checkpoint_cut_at_any_place_is_refused(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "c"
    with begin(bench, configured("lora")) as run:
        run.train_to(1)
        run.save(path)
        content = path.read_bytes()
        for size in (0, 1, 7, 8, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            with pytest.raises(DataError, match="cannot be read as safetensors"):
                run.restore(path)


def test_a_file_that_is_not_there_or_not_ours_is_refused(bench: Workbench, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with begin(bench, configured("lora")) as run:
        for name in ("nothing", "foreign"):
            with pytest.raises(DataError):
                run.restore(tmp_path / name)


def test_tensors_of_another_shape_are_refused(bench: Workbench) -> None:
    with begin(bench, configured("lora")) as run:
        tensors = {n: p.detach().clone() for n, p in run.model.parameters.items()}
        name = next(iter(tensors))
        with pytest.raises(ConfigurationError, match=r"has shape \(1,\)"):
            run.model.load(tensors | {name: torch.zeros(1)})


def test_tensors_and_facts_read_back_as_written(tmp_path: Path) -> None:
    tensors = {"a/b": torch.arange(6.0).view(2, 3).T, "c": torch.tensor(3, dtype=torch.int64)}
    facts = {"step": 3, "loss": 0.1, "text": "∥ö"}
    save_tensors(tmp_path / "t", tensors, facts)
    read, again = load_tensors(tmp_path / "t")
    assert again == facts
    assert all(torch.equal(tensors[n], read[n]) for n in tensors)


def test_a_file_is_to_the_byte_what_safetensors_would_have_written(tmp_path: Path) -> None:
    tensors = {
        "step": torch.tensor(3.0),
        "turned": torch.randn(4, 6).t(),
        "é": torch.arange(5, dtype=torch.uint8),
        "b": torch.tensor([True, False]),
        "wide": torch.randn(3, dtype=torch.float64),
        "indices": torch.arange(7),
        "few": torch.arange(3, dtype=torch.int32),
        "half": torch.randn(3).half(),
        "brain": torch.randn(5).bfloat16(),
        "none": torch.empty(0, 4),
    }
    save_tensors(tmp_path / "ours", tensors, {"a": 'é"'})
    held = {name: tensor.contiguous() for name, tensor in tensors.items()}
    expected = save(held, metadata={"peftsearch": json.dumps({"a": 'é"'})})
    assert (tmp_path / "ours").read_bytes() == expected


def test_a_checkpoint_is_written_from_where_its_tensors_are() -> None:
    """None of it is copied: the state of full fine-tuning is five times the model."""
    tensor = torch.arange(6.0).view(2, 3)
    *_, last = checkpoint._file({"a": tensor}, {})
    tensor[1, 2] = 7.0
    assert torch.frombuffer(last, dtype=torch.float32).tolist() == [0, 1, 2, 3, 4, 7]


def test_running_out_of_memory_while_evaluating_has_its_cause_and_restores_the_weights(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(bench.objective, "evaluate", fail)
    with begin(bench, configured("lora")) as run:
        run.train_to(3)
        before = everything(run)
        with pytest.raises(OutOfMemory, match="CUDA out of memory") as caught:
            run.evaluate(bench.validation)
        after = everything(run)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_another_error_is_not_called_out_of_memory(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with begin(bench, configured("lora")) as run:
        monkeypatch.setattr(run.optimiser, "step", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            run.train_to(1)


def test_a_rate_that_is_far_too_high_ends_the_trial_with_a_cause(bench: Workbench) -> None:
    configuration = configured("mam", head_lr=10.0, lr=(("relu", 10.0), ("prefix", 10.0)))
    with begin(bench, configuration) as run, pytest.raises(TrialFailure) as caught:
        run.train_to(STEPS)
    assert caught.value.cause in {"diverged", "nan"}


def test_only_matrices_of_full_fine_tuning_are_decayed(bench: Workbench) -> None:
    """Norms and biases are not, nor are BitFit's tensors at all."""
    for name in ("full", "bitfit"):
        with begin(bench, configured(name, weight_decay=0.5)) as run:
            names = {id(p): n for n, p in run.model.parameters.items()}
            decayed = {
                names[id(p)]
                for group in run.optimiser.param_groups
                if group["weight_decay"]
                for p in group["params"]
            }
            grouped = [id(p) for group in run.optimiser.param_groups for p in group["params"]]
            matrices = {n for n, p in run.model.parameters.items() if p.ndim > 1}
        assert decayed == matrices
        assert sorted(grouped) == sorted(names)


def test_the_loss_of_a_step_is_the_mean_over_its_examples_in_nats(bench: Workbench) -> None:
    configuration = configured("lora")
    with begin(bench, configuration) as run:
        indices = run.order.batch(0)
        batch, labels = run.train_set.batch(indices), run.train_set.labels_of(indices)
        logits = run.model(**batch)
        expected = -logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean().item()
        before = run.smoothed_loss
        run.train_to(1)
        assert run.smoothed_loss == pytest.approx(0.9 * before + 0.1 * expected, rel=1e-6)


def spoilt_facts(path: Path, **changes: Any) -> None:
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, facts | changes)


def spoilt_tensor(path: Path, beginning: str, shape: tuple[int, ...] | None) -> None:
    """The first tensor whose name begins so, with another shape or gone."""
    tensors, facts = load_tensors(path)
    name = next(n for n in sorted(tensors) if n.startswith(beginning))
    if shape is None:
        del tensors[name]
    else:
        tensors[name] = torch.zeros(shape)
    save_tensors(path, tensors, facts)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -5},
        {"step": STEPS + 1},
        {"step": [3]},
        {"step": float("nan")},
        {"first_loss": []},
        {"smoothed_loss": "x"},
        {"wall_s": None},
        {"cpu_s": float("inf")},
    ],
)
def test_a_checkpoint_with_facts_that_make_no_sense_is_refused(
    changes: dict[str, Any], bench: Workbench, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    with begin(bench, configured("lora")) as run:
        run.train_to(2)
        run.save(path)
        spoilt_facts(path, **changes)
        with pytest.raises(DataError, match="not a whole checkpoint"):
            run.restore(path)


@pytest.mark.parametrize("beginning", ["average/", "optimiser/exp_avg/", "head/", "tuned/"])
@pytest.mark.parametrize("shape", [(1,), (3, 1, 7), None])
def test_a_checkpoint_with_tensors_that_do_not_fit_is_refused(
    beginning: str, shape: tuple[int, ...] | None, bench: Workbench, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    with begin(bench, configured("lora")) as run:
        run.train_to(2)
        run.save(path)
        spoilt_tensor(path, beginning, shape)
        with pytest.raises(DataError, match="not a whole checkpoint"):
            run.restore(path)


@pytest.mark.parametrize("beginning", ["optimiser/exp_avg_sq/", "optimiser/step/"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_an_optimisers_state_of_another_kind_of_number_is_refused(
    beginning: str, dtype: torch.dtype, bench: Workbench, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    with begin(bench, configured("lora")) as run:
        run.train_to(2)
        run.save(path)
        tensors, facts = load_tensors(path)
        name = next(name for name in tensors if name.startswith(beginning))
        save_tensors(path, tensors | {name: tensors[name].to(dtype)}, facts)
        with pytest.raises(DataError, match="not a whole checkpoint"):
            run.restore(path)


@pytest.mark.parametrize("facts", ["[]", "null", "{", "[" * 100_000])
def test_facts_that_are_no_object_are_refused(facts: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "c", metadata={"peftsearch": facts})
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        load_tensors(tmp_path / "c")
