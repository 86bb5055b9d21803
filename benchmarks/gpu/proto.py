"""A prototype of another design: LoRA of K members stacked in one tensor, a step as one CUDA graph.

    python proto.py [SECONDS THAT IT MAY TAKE] [compile]

What could be reached: tensors of all members stacked, [members, …] each, with clipping, AdamW and
weight averages on the stack, and the data on the device, so that forward, backward and update are
captured together. MiniLM's weights, texts drawn at random. `compile`: layers by torch.compile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import DEVICE, ON_GPU, Facts, seconds_asked
from members import model, precision
from timing import peak_gib, reset_peak, wait
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModel

from peftsearch.backbone.loading.load import model_source

_BATCH, _LENGTH, _ROWS = (32, 40, 2000) if ON_GPU else (2, 16, 64)
_RANK, _LABELS = 8, 3
_STEPS = 60 if ON_GPU else 2
_LR, _DECAY, _WARMUP = 1e-3, 0.01, 10
_BETAS = 0.9, 0.999
_COUNTS = (16, 32, 1) if ON_GPU else (2,)


class Stacked:
    """LoRA on queries and values of all layers, a head on the first token, and their optimiser."""

    def __init__(self, members: int, name: str, compiled: bool) -> None:
        dtype = torch.bfloat16 if precision(name) == "bf16" else torch.float32
        self.members = members
        self.model = AutoModel.from_pretrained(
            model_source(model()), dtype=dtype, add_pooling_layer=False
        ).to(DEVICE)
        self.model.requires_grad_(False).eval()
        self.sites = [
            module
            for path, module in self.model.named_modules()
            if path.endswith(("self.query", "self.value"))
        ]
        for site in self.sites:
            site.register_forward_hook(self._add)
        for layer in self.model.encoder.layer if compiled else ():
            layer.compile()
        self._make_tensors(self.model.config.hidden_size)
        self._draw_texts(self.model.config.vocab_size)

    def _make_tensors(self, d: int) -> None:
        """All tuned tensors of a member in one row of `flat`, [members, parameters]; the rows'
        moments and averages; and each member's learning rate.
        """
        self.shapes = [s for _ in self.sites for s in ((d, _RANK), (_RANK, d))]
        self.shapes += [(d, _LABELS), (1, _LABELS)]
        self.sizes = [rows * columns for rows, columns in self.shapes]
        self.flat = torch.zeros(self.members, sum(self.sizes), device=DEVICE)
        for part, (rows, _) in zip(self.flat.split(self.sizes, 1), self.shapes, strict=True):
            if rows == d:  # up-projections and biases begin with zeros
                part.uniform_(-(d**-0.5), d**-0.5)
        self.flat.requires_grad_()
        self.first, self.second, self.average = (torch.zeros_like(self.flat) for _ in range(3))
        self.lr = torch.full((self.members, 1), _LR, device=DEVICE)
        self.steps = torch.zeros((), device=DEVICE)

    def _draw_texts(self, vocabulary: int) -> None:
        draw = torch.Generator().manual_seed(0)
        lengths = torch.randint(_LENGTH // 2, _LENGTH + 1, (_ROWS, 1), generator=draw)
        self.mask = (torch.arange(_LENGTH) < lengths).long().to(DEVICE)
        tokens = torch.randint(vocabulary // 10, vocabulary, (_ROWS, _LENGTH), generator=draw)
        self.tokens = tokens.to(DEVICE)
        self.labels = torch.randint(0, _LABELS, (_ROWS,), generator=draw).to(DEVICE)
        self.chosen = torch.zeros(_BATCH, dtype=torch.long, device=DEVICE)
        """The texts of a step, the same for all members."""

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], h: Tensor) -> Tensor:
        x = given[0].view(self.members, -1, h.shape[-1])
        return torch.baddbmm(h.view_as(x), x @ module.down, module.up, alpha=2.0).view_as(h)

    def step(self) -> Tensor:
        """One step of all members; returns their losses' sum, a scalar tensor []."""
        loss = self._loss()
        (gradient,) = torch.autograd.grad(loss, self.flat)
        with torch.no_grad():
            self._update(gradient)
        return loss.detach()

    def _loss(self) -> Tensor:
        rows = zip(self.flat.split(self.sizes, 1), self.shapes, strict=True)
        *low, weight, bias = (row.view(-1, *shape) for row, shape in rows)
        low = [tensor.to(self.model.dtype) for tensor in low]
        for site, down, up in zip(self.sites, low[::2], low[1::2], strict=True):
            site.down, site.up = down, up
        ids, mask = (t[self.chosen].repeat(self.members, 1) for t in (self.tokens, self.mask))
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float()
        logits = torch.baddbmm(bias, states.view(self.members, _BATCH, -1), weight)
        wanted = self.labels[self.chosen].repeat(self.members)
        return cross_entropy(logits.flatten(0, 1), wanted, reduction="sum") / _BATCH

    def _update(self, gradient: Tensor) -> None:
        """Clipping to norm 1, AdamW with warm-up, and the average of weights, a row a member."""
        (momentum, decay), self.steps = _BETAS, self.steps.add_(1)
        gradient *= (1 / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
        self.first.lerp_(gradient, 1 - momentum)
        self.second.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        lr = self.lr * (self.steps / _WARMUP).clamp(max=1)
        spread = (self.second / (1 - decay**self.steps)).sqrt_().add_(1e-8)
        change = lr / (1 - momentum**self.steps) * self.first / spread
        self.flat.mul_(1 - _DECAY * lr).sub_(change)
        self.average.add_((self.flat - self.average) * (9 / (self.steps + 9)))


def captured(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A step as one CUDA graph; on a CPU the step itself."""
    if not ON_GPU:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def passes(members: int, name: str, compiled: bool = False) -> dict[str, Any]:
    """Milliseconds of a step of all and of one, and of the host; and losses, first and last."""
    reset_peak()
    stacked = Stacked(members, name, compiled)
    order = torch.randint(0, _ROWS, (_STEPS, _BATCH))
    order = order.pin_memory() if ON_GPU else order
    step = captured(stacked.step)
    stacked.chosen.copy_(order[0])
    first = float(step()) / members
    wait()
    began = time.perf_counter()
    for texts in order:
        stacked.chosen.copy_(texts, non_blocking=True)
        loss = step()
    host_ms = (time.perf_counter() - began) * 1000 / _STEPS
    wait()
    pass_ms = (time.perf_counter() - began) * 1000 / _STEPS
    found = {"pass_ms": pass_ms, "step_ms": pass_ms / members, "host_ms": host_ms}
    found |= {"peak_gib": peak_gib(), "first_loss": first, "last_loss": float(loss) / members}
    return {key: round(value, 3) for key, value in found.items()}


def main(arguments: list[str]) -> None:
    # Compiling for a CPU takes longer than everything else: only the names are tried there.
    compiled = "compile" in arguments
    seconds = seconds_asked([argument for argument in arguments if argument != "compile"])
    facts = Facts("proto_compiled" if compiled else "proto", seconds)
    asked = [(name, count) for name in ("tf32", "bf16", "fp32") for count in _COUNTS]
    asked = asked[:5] if compiled else [*asked, ("bf16", 64 if ON_GPU else 3)]
    for name, count in asked:
        title = f"{count} stacked, {name}{', compiled' if compiled else ''}"
        facts.add(title, partial(passes, count, name, compiled and ON_GPU))
    facts.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
