"""Prompts and prefixes equal peft 0.21's, given the same parameters, in fp64."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft import get_peft_model
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import wrap
from peftsearch.design.composition import Gated
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix, Prompt
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import backbone, batch, outputs, real, stock, twin

pytestmark = pytest.mark.internals

TOLERANCE = 1e-12
"""Relative to the largest state."""


# -- prompts -----------------------------------------------------------------------------------


def prompt_of(length: int) -> Configuration:
    place = Place.parse("embedding")
    return Configuration((Modification(Prompt(), place, composition=Gated(), width=length),))


@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "llama", "gpt2", "opt"])
def test_a_prompt_equals_pefts(name: str) -> None:
    length, inputs = 4, batch(name)
    ours = backbone(name)
    config = peft.PromptTuningConfig(
        task_type="FEATURE_EXTRACTION",
        num_virtual_tokens=length,
        token_dim=ours.shapes.d_embedding,  # ELECTRA's is not the hidden size, which peft assumes
    )
    theirs: Any = get_peft_model(twin(name), config).double()
    with attach(ours, prompt_of(length)) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        (prompt,) = attachment.tensors.values()
        theirs.prompt_encoder["default"].embedding.weight.copy_(prompt)
        tuned = outputs(ours.model, inputs)
        other = theirs.eval()(**inputs).last_hidden_state[:, length:]
    expected = real(other, inputs)
    assert (tuned - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1)
    assert (tuned - outputs(ours.model, inputs)).abs().max() > 0.01


@pytest.mark.parametrize("name", ["bart", "mbart", "t5", "t5-gated"])
def test_a_prompt_in_an_encoder_equals_pefts_and_cross_attention_reads_it(name: str) -> None:
    """peft's sequence-to-sequence class on the whole language model, down to its logits."""
    length, inputs = 4, batch(name)
    lm: Any = AutoModelForSeq2SeqLM.from_config(stock(name).config).double().eval()
    lm.load_state_dict(_within_lm(name), strict=False)
    other = AutoModelForSeq2SeqLM.from_config(stock(name).config).double().eval()
    other.load_state_dict(lm.state_dict())
    config = peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=length)
    theirs: Any = get_peft_model(other, config).double()
    theirs.eval()
    ours = wrap(lm if name.startswith("t5") else lm.model)
    with attach(ours, prompt_of(length)) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        (prompt,) = attachment.tensors.values()
        theirs.prompt_encoder["default"].embedding.weight.copy_(prompt.repeat(2, 1))
        tuned, same = lm(**inputs).logits, theirs(**inputs).logits
    assert (tuned - same).abs().max() <= TOLERANCE * same.abs().max().clamp(min=1)
    assert (tuned - lm(**inputs).logits).abs().max() > 0.01


def _within_lm(name: str) -> dict[str, Tensor]:
    """The body's weights under the names they have in a language model."""
    prefix = "" if name.startswith("t5") else "model."
    state = stock(name).state_dict()
    return {f"{prefix}{key}": value for key, value in state.items()}


# -- prefixes ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")  # peft's name of the cache
@pytest.mark.parametrize("name", ["bert", "roberta", "electra", "llama", "qwen2", "gpt2", "opt"])
def test_a_prefix_equals_pefts_where_positions_begin_behind_it(name: str) -> None:
    """peft hands the prefix over as a cache, which moves every token by l positions.

    Given those positions, ours is the same function.
    """
    length, inputs = 4, batch(name)
    ours = backbone(name)
    form = Modification(Prefix(), Place.parse("attn.heads"), composition=Gated(), width=length)
    config = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=length)
    theirs: Any = get_peft_model(twin(name), config).double()
    with attach(ours, Configuration((form,))) as attachment, torch.no_grad():
        perturb(attachment.tensors)
        sites = {n.split("/", 1)[1]: p for n, p in attachment.tensors.items()}
        parts = [
            sites[f"layers.{a.layer}.attn.heads/{key}"].transpose(0, 1).flatten(1)
            for a in ours.shapes.attention
            for key in ("keys", "values")
        ]
        theirs.prompt_encoder["default"].embedding.weight.copy_(torch.cat(parts, 1))
        tuned = outputs(ours.model, inputs | positions(name, length))
        other = theirs.eval()(**inputs).last_hidden_state
    expected = real(other, inputs)
    assert (tuned - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp(min=1)
    assert (tuned - outputs(ours.model, inputs | positions(name, length))).abs().max() > 0.01


def positions(name: str, length: int) -> dict[str, Tensor]:
    """What the model would count as behind a cache of `length`."""
    first = length + (2 if name == "roberta" else 0)  # RoBERTa counts from its padding id + 1
    return {"position_ids": torch.arange(first, first + 9).expand(3, -1)}
