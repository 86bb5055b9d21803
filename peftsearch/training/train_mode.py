"""What holds while a step is trained: dropout, gradient checkpointing; undone afterwards.

The backbone is shared by every trial and stands in evaluation mode: whatever a configuration's
training asks for is set for its own steps alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.training import Training

__all__ = ["seeded_dropout", "train_mode"]


@contextmanager
def train_mode(backbone: Backbone, training: Training) -> Iterator[None]:
    """The backbone as `training` wants it."""
    if not training.dropout and not training.checkpointing:
        yield
        return
    model = backbone.lm if backbone.lm is not None else backbone.model
    before = _set_dropout(model, training.dropout)
    model.train()
    try:
        if training.checkpointing:
            _checkpointed(model, True)
        yield
    finally:
        if training.checkpointing:
            _checkpointed(model, False)
        model.eval()
        for holder, name, value in before:
            setattr(holder, name, value)


def _checkpointed(model: Any, on: bool) -> None:
    """Layers are computed again in the backward pass, or no longer."""
    # `activation_…` since transformers 5.23 or so, which warns of the older name.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if not on:
        getattr(model, f"{kind}_checkpointing_disable")()
        return
    options = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(model, f"{kind}_checkpointing_enable")(**options)
    if hasattr(model, "_require_grads_hooks"):
        # Reentrant checkpointing alone needs embeddings with a gradient; their hooks would stay.
        model.disable_input_require_grads()


def _set_dropout(model: nn.Module, share: float) -> list[tuple[Any, str, float]]:
    """Set every dropout of a model, but LayerDrop to 0; returns what was there."""
    modules = list(model.modules())
    # Falcon's layers read their config in every forward.
    found = (getattr(module, "config", None) for module in modules)
    configs = {id(one): one for one in found if isinstance(one, PreTrainedConfig)}
    before = []
    for holder in (*modules, *configs.values()):
        names = ["p"] if isinstance(holder, nn.Dropout) else _dropouts(holder)
        for name in names:
            before.append((holder, name, getattr(holder, name)))
            setattr(holder, name, 0.0 if "layer" in name else share)
    return before


def _dropouts(holder: Any) -> list[str]:
    """Attributes that functional dropout reads."""
    return [n for n, v in vars(holder).items() if "drop" in n and type(v) in (int, float)]


@contextmanager
def seeded_dropout(backbone: Backbone, training: Training, seed: int, step: int) -> Iterator[None]:
    """Dropout as a function of seed and step alone, so that a checkpoint needs no random state."""
    if not training.dropout:
        yield
        return
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed((seed * 1_000_003 + step) % 2**63)
        yield
