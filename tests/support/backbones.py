"""Tiny backbones in memory, and inputs for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone, load_backbone


@lru_cache(maxsize=8)
def backbone_at(folder: Path, dtype: torch.dtype = torch.float64) -> Backbone:
    """A frozen backbone, loaded once a session and shared: tests must detach what they attach."""
    return load_backbone(str(folder), dtype=dtype)


def padded_batch() -> dict[str, Tensor]:
    """Three examples of 9, 6 and 3 tokens, padded."""
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9) < torch.tensor([9, 6, 3])[:, None]
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def states(backbone: Backbone, batch: dict[str, Tensor] | None = None) -> Tensor:
    """Last hidden states (batch, seq, d); only unpadded positions mean anything."""
    batch = batch or padded_batch()
    output: Tensor = backbone.model(**batch).last_hidden_state
    return output * batch["attention_mask"].unsqueeze(-1)


def perturb(tensors: dict[str, torch.nn.Parameter], seed: int = 0) -> None:
    """Move every tuned tensor off its beginning."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tensors.values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.3 * noise.to(parameter.dtype)
