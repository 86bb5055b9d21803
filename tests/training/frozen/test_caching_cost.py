"""Whether keeping activations pays: what it depends on, and in which direction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftsearch.backbone.loading.load import Backbone, load_shapes
from peftsearch.training.frozen.caching_cost import SHARED_BY, caching_pays, token_bytes
from support.backbones import backbone_at


class OnDevice(Backbone):
    """A backbone that says it is on another device."""

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")


@pytest.fixture
def minilm_shapes(tiny_bert: Path, minilm: Path) -> Backbone:
    tiny = backbone_at(tiny_bert, torch.float32)
    return replace(tiny, shapes=load_shapes(str(minilm)))


def test_states_of_a_token_are_4_d_bytes(minilm_shapes: Backbone) -> None:
    assert token_bytes(minilm_shapes) == 4 * 384


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_on_a_cpu_a_search_keeps_every_layer_and_a_single_pass_none(
    layers: int, minilm_shapes: Backbone
) -> None:
    assert caching_pays(minilm_shapes, layers, 1.0, SHARED_BY)
    assert not caching_pays(minilm_shapes, layers, 1.0, 1)


def test_on_a_gpu_a_single_small_layer_is_not_worth_the_transfer(minilm_shapes: Backbone) -> None:
    there = OnDevice(**{f: getattr(minilm_shapes, f) for f in minilm_shapes.__dataclass_fields__})
    assert not caching_pays(there, 1, 3.0, SHARED_BY)
    assert caching_pays(minilm_shapes, 1, 3.0, SHARED_BY)
