"""Every family × every method: the ✓ of docs/families.md, and its reasons where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.families import FAMILIES
from peftsearch.backbone.recognise import family_of
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from support.families import REFUSED, TINY, backbone_of, inputs, states, tiny_config
from support.matrix import CHECKS, failures, refusal
from support.points import POINT_NAMES, point

pytestmark = pytest.mark.internals

WITHOUT_BIASES = (
    "modernbert t5 t5-gated mt5 llama mistral qwen3 gemma gemma2 gemma3_text olmo granite phi3"
).split()
DEBERTA = ("deberta-v2", "deberta-v2-own", "deberta-v2-c2p")
FALCON = ("falcon", "falcon-11b", "falcon-40b", "falcon-rw", "falcon-rotary")
WITH_PREFIX = "prefix prefix-mlp multi-head-pa ungated-prefix prefix-lora-ffn mam unipelt".split()

ENCODER_DECODERS = "bart mbart marian pegasus t5 t5-gated mt5 m2m_100".split()
POST_NORM = (
    "bert roberta xlm-roberta camembert electra distilbert bart marian opt-post ernie".split()
)


def expected_refusals() -> Iterator[tuple[str, str, str]]:
    """(family, method, what its reason must name), written out by hand."""
    for family in WITHOUT_BIASES:
        yield family, "bitfit", "no place 'biases'"
        yield family, "bitfit-all", "no place 'all_biases'"
    for family in (*DEBERTA, *FALCON):
        for method in (*WITH_PREFIX, "zero-init-attention"):
            row = TINY[family].row
            yield family, method, f"the attention of {row} takes no further keys and values"
    for family in TINY.keys() - set(ENCODER_DECODERS):
        yield family, "cross-attention", "no place 'attn.query+value@cross'"
    for family in (*POST_NORM, *DEBERTA):
        yield family, "residual-stream", "the residual stream is the sub-layer's input"
    # GPT-NeoX and most Falcons add attention and ffn at once; the others may, as far as their
    # layout tells.
    for family in ("gpt_neox", *FALCON[:3], "m2m_100", "olmo", "granite"):
        yield family, "residual-attn", "no place 'residual.attn'"
    # OLMo's norms have no weights.
    yield "olmo", "ln-tuning", "no place 'norm'"
    yield "olmo", "bitfit-norm", "no place 'biases+norm'"


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", TINY)
def test_every_method_holds(family: str, check: str) -> None:
    assert failures(family, check) == []


@pytest.mark.parametrize("family", TINY)
def test_exactly_what_a_family_cannot_take_is_refused_with_the_reason(family: str) -> None:
    found = {m: reason for m in POINT_NAMES if (reason := refusal(family, m)) is not None}
    expected = {m: what for name, m, what in expected_refusals() if name == family}
    assert found.keys() == expected.keys()
    assert [m for m, what in expected.items() if what not in found[m]] == []


@pytest.mark.parametrize("family", DEBERTA)
def test_a_refused_configuration_leaves_nothing_attached(family: str) -> None:
    backbone = backbone_of(family)
    with torch.no_grad():
        before = states(family, backbone, inputs(family))
        with pytest.raises(ConfigurationError):
            # Its adapter comes before its prefix.
            attach(backbone, point("unipelt", backbone.shapes))
        after = states(family, backbone, inputs(family))
    assert torch.equal(before, after)


def test_every_row_and_model_type_of_the_table_has_a_tiny_model() -> None:
    rows = {(row.name, kind) for row in FAMILIES for kind in row.model_types}
    tiny = {(tiny.row, tiny.model_type) for tiny in TINY.values()}
    # mT5 with an ffn that is not gated was never released.
    assert rows - tiny == {("T5", "mt5")}


@pytest.mark.parametrize("family", TINY)
def test_every_tiny_model_is_of_the_row_it_stands_for(family: str) -> None:
    assert family_of(tiny_config(family)).name == TINY[family].row


def test_every_method_that_modifies_anything_is_in_the_matrix() -> None:
    assert METHODS.keys() - set(POINT_NAMES) == {"head-only-first", "head-only-mean"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_no_row_has_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"model type '{name}' is not in the table"):
        family_of(tiny_config(name))
