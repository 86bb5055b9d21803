"""Configurations: JSON both ways, stable hashes, one line for people, exact counts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from transformers import BertConfig, RobertaConfig

from peftsearch.backbone.loading.load import load_shapes, shapes_of
from peftsearch.design.composition import Gated, Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Prefix, Relu
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from support.strategies import configurations


@given(configuration=configurations())
def test_json_reads_back_as_an_equal_configuration_with_an_equal_hash(
    configuration: Configuration,
) -> None:
    text = json.dumps(configuration.to_json())
    again = Configuration.from_json(json.loads(text))
    assert again == configuration
    assert again.hash == configuration.hash


@given(configuration=configurations())
def test_the_order_of_modifications_does_not_matter(configuration: Configuration) -> None:
    turned = replace(configuration, modifications=configuration.modifications[::-1])
    assert turned == configuration
    assert turned.hash == configuration.hash


def test_the_hash_is_the_same_in_another_process() -> None:
    program = (
        "from peftsearch.design.methods import METHODS; "
        "print([m.configuration().hash for m in METHODS.values()])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == str([m.configuration().hash for m in METHODS.values()])


def test_different_methods_have_different_hashes() -> None:
    hashes = {m.configuration().hash for m in METHODS.values()}
    assert len(hashes) == len(METHODS)


def test_a_configuration_is_described_in_one_line() -> None:
    configuration = Configuration(
        (
            Modification(Relu(), Place.parse("ffn.out"), composition=Scaled(4), width=64),
            Modification(Prefix(), Place(("attn.heads",), (3, 4, 5)), composition=Gated(), width=8),
        )
    )
    parts = set(configuration.describe().split(" + "))
    assert parts == {"relu∥ffn.out r=64 s=4", "prefix@attn.heads l=8, layers 3–5"}


@pytest.mark.parametrize(
    ("layers", "text"),
    [((5,), "layer 5"), ((0, 1, 2), "layers 0–2"), ((0, 2, 3, 5), "layers 0,2–3,5"), (None, "")],
)
def test_layers_are_described_in_runs(layers: tuple[int, ...] | None, text: str) -> None:
    assert Place(("attn.query",), layers).describe_layers() == text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda j: j.update(lr=1), "configuration has no key 'lr'"),
        (lambda j: j["head"].update(pooling="mena"), "did you mean 'mean'"),
        (lambda j: j["training"].update(lr={"linaer": 1}), "did you mean 'linear'"),
        (lambda j: j["training"].update(batch_size=0), "batch_size 0"),
        (lambda j: j["training"].update(head_lr=-1), "head_lr -1"),
        (lambda j: j["modifications"][0].update(width=None), "no width given"),
        (lambda j: j["modifications"][0].update(width=0), "width 0 is below 1"),
        (lambda j: j["modifications"][0].update(width=10**400), "beyond any model's tensors"),
        (lambda j: j["modifications"][0]["form"].update(name="lorra"), "form 'lorra' unknown"),
        (lambda j: j["modifications"][0]["form"].update(bais=True), "did you mean 'bias'"),
        (lambda j: j["modifications"][0]["place"].update(at="attn.quary"), "did you mean"),
    ],
)
def test_wrong_json_is_refused_with_the_key(change: object, sentence: str) -> None:
    document = METHODS["lora"].configuration().to_json()
    change(document)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=sentence):
        Configuration.from_json(document)


# -- counts ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roberta_base() -> BackboneShapes:
    """From its public configuration values, on the meta device."""
    config = RobertaConfig(
        vocab_size=50265,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    return shapes_of(config)


def test_the_bodies_have_their_known_sizes(roberta_base: BackboneShapes, minilm: object) -> None:
    assert roberta_base.body_parameters == 124_055_040
    assert load_shapes("demo:minilm").body_parameters == 22_565_376


def test_mam_on_roberta_base_is_the_papers_half_percent(roberta_base: BackboneShapes) -> None:
    mam = METHODS["mam"].configuration()
    assert mam.tuned_parameters(roberta_base) == 589_824
    assert round(mam.tuned_pct(roberta_base), 3) == 0.475


def test_full_head_only_and_bitfit_have_their_percentages(minilm: object) -> None:
    shapes = load_shapes("demo:minilm")
    assert METHODS["full"].configuration().tuned_pct(shapes) == 100.0
    assert METHODS["head-only-mean"].configuration().tuned_pct(shapes) == 0.0
    assert round(METHODS["bitfit"].configuration().tuned_pct(shapes), 4) == 0.1038


def test_a_pooler_counts_only_where_it_is_a_choice(minilm: object) -> None:
    shapes = load_shapes("demo:minilm")
    offered = Configuration(head=Head(pooler="trained", pooler_counts=True))
    fixed = Configuration(head=Head(pooler="trained"))
    assert round(offered.tuned_pct(shapes), 3) == 0.655
    assert fixed.tuned_pct(shapes) == 0.0
    assert fixed.trained_parameters(shapes, 3) == offered.trained_parameters(shapes, 3)


D, D_FF, LAYERS = 768, 3072, 12
FORMULAS = {
    "lora": 2 * LAYERS * 8 * (D + D),
    "lora-ffn": LAYERS * 8 * ((D + D_FF) + (D_FF + D)),
    "lora-all": LAYERS * 8 * (4 * (D + D) + 2 * (D + D_FF)),
    "prefix": LAYERS * 2 * 16 * D,
    "houlsby": LAYERS * 2 * (2 * 32 * D),
    "pfeiffer": LAYERS * 2 * 48 * D,
    "parallel-adapter-attn": LAYERS * 2 * 32 * D,
    "parallel-adapter-ffn": LAYERS * 2 * 64 * D,
    "scaled-parallel-adapter": LAYERS * 2 * 64 * D,
    # biases of q, v, o, fc1, fc2 and of two norms a layer, and of the embeddings' norm
    "bitfit": LAYERS * (3 * D + D_FF + D + 2 * D) + D,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_methods_count_is_the_formula_of_its_paper(
    name: str, roberta_base: BackboneShapes
) -> None:
    assert METHODS[name].configuration().tuned_parameters(roberta_base) == FORMULAS[name]


def test_a_learned_scale_counts_one_parameter_a_site(roberta_base: BackboneShapes) -> None:
    def cost(composition: Scaled) -> int:
        place = Place.parse("attn.query+value")
        modification = Modification(Relu(), place, composition=composition, width=4)
        return Configuration((modification,)).tuned_parameters(roberta_base)

    assert cost(Scaled("learned")) - cost(Scaled(2)) == 2 * LAYERS


def test_counting_needs_no_model_in_memory() -> None:
    config = BertConfig(hidden_size=8192, num_hidden_layers=96, num_attention_heads=64)
    shapes = shapes_of(config)
    assert METHODS["lora"].configuration().tuned_parameters(shapes) == 2 * 96 * 8 * (2 * 8192)


def test_layers_that_are_all_are_written_as_none(roberta_base: BackboneShapes) -> None:
    every = Modification(Relu(), Place(("ffn.out",), tuple(range(12))), width=4)
    assert Configuration((every,)).within(roberta_base).modifications[0].place.layers is None


def test_training_refuses_what_cannot_be_trained() -> None:
    for wrong in ({"warmup": 2.0}, {"max_grad_norm": 0.0}, {"lr": (("relu", 0.0),)}):
        with pytest.raises(ConfigurationError):
            Training(**wrong)  # type: ignore[arg-type]
