"""A bf16 decoder of Llama-1B's shape with random weights, and texts of equal length for it."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from common import DEVICE, ON_GPU, SCRATCH

from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from support.tiny import build_tiny_llama, write_csv

__all__ = ["BATCH", "FOLDER", "READ", "WRITTEN", "build", "frozen_operations", "workbench"]

FOLDER = SCRATCH / "decoder"
BATCH, READ, WRITTEN = (16, 192, 64) if ON_GPU else (2, 24, 8)
"""Texts of a batch; tokens of each that are read, and that are learned to be written."""
_ROWS = 256 if ON_GPU else 16
_LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "max_position_embeddings": 2048,
}
"""Llama 3.2 1B."""
_TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
}
_SHAPE = _LLAMA_1B if ON_GPU else _TINY
_LETTERS = "ABCDEFGHIJKLMNOP"
"""A token each: the tiny tokenizer has merged small letters alone."""


def build() -> dict[str, int]:
    """Write model and texts to `FOLDER`; returns the number of parameters."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(build_tiny_llama(FOLDER))
    tokenizer.model_max_length = _SHAPE["max_position_embeddings"]
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.device(DEVICE):
        config = LlamaConfig(tie_word_embeddings=True, **special, **_SHAPE)
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    _write_texts(FOLDER)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def _write_texts(folder: Path) -> None:
    draw = random.Random(0)

    def text(letters: int) -> str:
        return "".join(draw.choices(_LETTERS, k=letters))

    # A text begins with a token of its own, and what is written ends with one.
    rows = [{"text": text(READ - 1), "label": text(WRITTEN - 1)} for _ in range(_ROWS)]
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "eval.csv", rows[:16])


def workbench() -> Workbench:
    """Model and texts; raises ValueError if texts are not as long as they should be."""
    data = {"train": str(FOLDER / "train.csv"), "eval": str(FOLDER / "eval.csv")}
    columns = {"text": ("text",), "label": "label", "template": "{text}"}
    spec = TaskSpec(**data, **columns, kind="causal", metric="loss")
    bench = Workbench.prepare(str(FOLDER), spec, DEVICE, precision="bf16")
    lengths = set(bench.train.lengths.tolist())
    if lengths != {READ + WRITTEN}:
        raise ValueError(f"texts have {lengths} tokens, not {READ + WRITTEN}")
    return bench


def frozen_operations(members: int) -> int:
    """Operations of the frozen products in a step: 2 a weight and token forward, and 2 backward;
    the vocabulary's for the tokens alone that are written.
    """
    d, heads = _SHAPE["hidden_size"], _SHAPE["num_attention_heads"]
    kv = d // heads * _SHAPE["num_key_value_heads"]
    layer = 2 * d * d + 2 * d * kv + 3 * d * _SHAPE["intermediate_size"]
    texts = BATCH * members
    body = _SHAPE["num_hidden_layers"] * layer * texts * (READ + WRITTEN)
    return 4 * (body + d * _SHAPE["vocab_size"] * texts * WRITTEN)
