"""The head: pooling that ignores padding, and the pretrained pooler where it is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.methods import METHODS
from peftsearch.training.head import ClassificationHead
from peftsearch.training.model import TunedModel
from support.backbones import backbone_at, padded_batch


def test_mean_pooling_is_the_mean_over_real_tokens(tiny_bert: Path) -> None:
    backbone, batch = backbone_at(tiny_bert), padded_batch()
    head = ClassificationHead(backbone, Head("mean"), 3, seed=0)
    hidden = torch.randn(3, 9, 32, dtype=torch.float64)
    pooled = torch.stack([hidden[i, :n].mean(0) for i, n in enumerate((9, 6, 3))])
    logits = head(hidden, batch["attention_mask"])
    assert (logits - head.classifier(pooled)).abs().max() < 1e-12


def test_first_pooling_reads_the_first_token_alone(tiny_bert: Path) -> None:
    backbone, batch = backbone_at(tiny_bert), padded_batch()
    head = ClassificationHead(backbone, Head("first"), 3, seed=0)
    hidden = torch.randn(3, 9, 32, dtype=torch.float64)
    assert torch.equal(head(hidden, batch["attention_mask"]), head.classifier(hidden[:, 0]))


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_roberta"])
def test_the_pooler_begins_as_the_pretrained_one(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    backbone, batch = backbone_at(folder), padded_batch()
    stock = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    with (
        torch.no_grad(),
        TunedModel(backbone, Configuration(head=Head("first", "trained")), 2) as m,
    ):
        ours = m(batch["input_ids"], batch["attention_mask"])
        theirs = m.head.classifier(stock(**batch).pooler_output)
    assert (ours - theirs).abs().max() < 1e-12


def test_without_a_pretrained_pooler_it_begins_at_random_and_still_from_the_seed(
    tiny_bert: Path,
) -> None:
    backbone = replace(backbone_at(tiny_bert), pooler=None)
    poolers = [
        ClassificationHead(backbone, Head("first", "trained"), 2, seed).pooler for seed in (0, 0, 1)
    ]
    first, again, other = (p.weight for p in poolers if p is not None)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("head", [Head(), Head("first", "trained"), Head("mean", "trained", True)])
def test_the_count_of_trained_parameters_is_what_is_trained(head: Head, tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    for name, method in METHODS.items():
        configuration = method.configuration(head)
        with TunedModel(backbone, configuration, 5) as model:
            trained = sum(p.numel() for p in model.parameters.values())
        assert configuration.trained_parameters(backbone.shapes, 5) == trained, name


def test_every_configuration_of_a_seed_begins_with_the_same_classifier(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    weights = []
    for name in ("head-only-mean", "mam", "full"):
        with TunedModel(backbone, METHODS[name].configuration(), 2, seed=4) as model:
            weights.append(model.head.classifier.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
