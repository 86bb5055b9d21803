"""AdamW over the few tuned tensors, with a learning rate a form and one for the head."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from peftsearch.training.model import TunedModel

__all__ = ["make_optimiser"]


def make_optimiser(model: TunedModel, full_steps: int) -> tuple[AdamW, LambdaLR]:
    """The optimiser and its schedule: linear warm-up, then constant.

    Scales, gates, biases and norms are not decayed.
    """
    training = model.configuration.training
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for tuned in model.attachment.tuned:
        decay = training.weight_decay if tuned.decays else 0.0
        groups.setdefault((training.lr_of(tuned.form), decay), []).append(tuned.parameter)
    for parameter in model.head.parameters():
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((training.head_lr, decay), []).append(parameter)
    optimiser = AdamW(
        [{"params": ps, "lr": lr, "weight_decay": wd} for (lr, wd), ps in groups.items()],
        fused=True,
    )
    warmup_steps = math.ceil(training.warmup * full_steps)
    return optimiser, LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / (warmup_steps + 1)))
