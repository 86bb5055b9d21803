"""A tiny BART trained by us and by a plain loop of transformers and peft: one loss curve."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import peft
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup
from transformers.modeling_outputs import ModelOutput
from transformers.trainer_pt_utils import LabelSmoother

from peftsearch.design.configuration import Training
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimiser import set_rates
from support.stock import module_path
from support.texts import objective, run_of, trained, twin, writer

STEPS = 30
TRAINING = Training(
    lr=(("linear", 0.05),), batch_size=7, weight_decay=0.1, warmup=0.2, max_grad_norm=0.4
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
    optimiser = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
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
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 0.4)))
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
    from dataclasses import replace

    training = replace(TRAINING, label_smoothing=smoothing, schedule=schedule)
    with run_of(writer("bart", dtype), training, STEPS) as run:
        theirs, norms = plain_loop(run, dtype, smoothing, schedule == "linear")
        return trained(run, STEPS), theirs, norms
