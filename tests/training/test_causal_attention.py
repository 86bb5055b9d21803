"""Causal attention without a padding mask: the losses and gradients are those with it, in fp64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach import attention
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.training.cohort.cohort import Cohort
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import result_of
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Objective
from peftsearch.training.objectives.labels import Labels
from peftsearch.training.optimisations import Optimisations
from support.backbones import perturb
from support.families import TINY, backbone_of, inputs, states
from support.points import point
from support.texts import encoded, objective, writer

CAUSAL = [name for name, tiny in TINY.items() if tiny.kind != "encoder"]
DECODERS = [name for name, tiny in TINY.items() if tiny.kind == "decoder"]
WINDOWED = ("mistral", "gemma2", "gemma3_text", "phi3")
"""Texts are longer than their windows of 6 tokens."""
METHODS = ("lora", "prompt", "prefix", "ungated-prefix")
CASES = [
    (family, name)
    for family in CAUSAL
    for name in METHODS
    if "prefix" not in name or not family.startswith("falcon")
]
"""Falcon takes no prefixes."""
ALONE = Optimisations().without("activations")
BATCH = np.arange(6)
Found = tuple[Tensor, list[Tensor]]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are not read: padded or not, a batch gets one."""
    monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())


@contextmanager
def masks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the masks that are made."""
    made: list[tuple[int, ...]] = []
    inner = attention.sdpa_mask

    def noted(*args: Any, **options: Any) -> Tensor | None:
        mask = inner(*args, **options)
        if mask is not None:
            made.append(tuple(mask.shape))
        return mask

    with monkeypatch.context() as patched:
        patched.setattr(attention, "sdpa_mask", noted)
        yield made


def placed(name: str, family: str, head: Head) -> Configuration:
    shapes = writer(family).shapes
    return replace(point(name, shapes), head=head, training=Training(batch_size=6)).within(shapes)


def found(family: str, one: Configuration, own: Objective, optimisations: Optimisations) -> Found:
    """Loss and gradients of one batch, with every tuned tensor moved away from where it began."""
    backbone = writer(family)
    if own.outputs:  # T5's whole language model is its own base model
        backbone = replace(backbone_of(family), tokenizer=backbone.tokenizer)
    with TunedModel(backbone, one, own.outputs, optimisations=optimisations) as model:
        perturb(dict(model.parameters))
        loss = own.loss(model, encoded(writer(family)), BATCH)
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters.values() if p.grad is not None]
    return loss.detach(), gradients


def assert_close(one: Found, other: Found) -> None:
    """To 1e-12 of the loss, and of the largest gradient."""
    assert abs(one[0] - other[0]).max() <= 1e-12 * abs(other[0]).max()
    assert len(one[1]) == len(other[1]) > 0
    largest = max(float(gradient.abs().max()) for gradient in other[1])
    for own, gradient in zip(one[1], other[1], strict=True):
        assert float((own - gradient).abs().max()) <= 1e-12 * largest


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), CASES)
def test_losses_and_gradients_of_texts_that_are_written(family: str, name: str) -> None:
    one, own = placed(name, family, Head("none")), objective(writer(family))
    assert_close(found(family, one, own, ALONE), found(family, one, own, ALONE.without("causal")))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize(("family", "name"), CASES)
def test_losses_and_gradients_of_a_head(family: str, name: str, pooling: Any) -> None:
    one, own = placed(name, family, Head(pooling)), Labels(3)
    assert_close(found(family, one, own, ALONE), found(family, one, own, ALONE.without("causal")))


@pytest.mark.slow
@pytest.mark.parametrize("family", CAUSAL)
def test_losses_and_gradients_of_a_cohort(family: str) -> None:
    backbone = writer(family)
    results = []
    for optimisations in (ALONE, ALONE.without("causal")):
        cohort = Cohort(backbone)
        runs = [
            TrainingRun(
                *(cohort.member_backbone(), encoded(backbone), objective(backbone)),
                *(one, TrainingBudget(max_steps=1, rungs=(1.0,)), seed),
                optimisations=optimisations,
            )
            for seed, name in enumerate(("lora", "prefix", "lora"))
            if (name != "prefix" or backbone.family.takes_prefix)
            and (one := placed(name, family, Head("none")))
        ]
        for run in runs:
            perturb(dict(run.model.parameters))
        joint = JointBatch.next_of(runs, backbone)
        do = SharedPass(backbone, cohort.slices, runs)
        with attention.padded_at_end(optimisations.causal):
            losses, gradients = result_of(do, do.parameters, joint)
        results.append((losses, [g for g in gradients if g is not None]))
        for run in runs:
            run.model.detach()
    assert_close(*results)


@pytest.mark.parametrize("family", DECODERS)
def test_no_mask_is_made_but_for_windows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, own = placed("lora", family, Head("none")), objective(writer(family))
    with masks(monkeypatch) as made:
        found(family, one, own, ALONE)
    if family not in WINDOWED:
        assert made == []
    with masks(monkeypatch) as made:
        found(family, one, own, ALONE.without("causal"))
    assert bool(made) == writer(family).family.takes_prefix


@pytest.mark.parametrize("family", [name for name in TINY if TINY[name].kind == "encoder"])
def test_an_encoder_keeps_its_mask(family: str) -> None:
    backbone, batch = backbone_of(family), inputs(family)
    with torch.no_grad():
        expected = states(family, backbone, batch)
        with attention.padded_at_end():
            assert torch.equal(states(family, backbone, batch), expected)


def test_what_is_padded_on_the_left_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generation, and texts that others give to a model."""
    backbone = writer("llama")
    with TunedModel(backbone, placed("lora", "llama", Head("none")), 0) as model:
        with masks(monkeypatch) as made, torch.no_grad():
            objective(backbone).write(model, encoded(backbone).first(4))
        assert made
    with TunedModel(backbone, placed("lora", "llama", Head("mean")), 3) as model:
        batch = encoded(backbone).batch(BATCH, left=True)
        with masks(monkeypatch) as made, torch.no_grad():
            model(**batch)
        assert made
