"""Well-known models from their public configuration values: as large as their publishers say."""

from __future__ import annotations

import pytest

from peftsearch.backbone.families import FAMILIES
from peftsearch.backbone.loading.load import family_for, load_backbone, load_shapes, shapes_of
from peftsearch.backbone.loading.reference_configs import REFERENCES, reference_config
from peftsearch.errors import MissingError

pytestmark = pytest.mark.internals

BODIES = {
    "minilm-l6": 22_565_376,
    "bert-base": 109_482_240 - 590_592,  # without its pooler
    "roberta-base": 124_055_040,
    "distilbert-base": 66_362_880,
    "deberta-v3-base": 183_831_552,
    "modernbert-base": 149_655_232 - 640_960,  # without the language model's head
    "bart-large": 406_291_456,
    "t5-base": 222_903_552,
    "gpt2": 124_439_808,
    "pythia-160m": 162_322_944 - 50_304 * 768,  # without the untied output embeddings
    "opt-125m": 125_239_296,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096 - 32_000 * 4_096,
    "qwen2-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "gemma-2b": 2_506_172_416,
    "gemma-2-2b": 2_614_341_888,
    "phi-3-mini": 3_821_079_552 - 32_064 * 3_072,
    "falcon-7b": 6_921_720_704,
    "falcon-40b": 41_303_293_952,
    "falcon-rw-1b": 1_311_625_216,
}


@pytest.mark.parametrize("name", BODIES)
def test_the_body_has_as_many_parameters_as_its_publisher_says(name: str) -> None:
    assert load_shapes(f"config:{name}").body_parameters == BODIES[name]


@pytest.mark.slow
def test_every_row_of_the_table_of_families_but_variants_has_a_reference() -> None:
    covered = {shapes_of(reference_config(name)).family for name in REFERENCES}
    assert {f.name for f in FAMILIES} - covered == {"GPT-NeoX, one sum each", "OPT, norm after"}


def test_a_reference_has_a_family_but_no_weights() -> None:
    assert family_for("config:bart-large").name == "BART"
    with pytest.raises(MissingError, match="has no weights"):
        load_backbone("config:bart-large")


def test_an_unknown_reference_is_refused_with_the_nearest() -> None:
    with pytest.raises(MissingError, match="did you mean 'bart-large'"):
        load_shapes("config:bart-larg")
