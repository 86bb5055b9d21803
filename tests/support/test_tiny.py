"""The tiny models and data are what the tests that use them take for granted."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from peftsearch.backbone.loading.load import load_backbone
from support.tiny import build_tiny_bert, sentiment_rows


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_roberta"])
def test_a_tiny_model_loads_with_its_pooler_and_a_known_shape(
    name: str, request: pytest.FixtureRequest
) -> None:
    backbone = load_backbone(str(request.getfixturevalue(name)))
    assert backbone.pooler is not None
    assert [(a.d_in, a.d_query) for a in backbone.shapes.attention] == [(32, 32), (32, 32)]
    assert [(f.d_in, f.d_hidden) for f in backbone.shapes.ffn] == [(32, 64), (32, 64)]


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_roberta"])
def test_a_tiny_tokenizer_has_no_unknown_character_in_plain_english(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = load_backbone(str(request.getfixturevalue(name))).tokenizer
    ids = tokenizer("the film was great, zebra #42!")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert ids[0] == tokenizer.cls_token_id
    assert ids[-1] == tokenizer.sep_token_id


def test_a_tiny_model_tells_sentences_apart(tiny_bert: Path) -> None:
    backbone = load_backbone(str(tiny_bert))
    tokens = backbone.tokenizer(["a good film", "a bad film"], return_tensors="pt")
    with torch.no_grad():
        states = backbone.model(**tokens).last_hidden_state
    assert (states[0] - states[1]).abs().max() > 0.1


def test_equal_seeds_build_equal_models(tmp_path: Path, tiny_bert: Path) -> None:
    again = build_tiny_bert(tmp_path / "again")
    other = build_tiny_bert(tmp_path / "other", seed=1)
    weights = [(p / "model.safetensors").read_bytes() for p in (tiny_bert, again, other)]
    assert weights[0] == weights[1] != weights[2]


def test_the_sentiment_rows_are_balanced_and_fixed_by_their_seed(tiny_sentiment_csv: Path) -> None:
    with tiny_sentiment_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == sentiment_rows(200)
    assert sum(row["label"] == "positive" for row in rows) == 100
    assert rows != sentiment_rows(200, seed=1)
