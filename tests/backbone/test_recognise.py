"""Families that no row names: recognised by their layout with a note, or refused with a reason."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import wrap
from peftsearch.backbone.recognise import family_of
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from support.backbones import perturb
from support.shapes import config_of, small

pytestmark = pytest.mark.internals


@pytest.mark.parametrize(("model_type", "like"), [("olmo", "Llama"), ("ernie", "BERT")])
def test_a_known_layout_under_an_unknown_name_works_and_says_so(model_type: str, like: str) -> None:
    config = config_of(model_type)
    family = family_of(config)
    assert family.name == f"{model_type} (as {like})"
    assert f"its layout is that of {like}" in family.note
    torch.manual_seed(0)
    backbone = wrap(AutoModel.from_config(config))
    ids = torch.arange(5, 12)[None]
    before = backbone.model(ids).last_hidden_state
    with attach(backbone, METHODS["mam"].configuration()) as attachment:
        perturb(attachment.tensors)
        assert not torch.allclose(backbone.model(ids).last_hidden_state, before)
    assert torch.equal(backbone.model(ids).last_hidden_state, before)


def test_whether_an_unknown_familys_stream_is_a_plain_sum_is_not_guessed() -> None:
    assert not small("olmo").sums_attention
    with pytest.raises(ConfigurationError, match=r"has no place 'residual.attn'"):
        METHODS["loreft"].modifications[0].place.parse("residual.attn").within(small("olmo"))


def test_an_unknown_layout_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(ConfigurationError) as caught:
        family_of(config_of("mamba"))
    message = str(caught.value)
    assert "'mamba' is not in the table of families" in message
    assert "BERT: no 'encoder.layer'" in message
    assert "GPT-2: no 'h'" in message


def test_rows_of_one_model_type_are_told_apart_by_the_config() -> None:
    assert family_of(config_of("t5")).name == "T5"
    assert family_of(config_of("t5", feed_forward_proj="gated-gelu")).name == "T5, gated ffn"
    assert not family_of(config_of("gpt_neox", use_parallel_residual=True)).sums_attention
    assert family_of(config_of("gpt_neox", use_parallel_residual=False)).sums_attention
