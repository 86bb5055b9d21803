"""A tiny BART trained by us and by a plain loop of transformers and peft: one loss curve."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LabelSmoother

from peftsearch.design.configuration import Training
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.texts import target_logits
from peftsearch.training.optimiser import set_rates
from support.stock import module_path
from support.texts import encoded, objective, run_of, trained, twin, untuned, writer

STEPS = 30
TRAINING = Training(
    lr=(("linear", 0.02),), batch_size=7, weight_decay=0.1, warmup=0.2, max_grad_norm=1.0
)
ENCODER_DECODERS = ("bart", "mbart", "marian", "pegasus", "t5", "mt5", "m2m_100")


def with_peft(run: TrainingRun, dtype: torch.dtype) -> Any:
    """peft's LoRA with the down-projections that ours begins with; both up-projections are 0."""
    ours: dict[str, Tensor] = {}
    for name, tensor in run.model.attachment.tensors.items():
        _, site, key = name.split("/")
        if key == "down":
            ours[f"base_model.model.model.{module_path('bart', site)}"] = tensor.detach()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(twin("bart", dtype), config).to(dtype).train()
    theirs = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert theirs.keys() == ours.keys(), "both tune the same projections"
    assert sum("encoder_attn" in name for name in theirs) == 4
    with torch.no_grad():
        for name, module in theirs.items():
            module.lora_A["default"].weight.copy_(ours[name].T)
    return model


def plain_batch(tokenizer: Any, texts: list[str], targets: list[str]) -> dict[str, Tensor]:
    """As anybody writes it: tokenised with padding, padding of labels set to -100."""
    batch = tokenizer(
        texts,
        text_target=targets,
        padding=True,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    labels = batch["labels"].masked_fill(batch["labels"] == tokenizer.pad_token_id, -100)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]} | {
        "labels": labels
    }


def plain_loop(
    run: TrainingRun, dtype: torch.dtype, smoothing: float, linear: bool
) -> tuple[list[float], list[float]]:
    """Losses and norms of the gradients, step by step; `run` gives the order of the data alone."""
    model, tokenizer = with_peft(run, dtype), run.model.backbone.tokenizer
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1)
    warmup, losses, norms = math.ceil(0.2 * STEPS), [], []

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (STEPS - step) / (STEPS - warmup) if linear else 1.0

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    data = run.train_set
    assert data.written is not None
    sources = [tokenizer.decode(data.inputs.row(i), skip_special_tokens=True) for i in range(24)]
    targets = [tokenizer.decode(data.written.row(i), skip_special_tokens=True) for i in range(24)]
    for step in range(STEPS):
        chosen = run.order.batch(step).tolist()
        batch = plain_batch(tokenizer, [sources[i] for i in chosen], [targets[i] for i in chosen])
        logits = model(**batch).logits
        loss = cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            batch["labels"].reshape(-1),
            ignore_index=-100,
            label_smoothing=smoothing,
        )
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 1.0)))
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses, norms


@cache
def curves(
    dtype: torch.dtype, smoothing: float = 0.0, schedule: str = "constant"
) -> tuple[list[float], list[float], list[float]]:
    """Our losses, theirs, and the norms of their gradients."""
    training = replace(TRAINING, label_smoothing=smoothing, schedule=schedule)
    with run_of(writer("bart", dtype), training, STEPS) as run:
        theirs, norms = plain_loop(run, dtype, smoothing, schedule == "linear")
        return trained(run, STEPS), theirs, norms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("smoothing", "schedule"), [(0.0, "constant"), (0.1, "constant"), (0.1, "linear")]
)
def test_thirty_steps_have_the_losses_of_a_plain_loop_with_peft(
    smoothing: float, schedule: str
) -> None:
    ours, theirs, _ = curves(torch.float64, smoothing, schedule)
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert np.mean(ours[-5:]) < np.mean(ours[:5]) - 0.5, "nothing was learnt: it shows nothing"


@pytest.mark.slow
def test_in_fp32_the_curves_are_equal_but_for_rounding() -> None:
    ours, theirs, _ = curves(torch.float32)
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.slow
def test_some_of_these_steps_were_clipped_and_others_not() -> None:
    _, _, norms = curves(torch.float64)
    assert 5 < sum(norm > TRAINING.max_grad_norm for norm in norms) < 25


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_the_loss_is_what_the_models_own_forward_gives_for_labels(family: str) -> None:
    backbone = writer(family)
    data, own = encoded(backbone), objective(backbone)
    chosen = np.array([3, 0, 11, 7])
    texts, targets = (
        [backbone.tokenizer.decode(rows.row(i), skip_special_tokens=True) for i in chosen]
        for rows in (data.inputs, data.written)
    )
    batch = plain_batch(backbone.tokenizer, texts, targets)
    with untuned(backbone) as model, torch.no_grad():
        ours = own.loss(model, data, chosen) / own.weight(data, chosen)
        theirs = twin(family).eval()(**batch).loss
    assert own.weight(data, chosen) == int((batch["labels"] >= 0).sum())
    assert float(ours) == pytest.approx(float(theirs), rel=1e-12)


def test_the_smoothed_loss_is_that_of_the_trainer_of_transformers() -> None:
    backbone = writer("bart")
    data, own, chosen = encoded(backbone), objective(backbone), np.arange(6)
    with untuned(backbone, Training(label_smoothing=0.1)) as model, torch.no_grad():
        ours = own.loss(model, data, chosen) / own.weight(data, chosen)
        logits, inputs = target_logits(model, data, chosen, is_decoder=False)
    theirs = LabelSmoother(epsilon=0.1)({"logits": logits}, inputs.targets)
    unsmoothed = LabelSmoother(epsilon=0.0)({"logits": logits}, inputs.targets)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-7)  # theirs is summed in fp32
    assert abs(float(theirs - unsmoothed)) > 1e-3


def shares(steps: int, warmup: int) -> tuple[list[float], list[float]]:
    """Rates of our linear schedule and of transformers', each over the full rate."""
    ours, theirs = (torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0) for _ in "ab")
    ours.param_groups[0]["full_lr"] = 1.0
    schedule = get_linear_schedule_with_warmup(theirs, warmup, steps)
    rates: tuple[list[float], list[float]] = ([], [])
    for step in range(steps):
        set_rates(ours, step, warmup, decays_to=steps)
        for optimiser, into in zip((ours, theirs), rates, strict=True):
            into.append(optimiser.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(("steps", "warmup"), [(20, 0), (20, 5), (7, 1), (1, 0)])
def test_after_the_warm_up_the_linear_schedule_is_that_of_transformers(
    steps: int, warmup: int
) -> None:
    ours, theirs = shares(steps, warmup)
    assert ours[warmup:] == pytest.approx(theirs[warmup:], rel=1e-12)


def test_the_warm_up_alone_differs_by_design_no_step_is_taken_at_rate_zero() -> None:
    """k steps of warm-up: ours are 1/(k+1) … k/(k+1), theirs 0/k … (k-1)/k; then both are at 1."""
    ours, theirs = shares(20, 4)
    assert ours[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert theirs[:5] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
