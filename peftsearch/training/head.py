"""The task head: pooling, an optional pooler, a linear layer for labels or a number."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Head

__all__ = ["ClassificationHead"]


class ClassificationHead(nn.Module):
    """Last hidden states (batch, seq, d) and mask (batch, seq) → logits (batch, outputs).

    In fp32 where the backbone is in half precision, as all that is trained.
    """

    def __init__(self, backbone: Backbone, head: Head, outputs: int, seed: int) -> None:
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
        self.classifier = _linear(d, outputs, generator)
        self.dtype = torch.promote_types(backbone.dtype, torch.float32)
        self.to(backbone.device, self.dtype)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return self.read(self.pool(hidden, attention_mask))

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One state (batch, d) for each text."""
        return _POOLINGS[self.pooling](hidden, attention_mask)

    def token_index(self, attention_mask: Tensor) -> Tensor | None:
        """Which token's state (batch,) is all that is read; None: the first. Not for `mean`."""
        return _last_index(attention_mask) if self.pooling == "last" else None

    def read(self, pooled: Tensor) -> Tensor:
        """Logits of pooled states (batch, d)."""
        pooled = pooled.to(self.dtype)
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


def _first(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Of the last token that is no padding, on whichever side that is."""
    texts = torch.arange(len(hidden), device=hidden.device)
    return hidden[texts, _last_index(attention_mask)]


def _last_index(attention_mask: Tensor) -> Tensor:
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * places).argmax(1)


_POOLINGS = {"first": _first, "mean": _mean, "last": _last}
