"""A model's own generation settings: whatever a checkpoint carries, texts are those of the task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, WatermarkingConfig

from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.spec import Generation
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.objectives.generation import generate
from support.families import EOS
from support.texts import PAD, encoded, writer, writing

FAMILIES = ("llama", "bart")
TOKENS = 6
SPECIAL = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    "forced_bos_token_id",
}
"""Settings that are no way of writing: they say what a text begins and ends with."""

VALUES: dict[str, Any] = {
    "max_length": 3,
    "max_new_tokens": 2,
    "min_length": 6,
    "min_new_tokens": 20,
    "early_stopping": "never",
    "max_time": 1e-9,
    "stop_strings": ["w"],
    "do_sample": True,
    "num_beams": 4,
    "use_cache": False,
    "cache_implementation": "static",
    "temperature": 9.0,
    "top_p": 0.9,
    "min_p": 0.5,
    "typical_p": 0.5,
    "epsilon_cutoff": 0.1,
    "eta_cutoff": 0.1,
    "repetition_penalty": 50.0,
    "encoder_repetition_penalty": 0.01,
    "length_penalty": -9.0,
    "bad_words_ids": [[n] for n in range(5, 60)],
    "force_words_ids": [[7]],
    "renormalize_logits": True,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": (1, 99.0),
    "suppress_tokens": list(range(5, 60)),
    "begin_suppress_tokens": list(range(5, 60)),
    "sequence_bias": [[[9], 99.0]],
    "token_healing": True,
    "guidance_scale": 4.0,
    "watermarking_config": WatermarkingConfig(bias=99.0),
    "forced_eos_token_id": 7,
    "return_dict_in_generate": True,
    "output_scores": True,
    "dola_layers": "high",
    "penalty_alpha": 0.6,
    "diversity_penalty": 5.0,
    "assistant_early_exit": 1,
    "is_assistant": True,
    "low_memory": True,
    "forced_decoder_ids": [[1, 7]],
    "a_setting_of_tomorrow": 5,
}
"""Values that bite; of any other field 3, which most of them take."""


def fields() -> list[str]:
    own = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    return sorted((own | {*VALUES}) - SPECIAL - {"transformers_version"})


@cache
def data(family: str) -> Encoded:
    return encoded(writer(family), 5)


@contextmanager
def with_own(backbone: Backbone, **settings: Any) -> Iterator[None]:
    """A model whose checkpoint carries these settings."""
    before, own = backbone.lm.generation_config, GenerationConfig()
    for key, value in (before.to_dict() | settings).items():
        setattr(own, key, value)
    backbone.lm.generation_config = own
    try:
        yield
        assert backbone.lm.generation_config is own
    finally:
        backbone.lm.generation_config = before


def written(family: str, **settings: Any) -> list[str]:
    backbone = writer(family)
    with with_own(backbone, **settings):
        return generate(
            backbone.lm, data(family), writing(backbone), Generation(min_tokens=2), TOKENS
        )


@cache
def clean(family: str) -> list[str]:
    return written(family)


@pytest.mark.parametrize("name", fields())
@pytest.mark.parametrize("family", FAMILIES)
def test_no_setting_of_a_checkpoint_changes_a_text(family: str, name: str) -> None:
    assert written(family, **{name: VALUES.get(name, 3)}) == clean(family)


def test_all_of_them_at_once_change_no_text_either() -> None:
    settings = {name: VALUES.get(name, 3) for name in fields()}
    assert written("bart", **settings) == clean("bart")
    assert any(clean("bart"))


BITING = "bad_words_ids suppress_tokens stop_strings repetition_penalty".split()


@pytest.mark.parametrize("name", [*BITING, "penalty_alpha", "watermarking_config"])
def test_transformers_alone_would_follow_them(name: str) -> None:
    """Or raise; else the tests above would show nothing."""
    backbone = writer("bart")
    ids = torch.tensor([[20, 21, EOS]])
    options = {"max_new_tokens": TOKENS, "pad_token_id": PAD}
    plain = backbone.lm.generate(ids, **options).tolist()
    with with_own(backbone, **{name: VALUES[name]}):
        try:
            found = backbone.lm.generate(ids, **options).tolist()
        except ValueError:
            return
    assert found != plain


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["min_length", "min_new_tokens", "suppress_tokens"])
def test_a_text_ends_where_the_model_ends_it(family: str, name: str) -> None:
    value = [EOS] if name == "suppress_tokens" else 6
    assert one(family, (30, EOS), **{name: value}) == "w30"


# -- special tokens, which are no way of writing -----------------------------------------------


@contextmanager
def likely(backbone: Backbone, *tokens: int) -> Iterator[None]:
    """The n-th token written is by far most likely the n-th of these; then any."""
    step = iter(tokens)

    def favours(_module: Any, _args: Any, output: Any) -> Any:
        token = next(step, None)
        if token is not None:
            output.logits[:, -1, token] += 1000
        return output

    handle = backbone.lm.register_forward_hook(favours)
    try:
        yield
    finally:
        handle.remove()


def one(family: str, tokens: tuple[int, ...], limit: int = TOKENS, **settings: Any) -> str:
    """What is written of one text by a model that favours these tokens."""
    backbone = writer(family)
    example = Encoded(Ragged.of([[20, 21, 22]]), None, torch.zeros(1), PAD)
    with with_own(backbone, **settings), likely(backbone, *tokens):
        (text,) = generate(backbone.lm, example, writing(backbone), Generation(), limit)
    return text


@pytest.mark.parametrize("family", FAMILIES)
def test_a_last_token_is_not_forced_at_the_limit(family: str) -> None:
    assert one(family, (30, 31), 2, forced_eos_token_id=EOS) == "w30 w31"


def test_a_decoder_is_forced_to_no_first_token() -> None:
    """transformers would force it on prompts of one token."""
    backbone = writer("llama")
    example = Encoded(Ragged.of([[20]]), None, torch.zeros(1), PAD)
    with with_own(backbone, forced_bos_token_id=17), likely(backbone, 30, EOS):
        found = generate(backbone.lm, example, writing(backbone), Generation(), TOKENS)
    assert found == ["w30"]


def test_an_encoder_decoder_is_taught_the_first_token_that_it_is_forced_to_write() -> None:
    backbone = writer("bart")
    assert writing(backbone).write(["w30"]) == [[30, EOS]]
    with with_own(backbone, forced_bos_token_id=17):
        assert writing(backbone).write(["w30"]) == [[17, 30, EOS]]
    assert one("bart", (40, 30, EOS), forced_bos_token_id=17) == "w17 w30"


def test_a_ban_on_padding_stays_and_other_bans_go() -> None:
    """Marian's padding has logit 0, where every word's is below."""
    second_best = one("marian", ())
    assert one("marian", (PAD, PAD, PAD, PAD, PAD, PAD)) == ""
    banned = one("marian", (PAD,), bad_words_ids=[[PAD], [30]])
    assert banned.split()[0] == second_best.split()[0]
    assert one("marian", (30, EOS), bad_words_ids=[[PAD], [30]]) == "w30"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ends", [61, [62, 61]])
def test_writing_stops_at_the_tokenizers_end_and_at_the_models(
    family: str, ends: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token 61 ends a turn, say: nobody would be shown it, nor what follows."""
    tokenizer = writer(family).tokenizer
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", {61: "w61", 62: "w62"})
    assert one(family, (30, 61, 31, EOS), eos_token_id=ends) == "w30"
    assert one(family, (30, EOS, 31, 61), eos_token_id=ends) == "w30"
    assert one(family, (30, 31, EOS), eos_token_id=ends) == "w30 w31"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_word_that_a_stale_setting_calls_the_end_is_no_end(family: str) -> None:
    assert one(family, (30, 61, 31, EOS), eos_token_id=61) == "w30 w61 w31"


@pytest.mark.parametrize("setting", [-1, 10**6, [-1, EOS], [], True, "63", None])
def test_ends_and_padding_that_the_model_has_no_row_for_are_left_out(setting: Any) -> None:
    for family in FAMILIES:
        found = one(family, (30, EOS), eos_token_id=setting, pad_token_id=setting)
        assert found == "w30"
