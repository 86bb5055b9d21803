"""Places in one backbone: kinds of sub-layers, layers, and the one way to write each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftsearch.design.place import PLACES, Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from support.shapes import small

BART, BERT, LLAMA = (small(name) for name in ("bart", "bert", "llama"))


def keys(place: Place, shapes: BackboneShapes) -> set[str]:
    return {site.key for site in place.sites(shapes)}


@pytest.mark.parametrize(
    ("text", "layers", "shapes", "written", "written_layers"),
    [
        ("attn.heads", None, BERT, "attn.heads", None),
        ("attn.heads", (0, 1, 2), BERT, "attn.heads", None),
        ("attn.heads@enc_self", None, BERT, "attn.heads", None),
        ("attn.heads@enc_self", None, BART, "attn.heads", (0, 1, 2)),
        ("attn.heads@cross", None, BART, "attn.heads@cross", (3, 4, 5)),
        ("attn.heads@cross", (0, 1, 2, 3, 4, 5), BART, "attn.heads@cross", (3, 4, 5)),
        ("attn.heads@cross", (4,), BART, "attn.heads@cross", (4,)),
        ("attn.heads@dec_self+cross", None, BART, "attn.heads", (3, 4, 5)),
        ("attn.heads@cross+dec_self+enc_self", None, BART, "attn.heads", None),
        (
            "attn.heads@enc_self+dec_self",
            None,
            BART,
            "attn.heads@enc_self+dec_self",
            (0, 1, 2, 3, 4, 5),
        ),
        ("attn.heads@enc_self+dec_self", (1, 2), BART, "attn.heads", (1, 2)),
        ("ffn.out@dec", None, BART, "ffn.out", (3, 4, 5)),
        ("ffn.hidden+gate+out", None, BART, "ffn.hidden+out", None),
        ("ffn.hidden+gate+out", None, LLAMA, "ffn.hidden+gate+out", None),
        ("ffn.out@dec", None, LLAMA, "ffn.out", None),
    ],
)
def test_a_place_is_written_one_way_in_a_backbone(
    text: str,
    layers: tuple[int, ...] | None,
    shapes: BackboneShapes,
    written: str,
    written_layers: tuple[int, ...] | None,
) -> None:
    within = Place.parse(text, layers).within(shapes)
    assert (str(within), within.layers) == (written, written_layers)
    assert keys(within, shapes) == keys(Place.parse(text, layers), shapes)


JOINED = [
    *(name for name, row in PLACES.items() if not row.body),
    *("attn.query+value", "ffn.hidden+gate+out", "residual.attn"),
]


@st.composite
def places(draw: st.DrawFn) -> Place:
    names = Place.parse(draw(st.sampled_from(JOINED))).names
    kinds = PLACES[names[0]].kinds
    chosen = draw(st.none() | st.sets(st.sampled_from(kinds), min_size=1)) if kinds else None
    layers = draw(st.none() | st.sets(st.integers(0, 5), min_size=1)) if kinds else None
    return Place(names, layers and tuple(layers), chosen and tuple(chosen))


@given(places(), places())
def test_two_places_are_written_alike_if_and_only_if_they_have_the_same_sites(
    first: Place, second: Place
) -> None:
    written = []
    for place in (first, second):
        try:
            written.append(place.within(BART))
        except ConfigurationError:
            assert not place.sites(BART)
            return
    assert (written[0] == written[1]) == (keys(first, BART) == keys(second, BART))
    assert written[0].within(BART) == written[0]


@given(places())
def test_a_place_reads_back_as_itself(place: Place) -> None:
    assert Place.parse(str(place), place.layers) == place


@pytest.mark.parametrize(
    ("text", "shapes", "reason"),
    [
        ("attn.heads@cross", BERT, r"BERT has no place 'attn.heads@cross'"),
        ("attn.heads@dec_self", BERT, "BERT has no place"),
        ("ffn.gate", BERT, r"BERT has no place 'ffn.gate'"),
        ("biases", small("t5"), "T5 has no place 'biases'.*added-biases"),
        ("residual.attn", small("gpt_neox"), "GPT-NeoX has no place 'residual.attn'"),
    ],
)
def test_what_a_backbone_does_not_have_is_refused_by_name(
    text: str, shapes: BackboneShapes, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Place.parse(text).within(shapes)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("attn.heads@crss", "kind 'crss' unknown; did you mean 'cross'"),
        ("ffn.out@cross", "kind 'cross' unknown; known: dec, enc"),
        ("biases@enc", "this place has no kinds"),
        ("attn.heads@", "kind '' unknown"),
    ],
)
def test_an_unknown_kind_is_refused_with_those_known(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        Place.parse(text)


def test_a_joined_place_of_body_tensors_names_each_tensor_once() -> None:
    joined = [site.key for site in Place.parse("biases+norm").sites(BERT)]
    apart = keys(Place.parse("biases"), BERT) | keys(Place.parse("norm"), BERT)
    assert len(joined) == len(set(joined))
    assert set(joined) == apart


@pytest.mark.parametrize(
    ("text", "model", "written"),
    [
        ("biases+norm", "bert", "biases+norm"),
        ("biases+norm", "t5", "norm"),
        ("all_biases", "bert", "all_biases"),
        ("all_biases", "qwen2", "biases"),
        ("all_biases+norm", "qwen2", "biases+norm"),
        ("norm", "t5", "norm"),
    ],
)
def test_tensors_of_the_body_are_named_by_the_fewest_names(
    text: str, model: str, written: str
) -> None:
    assert str(Place.parse(text).within(small(model))) == written


def test_what_is_in_no_layer_takes_no_layers() -> None:
    with pytest.raises(ConfigurationError, match="is in no layer: leave out 'layers'"):
        Place.parse("embedding", (1,))


@pytest.mark.parametrize("text", ["biases", "norm", "biases+norm", "weights"])
def test_tensors_of_some_layers_are_those_that_bear_their_number(text: str) -> None:
    shapes = small("bert")
    whole = Place.parse(text).sites(shapes)
    upper = Place.parse(text, (1,)).within(shapes)
    assert upper.sites(shapes) == tuple(site for site in whole if ".layer.1." in site.key)
    assert upper.sites(shapes)
    every = Place.parse(text, tuple(range(shapes.layers))).within(shapes)
    assert every.layers is not None, "the embeddings' tensors are in no layer"
    assert 0 < len(every.sites(shapes)) < len(whole)


def test_all_layers_of_tensors_that_stand_nowhere_else_are_written_as_none() -> None:
    shapes = small("t5")
    in_layers = [t for t in shapes.tensors if t.layer is not None]
    bare = replace(shapes, tensors=tuple(in_layers))
    whole = Place.parse("norm", tuple(range(bare.layers))).within(bare)
    assert whole == Place.parse("norm").within(bare)
    assert whole.layers is None


def test_dead_key_biases_are_left_out_of_a_fused_bias() -> None:
    fused = {s.key: s.tensor for s in Place.parse("biases").sites(small("gpt2"))}
    assert fused["h.0.attn.c_attn.bias"] == (64,)  # query and value of 32 each
    every = {s.key: s.tensor for s in Place.parse("all_biases").sites(small("gpt2"))}
    assert every["h.0.attn.c_attn.bias"] == (96,)


def test_key_biases_live_where_positions_turn_the_keys() -> None:
    assert "layers.0.self_attn.k_proj.bias" in keys(Place.parse("biases"), small("qwen2"))
    turned = {s.key: s.tensor for s in Place.parse("biases").sites(small("gpt_neox"))}
    # 8 dimensions a head, a quarter of which turn: 6 of each head's key biases are dead.
    assert turned["layers.0.attention.query_key_value.bias"] == (96 - 4 * 6,)


def test_sinusoids_are_not_parameters_of_the_body() -> None:
    names = {tensor.name for tensor in small("pegasus").tensors}
    assert "encoder.embed_positions.weight" not in names
    assert "encoder.embed_positions.weight" in {t.name for t in small("bart").tensors}
