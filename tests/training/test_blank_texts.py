"""Texts without a token, and token types nobody knows: read, trained on, predicted and written."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.task.spec import Generation
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import Encoded, encode
from peftsearch.task.tokens.encode_texts import encode_texts
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.generation import generate
from peftsearch.training.objectives.head_objective import outputs_of
from peftsearch.training.objectives.labels import Labels
from support.families import EOS, backbone_of
from support.texts import PAD, objective, tokenizer, untuned, words, writer, writing

DECODERS = ("gpt2", "llama", "opt", "gpt_neox")
POOLINGS = ("last", "mean")


def bare() -> Any:
    """A tokenizer that adds nothing to a text."""
    own = copy.deepcopy(tokenizer(decoder=True))
    own.backend_tokenizer.post_processor = processors.Sequence([])
    return own


def split(*texts: str) -> Split:
    return Split(texts, None, np.arange(len(texts)) % 2)


def model_of(backbone: Backbone, pooling: str) -> TunedModel:
    return TunedModel(backbone, Configuration((), Head(pooling)), 2, seed=3)


def read_alone(model: TunedModel, ids: list[int]) -> Tensor:
    given = torch.tensor([ids])
    with torch.no_grad():
        return model(given, torch.ones_like(given))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", [*DECODERS, "bart", "t5"])
def test_a_text_without_a_token_is_predicted_from_the_end_of_text(
    family: str, pooling: str
) -> None:
    backbone = replace(backbone_of(family), tokenizer=bare())
    with model_of(backbone, pooling) as model:
        expected = read_alone(model, [EOS])
        alone = outputs_of(model, encode(split(""), backbone.tokenizer, 16))
        among = outputs_of(model, encode(split(words(20, 21, 22), ""), backbone.tokenizer, 16))
    assert torch.allclose(alone, expected, rtol=0, atol=1e-10)
    assert torch.allclose(among[1:], expected, rtol=0, atol=1e-10)
    assert (among[0] - among[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_texts_without_a_token_alone_can_be_trained_on(family: str) -> None:
    backbone = replace(backbone_of(family), tokenizer=bare())
    data = encode(split("", "", "", words(20)), backbone.tokenizer, 16)
    configuration = Configuration((), Head("mean"), Training(batch_size=2))
    budget = TrainingBudget(max_steps=4, rungs=(1.0,))
    with TrainingRun(backbone, data, Labels(2), configuration, budget=budget, seed=0) as run:
        run.train_to(4)
        evaluation = run.evaluate(data)
    assert np.isfinite(evaluation.losses).all()


# -- written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", DECODERS)
def test_a_text_without_a_prompt_among_others_is_written_as_alone(family: str, beams: int) -> None:
    backbone = writer(family)
    asked = Generation(beams=beams, no_repeat_ngram=2)

    def written(*prompts: list[int]) -> list[str]:
        data = Encoded(Ragged.of(prompts), None, torch.zeros(len(prompts)), PAD)
        return generate(backbone.lm, data, writing(backbone), asked, 6)

    together = written([20, 21, 22], [], [23])
    assert together == [*written([20, 21, 22]), *written([EOS]), *written([23])]
    assert together[1] == written([])[0]


@pytest.mark.parametrize("family", ["bart", "mbart", "t5", "marian"])
def test_an_encoder_decoder_writes_from_sources_without_a_token(family: str) -> None:
    backbone = replace(writer(family), tokenizer=bare(), target_tokenizer=bare())
    own = writing(backbone)
    data = encode_texts(Split(["", words(20, 21)], None, ["w30", "w31"]), own, 8, 8)
    assert data.inputs.row(0).tolist() == [EOS]
    assert data.written is not None
    assert data.written.row(0).tolist() == [30, EOS]
    found = generate(backbone.lm, data, own, Generation(no_repeat_ngram=2), 6)
    (alone,) = generate(backbone.lm, data.first(1), own, Generation(no_repeat_ngram=2), 6)
    assert found[0] == alone


@pytest.mark.parametrize("family", ["llama", "gpt2", "bart", "t5"])
def test_texts_and_targets_without_a_token_have_no_loss_and_no_end_in_an_error(family: str) -> None:
    """Of a model without an end of text, alone in their batch and among others."""
    backbone = writer(family)
    own = replace(
        writing(backbone), end_id=None, ends=(), tokenizer=bare(), target_tokenizer=bare()
    )
    texts = ["", "", words(20)]
    data = encode_texts(Split(texts, None, ["", "w30", "w30 w31"]), own, 8, 8)
    texts_objective = objective(backbone)
    with untuned(backbone) as model, torch.no_grad():
        for indices in (np.array([0]), np.array([1]), np.array([0, 1]), np.arange(3)):
            assert texts_objective.loss(model, data, indices).isfinite()
        evaluation = texts_objective.evaluate(model, data, predict=False)
    assert evaluation.losses[0] == 0
    assert evaluation.losses[2] > 0


# -- token types -----------------------------------------------------------------------------------


PAIR = Split((words(20, 21),), (words(22),), np.zeros(1, np.int64))


def with_types() -> Any:
    own = bare()
    own.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A:0 $B:1", special_tokens=[]
    )
    own.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return own


@pytest.mark.parametrize("family", ["gpt2", "llama", "bart", "distilbert", "modernbert"])
def test_models_without_a_table_of_types_read_a_pair_as_if_there_were_none(family: str) -> None:
    """GPT-2 would add the embeddings of tokens 0 and 1."""
    backbone = replace(backbone_of(family), tokenizer=with_types())
    data = encode(PAIR, backbone.tokenizer, 8, backbone.type_rows)
    with model_of(backbone, "mean") as model:
        found = outputs_of(model, data)
        assert torch.allclose(found, read_alone(model, [20, 21, 22]), rtol=0, atol=1e-10)


def test_types_of_a_model_that_knows_them_are_read() -> None:
    backbone = replace(backbone_of("bert"), tokenizer=with_types())
    data = encode(PAIR, backbone.tokenizer, 8, backbone.type_rows)
    with model_of(backbone, "mean") as model:
        found = outputs_of(model, data)
        assert (found - read_alone(model, [20, 21, 22])).abs().max() > 1e-3
