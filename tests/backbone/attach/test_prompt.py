"""Prompts: what is inserted, what is cut off again, and how long the text may then be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from support.backbones import backbone_at, padded_batch, states

pytestmark = pytest.mark.internals

LENGTH = 5


@pytest.fixture(scope="module")
def backbone(tiny_bert: Path) -> Backbone:
    return backbone_at(tiny_bert)


def prompt_of(length: int) -> Configuration:
    return Configuration((METHODS["prompt"].modifications[0].with_width(length),))


def test_a_prompt_equals_tokens_whose_embeddings_it_holds(backbone: Backbone) -> None:
    """Positions included: a prompt of real tokens is those tokens before the text."""
    batch = padded_batch()
    tokens = torch.tensor([7, 11, 13, 17, 19])
    embeddings: Tensor = backbone.model.get_input_embeddings().weight
    longer = {
        "input_ids": torch.cat((tokens.expand(3, -1), batch["input_ids"]), 1),
        "attention_mask": torch.cat((torch.ones(3, LENGTH).long(), batch["attention_mask"]), 1),
    }
    expected = states(backbone, longer)[:, LENGTH:]
    with torch.no_grad(), attach(backbone, prompt_of(LENGTH)) as attachment:
        attachment.tensors["0/embedding/prompt"].copy_(embeddings[tokens])
        assert torch.equal(states(backbone, batch), expected)


def test_a_prompt_begins_as_embeddings_of_the_vocabulary(backbone: Backbone) -> None:
    vocabulary: Tensor = backbone.model.get_input_embeddings().weight
    with attach(backbone, prompt_of(LENGTH)) as attachment:
        prompt = attachment.tensors["0/embedding/prompt"]
        assert all(any(torch.equal(row, token) for token in vocabulary) for row in prompt)


def test_a_prompt_that_leaves_no_room_is_refused_with_the_remedy(backbone: Backbone) -> None:
    short = replace(backbone, positions=12)
    with (
        attach(short, prompt_of(LENGTH)),
        pytest.raises(ConfigurationError, match=r"prompt of 5 .* texts of 9 exceeds .* 12 pos"),
    ):
        states(short)


def test_the_longest_prompt_of_a_budget_leaves_room_for_the_text(backbone: Backbone) -> None:
    longest = METHODS["prompt"].modifications[0].maximum_width(backbone.shapes)
    assert longest == backbone.shapes.longest_prompt == 66 // 4
