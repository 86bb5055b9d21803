"""Checkpointing and dropout act in a configuration's own steps, and leave nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel

from peftsearch.backbone.loading.load import Backbone, wrap
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Head, Training
from peftsearch.training.loop import TrainingRun
from peftsearch.training.train_mode import seeded_dropout, train_mode
from support.families import TINY, inputs, states, tiny_body, tiny_config
from support.points import point
from support.texts import (
    TRAINING,
    after,
    encoded,
    furthest,
    objective,
    run_of,
    tuned,
    untuned,
    writer,
)

# -- gradient checkpointing --------------------------------------------------------------------


def queries(backbone: Backbone) -> tuple[list[None], Any]:
    """A list that grows whenever the first layer's queries are computed."""
    stack, layer = backbone.stack_and_layer(0)
    calls: list[None] = []
    projection = layer.get_submodule(stack.attention.query.path)
    return calls, projection.register_forward_hook(lambda *_: calls.append(None))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "t5", "mbart", "llama", "gpt2", "opt", "gemma3_text"])
def test_gradient_checkpointing_changes_nothing_but_the_work(family: str) -> None:
    backbone = writer(family)
    calls, hook = queries(backbone)
    losses, tensors = after(backbone, TRAINING)
    plain = len(calls)
    again, others = after(backbone, replace(TRAINING, checkpointing=True))
    hook.remove()
    assert len(calls) - plain == 2 * plain, "nothing was computed again"
    assert losses == pytest.approx(again, rel=1e-12)
    assert furthest(tensors, others) <= 1e-12


@pytest.mark.parametrize("family", ["bart", "llama"])
def test_checkpointing_leaves_no_hook_and_no_gradient_in_the_backbone(family: str) -> None:
    """transformers makes embeddings need a gradient, which would go through every later trial."""
    backbone = writer(family)
    with train_mode(backbone, Training(checkpointing=True)):
        inside = backbone.lm.get_input_embeddings()(torch.tensor([5]))
    after_it = backbone.lm.get_input_embeddings()(torch.tensor([5]))
    assert not inside.requires_grad
    assert not after_it.requires_grad
    assert not backbone.lm.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("method", ["prefix", "prompt", "mam"])
@pytest.mark.parametrize("family", ["bart", "llama"])
def test_checkpointing_recomputes_what_is_attached_too(family: str, method: str) -> None:
    backbone = writer(family)
    budget = TrainingBudget(max_steps=4, rungs=(1.0,))
    found = []
    for checkpointing in (False, True):
        training = Training(batch_size=8, checkpointing=checkpointing)
        one = replace(point(method, backbone.shapes), head=Head("none"), training=training)
        with TrainingRun(backbone, encoded(backbone), objective(backbone), one, budget, 0) as run:
            run.train_to(4)
            found.append(tuned(run))
    assert furthest(*found) <= 1e-12


# -- dropout -----------------------------------------------------------------------------------


DROPPING = replace(TRAINING, dropout=0.3)


def loss_at(backbone: Backbone, training: Training, seed: int, step: int) -> float:
    """Of one batch with nothing attached, as that step of that seed would see it."""
    data, own = encoded(backbone), objective(backbone)
    with (
        untuned(backbone) as model,
        torch.no_grad(),
        train_mode(backbone, training),
        seeded_dropout(backbone, training, seed, step),
    ):
        return float(own.loss(model, data, np.arange(8)))


@pytest.mark.parametrize("family", ["bart", "opt"])
def test_dropout_is_a_function_of_seed_and_step(family: str) -> None:
    losses = []
    for disturbance, (seed, step) in enumerate([(0, 5), (0, 5), (0, 6), (1, 5)]):
        torch.manual_seed(disturbance)
        losses.append(loss_at(writer(family), DROPPING, seed, step))
    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_dropout_takes_nothing_from_the_global_generator() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    after(writer("bart"), DROPPING)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("cut", [1, 6])
def test_a_killed_run_with_dropout_goes_on_bit_for_bit(
    cut: int, checkpointing: bool, accumulation: int, tmp_path: Path
) -> None:
    training = replace(DROPPING, checkpointing=checkpointing, accumulation=accumulation)
    with run_of(writer("bart", torch.float32), training) as run:
        run.train_to(8)
        whole, loss = tuned(run), run.smoothed_loss
    with run_of(writer("bart", torch.float32), training) as first:
        first.train_to(cut)
        first.save(tmp_path / "checkpoint.safetensors")
    torch.manual_seed(99)
    with run_of(writer("bart", torch.float32), training) as second:
        second.restore(tmp_path / "checkpoint.safetensors")
        second.evaluate(second.train_set, limit=3)
        second.train_to(8)
        assert second.smoothed_loss == loss
        assert furthest(whole, tuned(second)) == 0


@pytest.mark.slow
def test_dropout_under_checkpointing_drops_the_same_again() -> None:
    losses, tensors = after(writer("bart"), DROPPING)
    again, others = after(writer("bart"), replace(DROPPING, checkpointing=True))
    assert losses == pytest.approx(again, rel=1e-12)
    assert furthest(tensors, others) <= 1e-12


def with_dropout(family: str, share: float) -> Backbone:
    """The tiny body with every kind of dropout that its config knows."""
    config = tiny_config(family)
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, share)
    model = AutoModel.from_config(config)
    model.load_state_dict(tiny_body(family).state_dict())
    return wrap(model.double(), family)


@pytest.mark.parametrize("family", list(TINY))
def test_dropout_is_what_training_says_and_not_what_the_model_had(family: str) -> None:
    """A model of dropout 0.4: at 0 its steps are evaluation's, above 0 they are random, and
    afterwards it evaluates as before, its own dropout untouched.
    """
    backbone, batch = with_dropout(family, 0.4), inputs(family)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = states(family, backbone, batch)
        with train_mode(backbone, Training(checkpointing=True)):
            assert backbone.model.training
            assert torch.equal(states(family, backbone, batch), plain)
        with train_mode(backbone, Training(dropout=0.3)):
            one, other = (states(family, backbone, batch) for _ in range(2))
        assert not torch.equal(one, other)
        assert torch.equal(states(family, backbone, batch), plain)
        backbone.model.train()
        assert not torch.equal(states(family, backbone, batch), plain)


def test_what_held_before_holds_again_after_a_failure() -> None:
    backbone = with_dropout("bart", 0.4)
    encoder = backbone.model.encoder

    def fail() -> None:
        with train_mode(backbone, Training(dropout=0.1, checkpointing=True)):
            assert encoder.dropout == 0.1
            assert encoder.gradient_checkpointing
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert encoder.dropout == 0.4
    assert not encoder.gradient_checkpointing
    assert not any(module.training for module in backbone.model.modules())


def test_evaluations_between_steps_drop_nothing() -> None:
    with run_of(writer("bart"), DROPPING) as run:
        run.train_to(2)
        first, again = (run.evaluate(run.train_set, predict=False).loss for _ in range(2))
    assert first == again
