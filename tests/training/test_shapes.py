"""Shapes and dtypes are those that the docstrings of training/ give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import Cohort, member_optimisations
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.texts import target_logits
from peftsearch.training.optimisations import Optimisations
from support.texts import encoded, objective, run_of, writer
from support.tiny import scored_rows, sentiment_rows, tagged_rows

HIDDEN, TEXTS = 32, np.array([0, 1, 2])
BUDGET = TrainingBudget(max_steps=4, rungs=(1.0,))
ROWS: dict[str, Any] = {
    "labels": sentiment_rows(40),
    "label sets": tagged_rows(40),
    "values": scored_rows(40),
}
OUTPUTS = {"labels": 2, "label sets": 3, "values": 1}
TARGETS = {
    "labels": ((3,), torch.int64),
    "label sets": ((3, 3), torch.float32),
    "values": ((3,), torch.float32),
}


@pytest.fixture(scope="module", params=list(ROWS))
def bench(
    request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workbench:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS[request.param])))
    spec = TaskSpec(train=str(path), label="score" if request.param == "values" else None)
    return Workbench.prepare(str(tiny_bert), spec)


def lora(**training: Any) -> Configuration:
    return METHODS["lora"].configuration(Head("mean"), Training(batch_size=3, **training))


def run_on(bench: Workbench, cohort: Cohort | None = None, **training: Any) -> TrainingRun:
    backbone = bench.backbone if cohort is None else cohort.member_backbone()
    every = Optimisations()
    return TrainingRun(
        *(backbone, bench.train, bench.objective, lora(**training), BUDGET, 0),
        optimisations=every if cohort is None else member_optimisations(every),
    )


def kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    return tuple(tensor.shape), tensor.dtype


def test_inputs_states_logits_and_losses_of_a_head(bench: Workbench) -> None:
    own, output = bench.objective, bench.task.kind.output
    with run_on(bench) as run, torch.no_grad():
        inputs = own.model_inputs(run.model, bench.train, TEXTS)
        tokens = int(bench.train.inputs.lengths[TEXTS].max())
        assert {kind(tensor) for tensor in inputs.tensors.values()} == {((3, tokens), torch.int64)}
        assert kind(inputs.targets) == TARGETS[output]
        states = own.forward(bench.backbone, inputs)
        assert kind(states) == ((3, tokens, HIDDEN), torch.float32)
        assert kind(run.model.pooled(bench.train, TEXTS)) == ((3, HIDDEN), torch.float32)
        logits = run.model.outputs_of(bench.train, TEXTS)
        assert kind(logits) == ((3, OUTPUTS[output]), torch.float32)
        for loss in (
            own.loss(run.model, bench.train, TEXTS),
            own.loss_of_outputs(run.model, states, inputs),
        ):
            assert kind(loss) == ((), torch.float32)
        evaluation = run.evaluate(bench.validation)
    count = len(bench.validation)
    assert isinstance(evaluation.predicted, np.ndarray)
    predicted = (count, 3) if output == "label sets" else (count,)
    assert evaluation.predicted.shape == predicted
    assert evaluation.losses.shape == evaluation.weights.shape == (count,)


def test_beside_a_backbone_in_half_precision_the_head_is_in_fp32(bench: Workbench) -> None:
    half = bench.for_training(Training(precision="bf16"))
    with run_on(half, precision="bf16") as run, torch.no_grad():
        assert run.model.pooled(half.train, TEXTS).dtype == torch.bfloat16
        assert run.model.outputs_of(half.train, TEXTS).dtype == torch.float32
        assert {p.dtype for p in run.model.parameters.values()} == {torch.float32}


def test_a_joint_batch_holds_the_texts_of_every_run_and_gives_a_loss_for_each(
    bench: Workbench,
) -> None:
    cohort = Cohort.of(bench.backbone, Optimisations())
    with run_on(bench, cohort) as one, run_on(bench, cohort) as other:
        joint = JointBatch.next_of([one, other], bench.backbone)
        assert joint.counts == (3, 3)
        assert {len(tensor) for tensor in joint.inputs.values} == {6}
        assert kind(joint.weights) == ((2,), torch.int64)
        assert [len(part) for part in joint.inputs.split(joint.counts)] == [3, 3]
        losses = SharedPass(bench.backbone, cohort.slices, [one, other])(joint)
        assert kind(losses) == ((2,), torch.float32)
        assert not losses.requires_grad
        for parameter in (*one.parameters, *other.parameters):
            assert parameter.grad is None or parameter.grad.shape == parameter.shape


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_logits_of_texts_predict_their_targets(family: str) -> None:
    backbone = writer(family)
    data, own = encoded(backbone), objective(backbone)
    with run_of(backbone, Training(batch_size=3)) as run, torch.no_grad():
        logits, read = target_logits(run.model, data, TEXTS, own.writing.is_decoder)
        vocabulary, predicted = int(backbone.lm.config.vocab_size), own.weight(data, TEXTS)
        assert kind(logits) == ((predicted, vocabulary), torch.float64)
        assert kind(read.targets) == ((predicted,), torch.int64)
        assert kind(read.predicting) == ((2, predicted), torch.int64)
        assert int(read.targets.min()) >= 0
        inputs = own.model_inputs(run.model, data, TEXTS)
        assert torch.equal(inputs.targets, read.targets)
        assert own.forward(backbone, inputs).shape == logits.shape
        assert kind(own.loss_of_outputs(run.model, logits, inputs)) == ((), torch.float64)
