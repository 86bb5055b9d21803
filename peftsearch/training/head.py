"""The task head: pooling, an optional pooler, a linear layer for labels or a number."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Head

__all__ = ["ClassificationHead"]


class ClassificationHead(nn.Module):
    """Pooling, an optional pooler (linear and tanh), and a linear layer.

    Its parameters and logits are in fp32 where the backbone is in half precision, else in the
    backbone's dtype.
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
        """Logits [batch, outputs] of last hidden states [batch, tokens, hidden]; `attention_mask`:
        [batch, tokens], 1 where there is a token.
        """
        return self.read(self.pool(hidden, attention_mask))

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One state a text, [batch, hidden], of all; shapes as in `forward`."""
        return _POOLINGS[self.pooling](hidden, attention_mask)

    def token_index(self, attention_mask: Tensor) -> Tensor | None:
        """Index [batch] int64 of the only token that is read; None: the first. Not for `mean`."""
        return _last_index(attention_mask) if self.pooling == "last" else None

    def read(self, pooled: Tensor) -> Tensor:
        """Logits [batch, outputs] of pooled states [batch, hidden]."""
        pooled = pooled.to(self.dtype)
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        logits: Tensor = self.classifier(pooled)
        return logits


def _linear(d_in: int, d_out: int, generator: Generator) -> nn.Linear:
    """A linear layer with weights from N(0, 0.02) and biases of 0, on the CPU."""
    with torch.device("meta"):  # no draw from the global generator
        layer = nn.Linear(d_in, d_out)
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.02, generator=generator)
        layer.bias.zero_()
    return layer


def _mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the tokens that are not masked."""
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _first(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    return hidden[:, 0]


def _last(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """State of the last token that is no padding, whichever side is padded."""
    texts = torch.arange(len(hidden), device=hidden.device)
    return hidden[texts, _last_index(attention_mask)]


def _last_index(attention_mask: Tensor) -> Tensor:
    """[batch] int64."""
    indices = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask * indices).argmax(1)


_POOLINGS = {"first": _first, "mean": _mean, "last": _last}
