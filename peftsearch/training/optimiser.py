"""The optimiser: AdamW over the tuned tensors, with a learning rate for each form and the head."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from peftsearch.training.model import TunedModel

__all__ = ["make_optimiser", "set_rates", "warmup_steps"]


def make_optimiser(model: TunedModel, fused: bool = True) -> AdamW:
    """AdamW with one group for each learning rate and weight decay; a group keeps the rate that it
    warms up to as `full_lr`.

    Scales, gates, biases and norms are not decayed. Up-projections have `up_lr_ratio` times their
    form's rate (LoRA+, Hayou et al. 2024, arXiv 2402.12354). `fused`: one kernel over all tensors.
    """
    training = model.configuration.training
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for tuned in model.attachment.tuned:
        decay = training.weight_decay if tuned.decays else 0.0
        rate = training.lr_of(tuned.form) * tuned.rate
        rate *= training.up_lr_ratio if tuned.fast else 1.0
        groups.setdefault((rate, decay), []).append(tuned.parameter)
    for parameter in model.head.parameters() if model.head is not None else ():
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((training.head_lr, decay), []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": lr, "full_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ],
        fused=fused,
        foreach=False,  # without `fused` one call a tensor; torch would take foreach on a GPU
    )


def warmup_steps(model: TunedModel, full_steps: int) -> int:
    """Steps of the linear warm-up, a share of the full length."""
    return math.ceil(model.configuration.training.warmup * full_steps)


def set_rates(optimiser: Optimizer, step: int, warmup: int, decays_to: int | None = None) -> None:
    """Set the learning rates of a step, counted from 0: a linear warm-up over `warmup` steps, then
    constant, or falling linearly to 0 at step `decays_to`.

    A function of the step alone, so that a checkpoint has no scheduler to save.
    """
    share = min(1.0, (step + 1) / (warmup + 1))
    if decays_to is not None:
        share = min(share, (decays_to - step) / max(1, decays_to - warmup))
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * share
