"""Logits of predicted tokens alone: how many there are, and losses and gradients as with all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Training
from peftsearch.training.cohort import joint_batch
from peftsearch.training.cohort.cohort import Cohort
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import result_of
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.optimisations import Optimisations
from support.backbones import perturb
from support.families import TINY
from support.texts import encoded, lora, objective, writer

WRITERS = [name for name, tiny in TINY.items() if tiny.kind != "encoder"]
BATCH = np.arange(6)
ALL = Optimisations()
DENSE = ALL.without("logits")
BUDGET = TrainingBudget(max_steps=4, rungs=(1.0,))


@contextmanager
def rows_of_logits(backbone: Backbone) -> Iterator[list[int]]:
    """Tokens whose logits are computed, of each forward."""
    rows: list[int] = []

    def note(module: object, args: object, logits: Tensor) -> None:
        rows.append(logits.numel() // logits.shape[-1])

    handle = backbone.lm.get_output_embeddings().register_forward_hook(note)
    try:
        yield rows
    finally:
        handle.remove()


def tuned(backbone: Backbone, optimisations: Optimisations = ALL) -> TunedModel:
    model = TunedModel(backbone, lora(), 0, optimisations=optimisations)
    perturb(dict(model.parameters))
    return model


def begun(cohort: Cohort, backbone: Backbone, optimisations: Optimisations) -> list[TrainingRun]:
    """Three runs of different batches, two of them of other sizes."""
    runs = [
        TrainingRun(
            *(cohort.member_backbone(), encoded(backbone), objective(backbone)),
            *(lora(Training(batch_size=size)), BUDGET, seed),
            optimisations=optimisations,
        )
        for seed, size in enumerate((6, 4, 6))
    ]
    for run in runs:
        perturb(dict(run.model.parameters))
    return runs


def shared_pass(
    backbone: Backbone, optimisations: Optimisations
) -> tuple[JointBatch, int, Tensor, list[Tensor]]:
    """Its batch, rows of logits, losses and gradients."""
    cohort = Cohort(backbone)
    runs = begun(cohort, backbone, optimisations)
    joint = JointBatch.next_of(runs, backbone)
    do = SharedPass(backbone, cohort.slices, runs)
    with rows_of_logits(backbone) as rows:
        losses, gradients = result_of(do, do.parameters, joint)
    for run in runs:
        run.model.detach()
    assert len(rows) == 1
    return joint, rows[0], losses, [g for g in gradients if g is not None]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    largest = max(float(one.abs().max()) for one in expected)
    for own, other in zip(found, expected, strict=True):
        assert float((own - other).abs().max()) <= 1e-12 * largest


@pytest.mark.parametrize("family", WRITERS)
def test_a_head_reads_as_many_states_as_there_are_targets(family: str) -> None:
    backbone, data, own = writer(family), encoded(writer(family)), objective(writer(family))
    assert data.written is not None
    with tuned(backbone) as model, rows_of_logits(backbone) as rows:
        own.loss(model, data, BATCH)
        assert rows == [own.weight(data, BATCH)]
        rows.clear()
        own.evaluate(model, data, predict=False)
        assert sum(rows) == int(data.written.lengths.sum())
    with tuned(backbone, DENSE) as model, rows_of_logits(backbone) as rows:
        own.loss(model, data, BATCH)
        assert rows[0] > own.weight(data, BATCH), "padding, and a decoder's prompts"


@pytest.mark.parametrize("family", WRITERS)
def test_losses_and_gradients_are_those_of_all_logits(family: str) -> None:
    backbone, data, own = writer(family), encoded(writer(family)), objective(writer(family))
    found = []
    for optimisations in (ALL, DENSE):
        with tuned(backbone, optimisations) as model:
            loss = own.loss(model, data, BATCH)
            loss.backward()
            gradients = [p.grad.clone() for p in model.parameters.values() if p.grad is not None]
            losses = own.evaluate(model, data, predict=False).losses
        found.append(([loss.detach()], gradients, [torch.from_numpy(losses)]))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("family", WRITERS)
def test_the_models_own_logits_give_the_same_losses(family: str) -> None:
    """Those of transformers' forward without a hook, of every token of each text."""
    backbone, data, own = writer(family), encoded(writer(family)), objective(writer(family))
    with tuned(backbone) as model, torch.no_grad():
        losses = own.evaluate(model, data, predict=False).losses[BATCH]
        inputs = own.model_inputs(model, data, BATCH)
        logits = backbone.lm(**inputs.tensors, use_cache=False).logits
        assert inputs.predicting is not None
        each = cross_entropy(logits[*inputs.predicting], inputs.targets, reduction="none")
        expected = np.bincount(inputs.predicting[0], each.numpy(), len(BATCH))
    assert np.abs(losses - expected).max() <= 1e-12 * expected.max()


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("family", ["llama", "gemma2", "opt", "bart", "t5", "marian"])
def test_so_are_those_of_a_cohort(
    family: str, multiple: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone on the CPU, and with shapes of which few occur as on a GPU."""
    monkeypatch.setitem(joint_batch._MULTIPLE, "cpu", multiple)
    backbone = writer(family)
    joint, rows, losses, gradients = shared_pass(backbone, ALL)
    _, all_rows, expected, dense = shared_pass(backbone, DENSE)
    targets = int(joint.weights.sum())
    assert rows == targets if multiple == 1 else targets <= rows <= all_rows
    assert_close([losses], [expected])
    assert_close(gradients, dense)


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_on_a_gpu_few_shapes_occur(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CUDA graph serves one; targets alone would give nearly every batch its own."""
    keys: dict[int, set[Any]] = {}
    for multiple in (1, 16):
        monkeypatch.setitem(joint_batch._MULTIPLE, "cpu", multiple)
        backbone = writer(family)
        cohort = Cohort(backbone)
        runs = begun(cohort, backbone, ALL)
        keys[multiple] = set()
        for _ in range(12):
            keys[multiple].add(JointBatch.next_of(runs, backbone).key)
            for run in runs:
                run.step += 1
                run.pieces.end_step()
        for run in runs:
            run.model.detach()
    assert len(keys[16]) <= 2 < 10 <= len(keys[1])
