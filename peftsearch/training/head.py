"""The task head: pooling, an optional pooler, a linear classifier."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.load import Backbone
from peftsearch.design.configuration import Head

__all__ = ["ClassificationHead"]


class ClassificationHead(nn.Module):
    """Last hidden states (batch, seq, d) and mask (batch, seq) → logits (batch, labels)."""

    def __init__(self, backbone: Backbone, head: Head, labels: int, seed: int) -> None:
        super().__init__()
        d = backbone.shapes.hidden
        # Seeded apart from the modifications: the same head begins every configuration of a seed.
        generator = Generator().manual_seed(seed + 1)
        self.pooling = head.pooling
        self.pooler: nn.Linear | None = None
        if head.pooler == "trained":
            self.pooler = _linear(d, d, generator)
            if backbone.pooler is not None:
                self.pooler.load_state_dict(backbone.pooler)
        self.classifier = _linear(d, labels, generator)
        self.to(backbone.device, backbone.dtype)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        pooled = hidden[:, 0] if self.pooling == "first" else _mean(hidden, attention_mask)
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        logits: Tensor = self.classifier(pooled)
        return logits


def _linear(d_in: int, d_out: int, generator: Generator) -> nn.Linear:
    with torch.device("meta"):  # no draw from the global generator
        layer = nn.Linear(d_in, d_out)
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.02, generator=generator)
        layer.bias.zero_()
    return layer


def _mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
