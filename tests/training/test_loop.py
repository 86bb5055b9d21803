"""The training loop: deterministic, continued bit for bit, and failing with a cause."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Relu
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import DataError, Diverged, NotANumber, OutOfMemory
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.optimiser import set_rates
from peftsearch.training.tensor_file import load_tensors
from support.rounding import apart_in_fp32

BUDGET = TrainingBudget(max_steps=12, rungs=(0.5, 1.0), rung_examples=8)
FAST = Training(batch_size=16, head_lr=1e-2)


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


def begin(bench: Workbench, configuration: Configuration, seed: int = 0) -> TrainingRun:
    return TrainingRun(bench.backbone, bench.train, bench.objective, configuration, BUDGET, seed)


def configured(name: str, **changes: object) -> Configuration:
    training = Training(**{"batch_size": 16, "head_lr": 1e-2, **changes})  # type: ignore[arg-type]
    return METHODS[name].configuration(Head("mean", "trained"), training)


def curve(bench: Workbench, configuration: Configuration, seed: int = 0) -> list[tuple[float, ...]]:
    values = []
    with begin(bench, configuration, seed) as run:
        for step in (4, 8, 12):
            run.train_to(step)
            evaluation = run.evaluate(bench.validation)
            values.append((run.smoothed_loss, evaluation.loss))
    return values


def state(run: TrainingRun) -> dict[str, torch.Tensor]:
    own = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    return own | {f"average/{n}": v.clone() for n, v in run.average.values.items()}


@pytest.mark.parametrize("name", ["mam", "bitfit", "full", "head-only-mean"])
def test_the_same_configuration_and_seed_give_the_same_curve_bit_for_bit(
    name: str, bench: Workbench
) -> None:
    assert curve(bench, configured(name)) == curve(bench, configured(name))


def test_another_seed_gives_another_curve(bench: Workbench) -> None:
    assert curve(bench, configured("mam"), 0) != curve(bench, configured("mam"), 1)


@pytest.mark.parametrize("name", ["mam", "lora", "houlsby", "bitfit", "full"])
@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_run_continued_from_a_checkpoint_equals_the_uninterrupted_one(
    name: str, cut: int, bench: Workbench, tmp_path: Path
) -> None:
    with begin(bench, configured(name)) as run:
        run.train_to(12)
        whole, loss = state(run), run.evaluate(bench.validation).loss
    with begin(bench, configured(name)) as first:
        first.train_to(cut)
        first.save(tmp_path / "checkpoint.safetensors")
    with begin(bench, configured(name)) as second:
        second.restore(tmp_path / "checkpoint.safetensors")
        second.train_to(12)
        continued, loss_again = state(second), second.evaluate(bench.validation).loss
    assert all(torch.equal(whole[n], continued[n]) for n in whole)
    assert loss == loss_again


@pytest.mark.slow
def test_training_learns_what_can_be_learnt(bench: Workbench) -> None:
    configuration = configured("lora", lr=(("linear", 1e-2),))
    budget = TrainingBudget(epochs=12, rungs=(1.0,))
    with TrainingRun(bench.backbone, bench.train, bench.objective, configuration, budget, 0) as run:
        run.train_to(run.rung_steps[-1])
        evaluation = run.evaluate(bench.train)
    accuracy = bench.task.metric.value(
        *evaluation.pair(bench.task.metric, bench.task.train.targets)
    )
    assert accuracy > bench.task.worst + 0.3


def test_evaluation_and_training_leave_the_backbone_as_it_was(bench: Workbench) -> None:
    before = {n: p.clone() for n, p in bench.backbone.model.named_parameters()}
    curve(bench, configured("full"))
    after = dict(bench.backbone.model.named_parameters())
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_stop_leaves_the_run_where_it_was(bench: Workbench) -> None:
    calls = iter([False, False, True])
    with begin(bench, configured("lora")) as run:
        assert not run.train_to(12, lambda: next(calls))
        assert run.step == 2


def test_a_nan_ends_the_trial_with_its_cause(bench: Workbench) -> None:
    with begin(bench, configured("lora")) as run:
        with torch.no_grad():
            next(iter(run.model.parameters.values())).fill_(float("nan"))
        with pytest.raises(NotANumber, match="nan at step 1"):
            run.train_to(3)


def test_divergence_ends_the_trial_with_its_cause(bench: Workbench) -> None:
    with (
        begin(bench, configured("head-only-mean", head_lr=10.0, max_grad_norm=1e9)) as run,
        pytest.raises(Diverged, match="times a constant predictor's"),
    ):
        run.train_to(12)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_ends_the_trial_with_its_cause(
    error: Exception, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin(bench, configured("lora")) as run:

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(run.optimiser, "step", fail)
        with pytest.raises(OutOfMemory):
            run.train_to(1)


def test_a_failed_run_leaves_the_backbone_clean(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with begin(bench, configured("full")) as run:
            monkeypatch.setattr(run.objective, "max_loss", 0.0)
            run.train_to(12)

    with pytest.raises(Diverged):
        fail()
    assert not any(p.requires_grad for p in bench.backbone.model.parameters())


def test_a_damaged_checkpoint_is_refused(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with begin(bench, configured("lora")) as run:
        run.train_to(1)
        run.save(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            run.restore(path)


def test_a_checkpoint_of_another_configuration_is_refused(bench: Workbench, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    with begin(bench, configured("lora")) as run:
        run.save(path)
    with (
        begin(bench, configured("bitfit")) as other,
        pytest.raises(DataError, match="another configuration or seed"),
    ):
        other.restore(path)


def test_scales_and_biases_are_not_decayed_and_forms_have_their_own_rates(
    bench: Workbench,
) -> None:
    from peftsearch.design.composition import Scaled

    modification = Modification(
        Relu(bias=True), Place.parse("ffn.out"), composition=Scaled("learned"), width=4
    )
    training = Training(lr=(("relu", 0.02),), head_lr=0.03, weight_decay=0.5)
    with begin(bench, Configuration((modification,), training=training)) as run:
        names = {id(p): n for n, p in run.model.parameters.items()}
        groups = [
            (group["full_lr"], group["weight_decay"], {names[id(p)] for p in group["params"]})
            for group in run.optimiser.param_groups
        ]
    decayed = {n for lr, decay, ns in groups for n in ns if decay == 0.5}
    assert {n.rsplit("/", 1)[1] for n in decayed} == {"down", "up", "classifier.weight"}
    assert {n for lr, _, ns in groups for n in ns if lr == 0.03} == {
        "head/classifier.weight",
        "head/classifier.bias",
    }


def test_the_rate_warms_up_linearly_and_then_stays(bench: Workbench) -> None:
    with begin(bench, configured("lora", lr=(("linear", 0.5),))) as run:
        rates = []
        for step in range(8):
            set_rates(run.optimiser, step, warmup=3)
            rates.append(run.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5])


def test_no_dropout_acts_in_the_frozen_backbone(bench: Workbench) -> None:
    with begin(bench, configured("lora")) as run:
        run.train_to(2)
        losses = {run.evaluate(bench.validation).loss for _ in range(3)}
    assert len(losses) == 1
    assert not bench.backbone.model.training


def test_padded_and_single_examples_have_equal_logits(bench: Workbench) -> None:
    from peftsearch.training.objectives.labels import outputs_of

    with begin(bench, configured("mam")) as run:
        together = outputs_of(run.model, bench.validation)
        device = bench.backbone.device
        import numpy as np

        with torch.no_grad():
            alone = [run.model(**bench.validation.batch(np.array([i]), device)) for i in range(6)]
    assert apart_in_fp32(together[:6], torch.cat(alone)) <= 1


@pytest.mark.parametrize("name", ["diff-pruning", "prefix-mlp", "prompt", "pissa", "compacter"])
def test_what_is_stored_gives_the_evaluated_loss_again(
    name: str, bench: Workbench, tmp_path: Path
) -> None:
    """Trained and stored tensors differ in some of these: the finished model is the same one."""
    configuration = configured(name)
    with begin(bench, configuration) as run:
        run.train_to(8)
        loss = run.evaluate(bench.validation).loss
        run.save_adapter(tmp_path / "adapter.safetensors")
    tensors, _ = load_tensors(tmp_path / "adapter.safetensors")
    with TunedModel(bench.backbone, configuration, 2, seed=9, finished=True) as model:
        model.load(tensors)
        assert bench.objective.evaluate(model, bench.validation).loss == loss


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 7])
@pytest.mark.parametrize("name", ["diff-pruning", "prefix-mlp", "lora-plus"])
def test_a_run_of_other_tensors_than_the_stored_ones_is_continued_bit_for_bit(
    name: str, cut: int, bench: Workbench, tmp_path: Path
) -> None:
    test_a_run_continued_from_a_checkpoint_equals_the_uninterrupted_one(name, cut, bench, tmp_path)


def test_lora_plus_trains_up_projections_faster(bench: Workbench) -> None:
    with begin(bench, configured("lora-plus")) as run:
        rates = {
            tuned.name.rsplit("/", 1)[1]: group["full_lr"]
            for group in run.optimiser.param_groups
            for tuned in run.model.attachment.tuned
            if any(tuned.parameter is p for p in group["params"])
        }
    assert rates["up"] == pytest.approx(16 * rates["down"])


def test_a_configuration_whose_tensors_fit_no_memory_is_one_sentence(bench: Workbench) -> None:
    wide = Modification(Relu(), Place.parse("ffn.out"), width=2**43)
    with pytest.raises(OutOfMemory, match=r"^out of memory: 1,048,576\.0 GiB more were needed$"):
        begin(bench, Configuration((wide,), training=FAST))
