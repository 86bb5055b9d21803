"""Prompts in every family: the stock model given embeddings with the prompt before the tokens'."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.design.composition import Gated
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prompt
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.cached_steps import continued
from support.stock import ENCODER_DECODERS, SIZES, backbone, batch, real

pytestmark = pytest.mark.internals

LENGTH = 4
DECODERS = (
    "gpt2 gpt_neox gpt_neox-serial opt llama mistral qwen2 qwen3 gemma gemma2 gemma3 phi3 "
    "falcon falcon-11b falcon-40b falcon-rw"
).split()
ALONE = [name for name in SIZES if name not in ENCODER_DECODERS]


@contextmanager
def prompted(name: str) -> Iterator[Tensor]:
    """A prompt on the backbone, far from its beginning."""
    place = Place.parse("embedding")
    modification = Modification(Prompt(), place, composition=Gated(), width=LENGTH)
    with attach(backbone(name), Configuration((modification,))) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        (prompt,) = attachment.tensors.values()
        yield prompt.detach()


def longer(t: Tensor) -> Tensor:
    return torch.cat((torch.ones(len(t), LENGTH, dtype=t.dtype), t), 1)


def before(model: Any, prompt: Tensor, ids: Tensor) -> Tensor:
    """Embeddings of the prompt and of the tokens."""
    embedded: Tensor = model.get_input_embeddings()(ids)
    return torch.cat((prompt.expand(len(ids), -1, -1), embedded), 1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ALONE)
def test_a_prompt_is_embeddings_before_the_tokens(name: str, side: str) -> None:
    model, inputs = backbone(name).model, batch(name)
    if side == "left":
        inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    with prompted(name) as prompt:
        tuned = model(**inputs).last_hidden_state
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        expected = model(
            inputs_embeds=before(model, prompt, inputs["input_ids"]),
            attention_mask=longer(inputs["attention_mask"]),
        ).last_hidden_state[:, LENGTH:]
    assert tuned.shape == plain.shape
    assert real(tuned - expected, inputs).abs().max() <= 1e-12
    assert real(tuned - plain, inputs).abs().max() > 0.01


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "opt", "qwen2", "gpt_neox"])
def test_given_positions_begin_behind_the_prompt(name: str) -> None:
    """Left-padded texts come with positions of their own."""
    model, inputs = backbone(name).model, batch(name)
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with prompted(name) as prompt:
        tuned = model(**inputs, position_ids=positions).last_hidden_state
    own = torch.arange(LENGTH).expand(3, -1)
    with torch.no_grad():
        expected = model(
            inputs_embeds=before(model, prompt, inputs["input_ids"]),
            attention_mask=longer(inputs["attention_mask"]),
            position_ids=torch.cat((own, positions + LENGTH), 1),
        ).last_hidden_state[:, LENGTH:]
    assert real(tuned - expected, inputs).abs().max() <= 1e-12


def test_token_types_of_a_prompt_are_the_first_segments() -> None:
    model, inputs = backbone("bert").model, batch("bert")
    types = (torch.arange(9) >= 4).long().expand(3, -1)
    with prompted("bert") as prompt:
        tuned = model(**inputs, token_type_ids=types).last_hidden_state
    with torch.no_grad():
        expected = model(
            inputs_embeds=before(model, prompt, inputs["input_ids"]),
            attention_mask=longer(inputs["attention_mask"]),
            token_type_ids=torch.cat((torch.zeros(3, LENGTH, dtype=torch.long), types), 1),
        ).last_hidden_state[:, LENGTH:]
    assert real(tuned - expected, inputs).abs().max() <= 1e-12


@pytest.mark.parametrize("masked", [True, False], ids=["with a mask", "without"])
@pytest.mark.parametrize("name", DECODERS)
def test_with_a_cache_a_prompt_is_read_once(name: str, masked: bool) -> None:
    """Five tokens, then one, then three at once, as all nine together."""
    model, ids = backbone(name).model, batch(name)["input_ids"]
    with prompted(name):
        whole = model(input_ids=ids, use_cache=False).last_hidden_state
        cache, parts, end = None, [], 0
        for step in (5, 1, 3):
            end += step
            out, cache = continued(
                model,
                cache,
                input_ids=ids[:, end - step : end],
                attention_mask=torch.ones(3, end, dtype=torch.long) if masked else None,
            )
            parts.append(out.last_hidden_state)
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoders_prompt_is_read_by_cross_attention(name: str) -> None:
    model, inputs = backbone(name).model, batch(name)
    with prompted(name) as prompt:
        tuned = model(**inputs).last_hidden_state
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        expected = model(
            inputs_embeds=before(model, prompt, inputs["input_ids"]),
            attention_mask=longer(inputs["attention_mask"]),
            decoder_input_ids=inputs["decoder_input_ids"],
        ).last_hidden_state
    assert (tuned - expected).abs().max() <= 1e-12
    assert (tuned - plain).abs().max() > 0.01


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoders_prompt_with_a_cached_decoder_is_as_without(name: str) -> None:
    """The encoder runs once, then the decoder token by token, as in generation."""
    model, inputs = backbone(name).model, batch(name)
    ids = inputs.pop("decoder_input_ids")
    with prompted(name):
        whole = model(**inputs, decoder_input_ids=ids, use_cache=False).last_hidden_state
        encoded = (model.encoder(**inputs).last_hidden_state,)
        cache, parts = None, []
        for step in range(ids.shape[1]):
            out, cache = continued(
                model,
                cache,
                encoder_outputs=encoded,
                attention_mask=inputs["attention_mask"],
                decoder_input_ids=ids[:, step : step + 1],
            )
            parts.append(out.last_hidden_state)
    assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-12
