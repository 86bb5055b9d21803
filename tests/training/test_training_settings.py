"""Every setting of training does what it says and no more: pieces, precision, lengths, clipping."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from support.points import point
from support.texts import (
    TRAINING,
    after,
    encoded,
    furthest,
    gradients,
    lora,
    objective,
    run_of,
    trained,
    untuned,
    writer,
)
from support.tiny import copying_rows, write_csv

# -- accumulation ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [2, 4, 100])
@pytest.mark.parametrize("family", ["bart", "llama"])
def test_a_batch_in_pieces_is_the_same_step(family: str, pieces: int) -> None:
    losses, tensors = after(writer(family), TRAINING)
    again, others = after(writer(family), replace(TRAINING, accumulation=pieces))
    assert losses == pytest.approx(again, rel=1e-10)
    assert furthest(tensors, others) <= 1e-10


def test_tokens_weigh_alike_in_whichever_piece_they_are() -> None:
    """A mean of the pieces' means would be another loss: their targets differ in length."""
    backbone = writer("bart")
    data, own = encoded(backbone), objective(backbone)
    with run_of(backbone, replace(TRAINING, accumulation=4), 1) as run:
        pieces = np.array_split(run.order.batch(0), 4)
        (loss,) = trained(run, 1)
    with untuned(backbone) as model, torch.no_grad():
        sums = [float(own.loss(model, data, piece)) for piece in pieces]
    weights = [own.weight(data, piece) for piece in pieces]
    assert loss == pytest.approx(sum(sums) / sum(weights), rel=1e-12)
    assert loss != pytest.approx(np.mean(np.divide(sums, weights)), rel=1e-4)


def test_pieces_see_the_same_random_gates_and_one_penalty() -> None:
    """Diff-pruning draws a gate for every entry of the body, once a step."""
    backbone = writer("bart")
    budget = TrainingBudget(max_steps=1, rungs=(1.0,))
    found = []
    for pieces in (1, 4):
        training = Training(batch_size=8, accumulation=pieces, max_grad_norm=1e9)
        one = replace(point("diff-pruning", backbone.shapes), head=Head("none"), training=training)
        with TrainingRun(backbone, encoded(backbone), objective(backbone), one, budget, 0) as run:
            found.append(gradients(run))
    assert furthest(*found) <= 1e-12
    assert all(float(gradient.abs().max()) > 0 for gradient in found[0].values())


# -- precision and length: the bench makes what a configuration asks for -----------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "llama"])
def test_in_bf16_losses_are_near_those_in_fp32_and_what_is_tuned_is_fp32(family: str) -> None:
    exact, _ = after(writer(family, torch.float32), TRAINING)
    half, tensors = after(writer(family, torch.bfloat16), replace(TRAINING, precision="bf16"))
    assert half == pytest.approx(exact, rel=0.02)
    assert half != exact
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in tensors.values())


@pytest.fixture(scope="module")
def bench(tiny_bart: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    data = write_csv(tmp_path_factory.mktemp("data") / "answers.csv", copying_rows(40))
    spec = TaskSpec(train=str(data), text=("source",), label="answer", kind="seq2seq")
    return Workbench.prepare(str(tiny_bart), spec)


def test_a_configuration_in_bf16_gets_its_own_backbone_once(bench: Workbench) -> None:
    half = bench.for_training(Training(precision="bf16"))
    assert half.backbone.dtype == half.backbone.lm.dtype == torch.bfloat16
    assert bench.for_training(Training()).backbone.dtype == torch.float32
    assert bench.for_training(Training(precision="bf16")) is half


def test_a_configurations_length_cuts_its_texts_and_no_targets(bench: Workbench) -> None:
    short = bench.for_training(Training(max_length=6))
    for cut, whole in ((short.train, bench.train), (short.validation, bench.validation)):
        assert cut.inputs.lengths.tolist() == whole.inputs.lengths.clip(max=6).tolist()
        assert cut.written is not None
        assert whole.written is not None
        assert cut.written.lengths.tolist() == whole.written.lengths.tolist()
    assert (short.train.inputs.lengths < bench.train.inputs.lengths).any()
    assert short.backbone is bench.backbone


def test_a_length_beyond_the_studys_changes_nothing(bench: Workbench) -> None:
    assert bench.for_training(Training(max_length=10_000)) is bench


def test_precision_and_length_may_be_asked_for_together(bench: Workbench) -> None:
    both = bench.for_training(Training(max_length=6, precision="bf16"))
    assert (both.lengths.text, both.backbone.dtype) == (6, torch.bfloat16)
    assert int(both.train.inputs.lengths.max()) == 6


# -- clipping and schedules --------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.05, 0.5, 50.0])
def test_gradients_are_clipped_by_their_norm_together(limit: float) -> None:
    """As torch's clip_grad_norm_ writes it: g · min(1, limit / (‖all g‖ + 10⁻⁶))."""
    found = []
    for bound in (1e9, limit):
        with run_of(writer("bart"), replace(TRAINING, max_grad_norm=bound), 1) as run:
            found.append(gradients(run))
    free, clipped = found
    norm = float(torch.stack([g.norm() for g in free.values()]).norm())
    share = min(1.0, limit / (norm + 1e-6))
    assert 0.5 < norm < 50, "the limits stand on both sides of it"
    assert furthest(clipped, {name: share * g for name, g in free.items()}) <= 1e-12


def test_a_linear_schedule_is_evaluated_at_full_length_alone_and_without_averages() -> None:
    backbone = writer("bart")
    budget = TrainingBudget(max_steps=8, rungs=(0.25, 1.0))
    data, own = encoded(backbone), objective(backbone)
    rungs = {}
    for schedule in ("constant", "linear"):
        configuration: Configuration = lora(replace(TRAINING, schedule=schedule))
        with TrainingRun(backbone, data, own, configuration, budget, 0) as run:
            run.train_to(8)
            rungs[schedule] = run.rungs
            own_values = run.model.parameters
            averaged = any(
                not torch.equal(value, own_values[name])
                for name, value in run.average.values.items()
            )
            assert averaged == (schedule == "constant")
    assert rungs == {"constant": ((0, 2), (1, 8)), "linear": ((1, 8),)}


@pytest.mark.parametrize("family", ["bart", "llama"])
def test_smoothed_labels_are_a_mixture_with_all_words_alike(family: str) -> None:
    """(1 - ε) of the word's loss and ε of the mean over the vocabulary."""
    backbone = writer(family)
    data, own, chosen = encoded(backbone), objective(backbone), np.arange(8)
    losses = []
    for smoothing in (0.0, 0.25, 0.5):
        with untuned(backbone, Training(label_smoothing=smoothing)) as model, torch.no_grad():
            losses.append(float(own.loss(model, data, chosen)))
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1], rel=1e-9)
    assert losses[1] != pytest.approx(losses[0], rel=1e-6)
