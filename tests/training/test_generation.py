"""Texts written in padded batches are those that each example alone would get, without padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch

from peftsearch.backbone.load import Backbone
from peftsearch.task.encode import Encoded
from peftsearch.task.encode_texts import encode_texts
from peftsearch.task.spec import Generation
from peftsearch.task.text import Split
from peftsearch.training.generation import generate
from support.families import EOS, TINY
from support.perturbed import attached
from support.texts import (
    PAD,
    twin,
    words,
    writer,
    writing,
)

FAMILIES = (
    "llama gpt2 opt qwen2 gpt_neox gemma bart mbart t5 marian mistral gemma2 gemma3_text".split()
)
METHODS = ("nothing", "lora", "prefix", "prompt")
TOKENS = 6
VARIED = 2
"""No two words twice: models of random weights would else write one word for ever."""


@cache
def prompts() -> list[str]:
    """Of 2, 12, 1, 7 and 4 words: in no order of length."""
    draw = random.Random(1)
    return [words(*draw.choices(range(5, EOS), k=length)) for length in (2, 12, 1, 7, 4)]


def data(backbone: Backbone) -> Encoded:
    return encode_texts(Split(prompts(), None, ["w5"] * 5), writing(backbone), 20, 8)


@contextmanager
def tuned(backbone: Backbone, method: str) -> Iterator[None]:
    """With a method whose tuned tensors are far from where they begin."""
    if method == "nothing":
        yield
        return
    with attached(backbone, method):
        yield


def alone(lm: Any, backbone: Backbone, ids: list[int], **options: Any) -> str:
    """One text, written from its tokens by transformers."""
    given = torch.tensor([ids])
    found = lm.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
        no_repeat_ngram_size=VARIED,
        **{"max_new_tokens": TOKENS, **options},
    )[0]
    begins = len(ids) if TINY[backbone.name].kind == "decoder" else 0
    return str(backbone.tokenizer.decode(found[begins:], skip_special_tokens=True)).strip()


def one_by_one(lm: Any, backbone: Backbone, **options: Any) -> list[str]:
    examples = data(backbone)
    return [alone(lm, backbone, examples.inputs.row(i).tolist(), **options) for i in range(5)]


def batched(backbone: Backbone, asked: Generation, max_tokens: int = TOKENS) -> list[str]:
    return generate(backbone.lm, data(backbone), writing(backbone), asked, max_tokens)


@cache
def of_nothing(family: str, beams: int) -> list[str]:
    return batched(writer(family), Generation(beams=beams, no_repeat_ngram=VARIED))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_is_written_as_one_by_one(family: str, method: str, beams: int) -> None:
    backbone = writer(family)
    with tuned(backbone, method):
        together = batched(backbone, Generation(beams=beams, no_repeat_ngram=VARIED))
        options = {"num_beams": beams, "early_stopping": beams > 1}
        assert together == one_by_one(backbone.lm, backbone, **options)
    assert len(set(together)) > 1, "one text for all would show no order"
    assert method == "nothing" or together != of_nothing(family, beams), "inert"


@pytest.mark.parametrize("family", ["llama", "opt", "bart", "t5"])
def test_with_nothing_attached_texts_are_those_of_transformers(family: str) -> None:
    assert of_nothing(family, 3) == one_by_one(
        twin(family).eval(), writer(family), num_beams=3, early_stopping=True
    )
