"""CPU milliseconds of a training step of a small decoder, with and without single optimisations.

Usage: decoder_step.py [STEPS]. A Llama of random weights with grouped queries, prompts of 16 to 96
tokens and responses of 4 to 32, batches of 16, one thread; arms take turns, a step each on the same
batch. "Keys repeated": where there is a mask, attention repeats keys and values for the queries
that share them, as transformers does. Medians, quartiles of ratios, MiB of
tensors kept for the backward pass of the last batch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from peftsearch.backbone.attach import attention
from peftsearch.backbone.loading.load import Backbone, shapes_of, wrap
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import Generation
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.texts import Texts
from peftsearch.training.optimisations import Optimisations

_WITHOUT = ("causal", "logits")
_REPEATED = "keys repeated"
_EXAMPLES = 512
_VOCABULARY = 16_000


def main(steps: int) -> None:
    torch.set_num_threads(1)
    backbone, data = _decoder(), _examples()
    for method in ("lora", "prefix"):
        print(f"\n| {method} | ms a step | times everything on | MiB |\n|---|--:|--:|--:|")
        _compare(backbone, data, method, steps)


def _compare(backbone: Backbone, data: Encoded, method: str, steps: int) -> None:
    arms = {"everything on": Optimisations()}
    arms |= {f"--without {name}": Optimisations().without(name) for name in _WITHOUT}
    arms[_REPEATED] = Optimisations()
    took: dict[str, list[float]] = {name: [] for name in arms}
    kept: dict[str, int] = {}
    for step in range(steps + 1):
        for name, optimisations in arms.items():
            with _repeating(name == _REPEATED), _counting_bytes() as stored:
                took[name].append(_milliseconds(backbone, data, method, optimisations, step))
            kept[name] = sum(stored.values())
    base = np.array(took["everything on"][1:])  # the first step warms up
    for name, found in took.items():
        low, middle, high = np.percentile(np.array(found[1:]) / base, (25, 50, 75))
        ratio = f"{middle:.2f} ({low:.2f}–{high:.2f})"
        print(f"| {name} | {np.median(found[1:]):.1f} | {ratio} | {kept[name] / 2**20:.1f} |")


@contextmanager
def _repeating(on: bool) -> Iterator[None]:
    before = attention.GROUPS_BESIDE_MASKS
    attention.GROUPS_BESIDE_MASKS = () if on else before
    try:
        yield
    finally:
        attention.GROUPS_BESIDE_MASKS = before


@contextmanager
def _counting_bytes() -> Iterator[dict[int, int]]:
    """Address → bytes of every storage that is kept for a backward pass."""
    stored: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield stored


def _milliseconds(
    backbone: Backbone, data: Encoded, method: str, optimisations: Optimisations, seed: int
) -> float:
    """CPU milliseconds of the first step of a run, whose batch depends on the seed."""
    one = Configuration(
        METHODS[method].configuration().modifications, Head("none"), Training(batch_size=16)
    )
    writing = Writing(tokenizer=None, target_tokenizer=None, is_decoder=True)
    own = Texts(backbone, writing, Generation(), 32)
    budget = TrainingBudget(max_steps=2, rungs=(1.0,))
    with TrainingRun(
        *(backbone, data, own, one, budget, seed), optimisations=optimisations.without("buckets")
    ) as run:
        began = time.process_time()
        run.train_to(1)
        return 1000 * (time.process_time() - began)


def _decoder() -> Backbone:
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)
    backbone = wrap(lm.model, "small decoder")
    return Backbone(**{**vars(backbone), "lm": lm, "shapes": shapes_of(config)})


def _examples() -> Encoded:
    draw = np.random.default_rng(0)

    def texts(low: int, high: int) -> Ragged:
        return Ragged.of(
            [draw.integers(5, _VOCABULARY, n).tolist() for n in draw.integers(low, high, _EXAMPLES)]
        )

    return Encoded(
        inputs=texts(16, 96),
        types=None,
        labels=torch.zeros(_EXAMPLES),
        pad_id=0,
        written=texts(4, 32),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
