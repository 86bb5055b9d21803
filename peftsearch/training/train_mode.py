"""Train mode: dropout and gradient checkpointing of the backbone, set for a while and undone.

The backbone is shared by every trial and otherwise in evaluation mode, so that one configuration's
training settings must not outlast its own steps.
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
    """Context in which the backbone has the dropout and checkpointing of `training`."""
    if not training.dropout and not training.checkpointing:
        yield
        return
    model = backbone.lm if backbone.lm is not None else backbone.model
    # First, since train mode lets every dropout act; transformers checkpoints layers in it alone.
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
    """Switch gradient checkpointing on or off: layers computed again in the backward pass."""
    # Named `activation_…` since transformers 5.23 or so, which warns about `gradient_…`.
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if not on:
        getattr(model, f"{kind}_checkpointing_disable")()
        return
    options = {f"{kind}_checkpointing_kwargs": {"use_reentrant": False}}
    getattr(model, f"{kind}_checkpointing_enable")(**options)
    if hasattr(model, "_require_grads_hooks"):
        # transformers adds hooks for a gradient of the embeddings, which only reentrant
        # checkpointing needs, and does not remove them.
        model.disable_input_require_grads()


def _set_dropout(model: nn.Module, share: float) -> list[tuple[Any, str, float]]:
    """Set every dropout probability of a model to `share`, and LayerDrop to 0.

    Returns (object, attribute, former value) of each.
    """
    modules = list(model.modules())
    # Falcon's layers read probabilities from their config in every forward.
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
    """Names of the attributes that functional dropout reads its probability from."""
    # By type, since bool is an int: flags are no probabilities.
    return [n for n, v in vars(holder).items() if "drop" in n and type(v) in (int, float)]


@contextmanager
def seeded_dropout(backbone: Backbone, training: Training, seed: int, step: int) -> Iterator[None]:
    """Context in which dropout depends on seed and step alone, so that a checkpoint needs no random
    state; the global generators are restored afterwards.
    """
    if not training.dropout:
        yield
        return
    devices = [backbone.device] if backbone.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed((seed * 1_000_003 + step) % 2**63)
        yield
