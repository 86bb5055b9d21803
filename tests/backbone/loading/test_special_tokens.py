"""Special tokens from three places: the one that counts where they disagree or say nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import processors

from peftsearch.backbone.loading.language import prepare_language_model
from peftsearch.backbone.loading.special_tokens import complete_special_tokens, special_tokens
from peftsearch.errors import MissingError
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.objectives.generation import generate
from peftsearch.training.objectives.texts import _model_inputs as given_of
from peftsearch.training.writing import end_of_text_notes, writing_of
from support.families import EOS
from support.texts import BOS, PAD, encoded, twin, writer

pytestmark = pytest.mark.internals

ROWS = 64
ENCODER_DECODERS = ("bart", "mbart", "marian", "pegasus", "t5", "mt5", "m2m_100")


class Table:
    weight = torch.zeros(ROWS, 1)


def model(is_encoder_decoder: bool = True, own: Any = None, **config: Any) -> Any:
    """A language model of which only settings are known; `own` are those of generation."""
    names = "decoder_start_token_id pad_token_id bos_token_id eos_token_id".split()
    return SimpleNamespace(
        config=SimpleNamespace(
            **dict.fromkeys(names) | config, is_encoder_decoder=is_encoder_decoder
        ),
        generation_config=SimpleNamespace(**(own or {})),
        get_input_embeddings=Table,
    )


def tokens(eos: int | None = 1, pad: int | None = 0, special: tuple[int, ...] = (0, 1)) -> Any:
    """A tokenizer whose other tokens are written as their numbers, 60 as a turn's end."""
    return SimpleNamespace(
        eos_token_id=eos,
        pad_token_id=pad,
        all_special_ids=list(special),
        convert_ids_to_tokens=lambda i: "<|im_end|>" if i == 60 else f"▁{i}",
    )


@pytest.mark.parametrize(
    ("own", "config", "tokenizer", "ends"),
    [
        ({}, {}, tokens(), (1,)),
        ({"eos_token_id": [2, 3]}, {}, tokens(special=(1, 2, 3)), (1, 2, 3)),
        ({}, {"eos_token_id": [2, 3]}, tokens(special=(1, 2, 3)), (1, 2, 3)),
        ({"eos_token_id": 2}, {"eos_token_id": 3}, tokens(special=(1, 2, 3)), (1, 2, 3)),
        ({"eos_token_id": [3, 1, 3]}, {"eos_token_id": 1}, tokens(special=(1, 3)), (1, 3)),
        ({"eos_token_id": 60}, {}, tokens(), (1, 60)),  # bracketed, if not called special
        ({"eos_token_id": 7}, {"eos_token_id": 1}, tokens(), (1,)),  # a plain word
        ({"eos_token_id": 7}, {"eos_token_id": 8}, tokens(eos=None), (7, 8)),
        ({"eos_token_id": [64, -1]}, {"eos_token_id": 99}, tokens(eos=None), ()),
        ({}, {}, tokens(eos=None), ()),
    ],
)
def test_ends_are_those_of_tokenizer_config_and_generation(
    own: dict[str, Any], config: dict[str, Any], tokenizer: Any, ends: tuple[int, ...]
) -> None:
    found = special_tokens(model(own=own, **config), tokenizer)
    assert found.ends == ends
    assert found.end == (ends[0] if ends else None)


@pytest.mark.parametrize(
    ("own", "config", "pad", "start"),
    [
        ({"decoder_start_token_id": 9}, {"decoder_start_token_id": 5}, 0, 5),
        ({"decoder_start_token_id": 9}, {"bos_token_id": 2}, 0, 9),
        ({"pad_token_id": 4}, {"bos_token_id": 2}, 0, 4),
        ({}, {"bos_token_id": 2}, 0, 0),
        ({}, {"pad_token_id": 3, "bos_token_id": 2}, None, 3),
        ({"decoder_start_token_id": 99}, {"bos_token_id": 2}, None, 2),
    ],
)
def test_a_decoder_begins_as_config_generation_padding_or_beginning_say(
    own: dict[str, Any], config: dict[str, Any], pad: int | None, start: int
) -> None:
    lm = model(own=own, **config)
    complete_special_tokens(lm, tokens(pad=pad), "m")
    assert lm.config.decoder_start_token_id == start
    assert lm.config.pad_token_id is not None


def test_a_decoder_that_begins_with_nothing_or_with_an_unknown_token_is_refused() -> None:
    with pytest.raises(MissingError, match="'m' names no decoder start token"):
        complete_special_tokens(model(), tokens(pad=None), "m")
    with pytest.raises(MissingError, match=r"begins with token 64 .* but the model has 64"):
        complete_special_tokens(model(decoder_start_token_id=64), tokens(), "m")


# -- in models -----------------------------------------------------------------------------------


def example() -> Encoded:
    return Encoded(Ragged.of([[20, 21, EOS]]), None, torch.zeros(1), PAD, Ragged.of([[30, EOS]]))


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_writing_begins_with_what_training_begins_with(family: str) -> None:
    """What the decoder reads first, seen in its forward, here and there."""
    backbone = writer(family)
    taught = given_of(backbone.lm, example(), np.arange(1), False).tensors["decoder_input_ids"]
    read: list[int] = []
    decoder = backbone.model.get_submodule(backbone.family.stacks[1].module)
    handle = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(int(kwargs["input_ids"][0, 0])), with_kwargs=True
    )
    try:
        generate(backbone.lm, example(), writing_of(backbone, TaskSpec()), Generation(), 1)
    finally:
        handle.remove()
    assert read == [int(taught[0, 0])]
    assert read == [EOS if family == "mbart" else BOS]


@pytest.mark.parametrize("missing", ["decoder_start_token_id", "pad_token_id", "both"])
@pytest.mark.parametrize("family", [f for f in ENCODER_DECODERS if f != "marian"])
def test_a_model_that_says_not_what_its_decoder_begins_with_is_trained_from_padding(
    family: str, missing: str
) -> None:
    names = ["decoder_start_token_id", "pad_token_id"] if missing == "both" else [missing]
    lm, tokenizer = twin(family), writer(family).tokenizer
    for name in names:
        setattr(lm.config, name, None)
        setattr(lm.generation_config, name, None)
    prepare_language_model(lm, None, tokenizer)
    given = given_of(lm, encoded(writer(family), 4), np.arange(4), False)
    start = PAD if "decoder_start_token_id" in names else BOS
    if family != "mbart":
        assert set(given.tensors["decoder_input_ids"][:, 0].tolist()) == {start}
    with torch.no_grad():
        assert lm(**given.tensors, use_cache=False).logits.isfinite().all()


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_a_tokenizer_that_closes_texts_and_names_no_end_ends_them_with_what_closes_them(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT's, with [SEP]: prompts are open, targets are closed, and writing stops there."""
    backbone = writer(family)
    for settings in (backbone.lm.config, backbone.lm.generation_config):
        monkeypatch.setattr(settings, "eos_token_id", None)
    closing = copy.deepcopy(backbone.tokenizer)
    closing.eos_token = None
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <sep>", special_tokens=[("<s>", BOS), ("<sep>", 3)]
    )
    own = writing_of(
        replace(backbone, tokenizer=closing, target_tokenizer=closing), TaskSpec(template="{text}")
    )
    assert own.all_ends == (3,)
    closed = [20, 3] if own.is_decoder else [BOS, 20, 3]
    assert own.write(["w20"]) == [closed if own.start_id != BOS else [20, 3]]
    assert own.read(["w20"]) == [[BOS, 20] if own.is_decoder else [BOS, 20, 3]]


def test_what_a_user_should_know_of_ends_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = writer("llama")
    assert list(end_of_text_notes(backbone, writing_of(backbone, TaskSpec()))) == []
    monkeypatch.setattr(backbone.lm.generation_config, "eos_token_id", 30)
    (note,) = end_of_text_notes(backbone, writing_of(backbone, TaskSpec()))
    assert note.startswith("'w30' is an end of text in the settings of 'llama', but an ordinary")
    monkeypatch.setattr(backbone.lm.generation_config, "eos_token_id", None)
    monkeypatch.setattr(backbone.lm.config, "eos_token_id", None)
    endless = copy.deepcopy(backbone.tokenizer)
    endless.eos_token = None
    backbone = replace(backbone, tokenizer=endless, target_tokenizer=endless)
    (note,) = end_of_text_notes(backbone, writing_of(backbone, TaskSpec()))
    assert note.startswith("'llama' has no end-of-text token")
