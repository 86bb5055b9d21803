"""Training on sets of labels: the loss is torch's, and every way of training gives the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort import joint_batch as joint_module
from peftsearch.training.cohort.cohort import Cohort, member_optimisations
from peftsearch.training.loop import TrainingRun
from peftsearch.training.module import TunedModule
from peftsearch.training.objectives.batch import Given
from peftsearch.training.objectives.label_sets import LabelSets
from peftsearch.training.optimisations import Optimisations
from support.backbones import backbone_at
from support.tiny import tagged_rows

STEPS = 12
BUDGET = TrainingBudget(max_steps=STEPS, rungs=(0.5, 1.0), rung_examples=5)


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    path = tmp_path_factory.mktemp("tags") / "tags.jsonl"
    path.write_text("\n".join(map(json.dumps, tagged_rows(90))))
    return Workbench.prepare(str(tiny_bert), TaskSpec(train=str(path)))


def method(name: str, pooling: str = "mean", **training: Any) -> Configuration:
    settings = {"batch_size": 6, "weight_decay": 0.1, "head_lr": 1e-2, **training}
    return METHODS[name].configuration(Head(pooling), Training(**settings))  # type: ignore[arg-type]


def begun(
    bench: Workbench,
    one: Configuration,
    backbone: Backbone | None = None,
    seed: int = 0,
    optimisations: Optimisations | None = None,
) -> TrainingRun:
    return TrainingRun(
        *(backbone or bench.backbone, bench.train, bench.objective, one, BUDGET, seed),
        optimisations=optimisations or Optimisations(),
    )


def state(run: TrainingRun) -> dict[str, Tensor]:
    own = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    return own | {f"average/{n}": v.clone() for n, v in run.average.values.items()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def fp64(bench: Workbench) -> Backbone:
    return backbone_at(Path(bench.backbone.name), torch.float64)


def test_the_objective_has_an_output_for_each_label(bench: Workbench) -> None:
    assert isinstance(bench.objective, LabelSets)
    assert bench.objective.outputs == len(bench.task.labels) == 3
    assert bench.train.labels.shape == (len(bench.train), 3)
    assert bench.train.first(7).labels.shape == (7, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradients_are_torchs(bench: Workbench, smoothing: float) -> None:
    backbone = fp64(bench)
    indices = np.array([4, 1, 9, 0])
    one = method("lora", label_smoothing=smoothing)
    with begun(bench, one, backbone) as run:
        assert run.model.head is not None
        loss = bench.objective.loss(run.model, run.train_set, indices)
        weight = bench.objective.weight(run.train_set, indices)
        found = torch.autograd.grad(loss / weight, run.model.head.classifier.weight)[0]
        logits = run.model.outputs_of(run.train_set, indices)
        wanted = run.train_set.labels[indices].double() * (1 - smoothing) + smoothing / 2
        expected = torch.nn.BCEWithLogitsLoss()(logits, wanted)
        other = torch.autograd.grad(expected, run.model.head.classifier.weight)[0]
    assert abs(loss.item() / weight - expected.item()) < 1e-12
    assert (found - other).abs().max() < 1e-12


def test_texts_that_only_fill_a_batch_up_add_nothing(bench: Workbench) -> None:
    with begun(bench, method("lora"), fp64(bench)) as run:
        part = bench.objective.given(run.model, run.train_set, np.array([3, 5, 5]))
        given = part.ignoring(np.array([False, False, True]))
        outputs = bench.objective.run(run.model.backbone, given)
        filled = bench.objective.loss_of(run.model, outputs, given)
        plain = bench.objective.loss(run.model, run.train_set, np.array([3, 5]))
        filled.backward()
    assert abs(filled.item() - plain.item()) < 1e-12
    assert all(p.grad is None or p.grad.isfinite().all() for p in run.parameters)


def test_sets_of_labels_are_joined_as_they_are() -> None:
    """However long the texts are, which targets of texts would be padded to."""
    ids = [torch.ones(1, 2, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64)]
    sets = [torch.tensor([[1.0, 0, 0]]), torch.tensor([[0.0, 1, 1], [0, 0, 0]])]
    parts = [
        Given({"input_ids": own, "attention_mask": own}, 0, wanted)
        for own, wanted in zip(ids, sets, strict=True)
    ]
    whole = Given.joined(parts, multiple=4)
    assert torch.equal(whole.wanted, torch.cat(sets))
    assert [torch.equal(o.wanted, s) for o, s in zip(whole.split([1, 2]), sets, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("multiple", [1, 4])
def test_a_cohort_trains_each_as_alone(
    multiple: int, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", multiple)
    members = [method("lora"), method("prefix", batch_size=8), method("houlsby", accumulation=3)]
    cohort = Cohort(fp64(bench))
    optimisations = member_optimisations(Optimisations())
    runs = [
        begun(bench, one, cohort.place(), seed, optimisations=optimisations)
        for seed, one in enumerate(members)
    ]
    while any(run.step < STEPS for run in runs):
        assert not cohort.step([run for run in runs if run.step < STEPS])
    found = [state(run) for run in runs]
    for run in runs:
        run.model.detach()
    for seed, (one, own) in enumerate(zip(members, found, strict=True)):
        with begun(bench, one, fp64(bench), seed, optimisations) as run:
            run.train_to(STEPS)
            assert furthest(own, state(run)) < 1e-9


def test_a_head_alone_is_trained_on_kept_states_as_on_texts(bench: Workbench) -> None:
    one = method("head-only-mean")
    ends, losses = [], []
    for optimisations in (Optimisations(), Optimisations().without("features", "activations")):
        with begun(bench, one, fp64(bench), optimisations=optimisations) as run:
            run.train_to(STEPS)
            ends.append(state(run))
            losses.append(run.evaluate(bench.validation).losses)
    assert furthest(*ends) < 1e-9
    assert abs(losses[0] - losses[1]).max() < 1e-9


def test_an_interrupted_run_goes_on_to_the_last_bit(bench: Workbench, tmp_path: Path) -> None:
    one = method("lora", dropout=0.1, accumulation=2)
    with begun(bench, one) as run:
        run.train_to(STEPS)
        expected, whole = state(run), run.evaluate(bench.validation)
    with begun(bench, one) as run:
        run.train_to(5)
        run.save(tmp_path / "checkpoint.safetensors")
    with begun(bench, one) as run:
        run.restore(tmp_path / "checkpoint.safetensors")
        run.train_to(STEPS)
        assert all(torch.equal(expected[name], value) for name, value in state(run).items())
        again = run.evaluate(bench.validation)
    assert np.array_equal(np.asarray(whole.predicted), np.asarray(again.predicted))
    assert np.array_equal(whole.losses, again.losses)


def test_an_evaluation_of_the_first_few_is_scored_on_those(bench: Workbench) -> None:
    with begun(bench, method("lora")) as run:
        few = run.evaluate(bench.validation, limit=5)
        whole = run.evaluate(bench.validation)
    references, logits = few.pair(bench.task.metric, bench.task.validation.targets)
    assert references.shape == logits.shape == (5, 3)
    assert np.allclose(logits, np.asarray(whole.predicted)[:5], atol=1e-6)
    assert few.loss == pytest.approx(whole.losses[:5].mean(), abs=1e-6)
    wanted = torch.tensor(references).double()
    loss = torch.nn.BCEWithLogitsLoss()(torch.tensor(logits), wanted).item()
    assert few.loss == pytest.approx(loss, abs=1e-6)


def test_training_begins_at_the_loss_of_one_who_knows_nothing(bench: Workbench) -> None:
    assert bench.objective.begins_at == pytest.approx(np.log(2))
    with begun(replace(bench, train=bench.train.first(20)), method("lora")) as run:
        run.train_to(1)
        assert run.smoothed_loss == pytest.approx(np.log(2), abs=0.1)


def test_the_module_that_a_trainer_takes_has_the_same_loss(bench: Workbench) -> None:
    indices = np.arange(4)
    with begun(bench, method("lora"), fp64(bench)) as run:
        wanted = run.train_set.labels[indices]
        batch = run.train_set.batch(indices)
        found = TunedModule(run.model, gives_sets=True)(**batch, labels=wanted).loss
        expected = bench.objective.loss(run.model, run.train_set, indices) / 4
    assert abs(found.item() - expected.item()) < 1e-12
