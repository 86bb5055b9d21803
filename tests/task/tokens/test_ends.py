"""The end of text: every target has one, where the tokenizer writes it and where it does not."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from peftsearch.task.split import Split
from peftsearch.task.tokens.encode_texts import Writing, encode_texts

PAD, BOS, EOS, UNK, LANGUAGE = range(5)
WORDS = [f"w{n}" for n in range(5, 20)]
SPECIAL = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "<unk>": UNK, "xx_XX": LANGUAGE}


def tokenizer(template: str | None, **options: Any) -> Any:
    """`$A` is the text; words that it does not know, such as "a", become `<unk>`."""
    vocabulary = SPECIAL | {word: n for n, word in enumerate(WORDS, 5)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        inner.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=list(SPECIAL.items())
        )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names | options)


def writing(template: str | None, is_decoder: bool = False, **options: Any) -> Writing:
    own = tokenizer(template)
    return Writing(own, own, is_decoder, **{"start_id": EOS, "end_id": EOS} | options)


TARGETS = {
    None: [7, 8, EOS],
    "$A </s>": [7, 8, EOS],
    "<s> $A </s>": [BOS, 7, 8, EOS],
    "<s> $A": [BOS, 7, 8, EOS],
    "$A </s> xx_XX": [7, 8, EOS, LANGUAGE],  # mBART's
    "xx_XX $A </s>": [LANGUAGE, 7, 8, EOS],  # NLLB's
    "</s> $A </s>": [7, 8, EOS],  # begins as the decoder does
}


@pytest.mark.parametrize("template", TARGETS)
def test_a_target_ends_once_whatever_the_tokenizer_writes(template: str | None) -> None:
    assert writing(template).write(["w7 w8"]) == [TARGETS[template]]


@pytest.mark.parametrize("template", TARGETS)
def test_a_target_that_is_cut_keeps_its_end(template: str | None) -> None:
    own, whole = writing(template), TARGETS[template]
    long = Split(["w9"], None, ["w7 w8 w10 w11 w12"])
    examples = encode_texts(long, own, 8, len(whole))
    assert examples.written is not None
    assert examples.written.row(0).tolist() == whole
    assert own.shortest_target == len(whole) - 1


def test_a_target_without_an_end_keeps_the_beginning_of_its_text() -> None:
    own = writing(None, end_id=None)
    examples = encode_texts(Split(["w9"], None, ["w7 w8 w10"]), own, 8, 2)
    assert examples.written is not None
    assert examples.written.row(0).tolist() == [7, 8]


def test_a_source_that_is_cut_keeps_its_end_where_the_tokenizer_knows_no_a() -> None:
    examples = encode_texts(Split(["w7 w8 w9 w10"], None, ["w7"]), writing("<s> $A </s>"), 4, 4)
    assert examples.inputs.row(0).tolist() == [BOS, 7, 8, EOS]


@pytest.mark.parametrize("template", [None, "<s> $A"])
def test_a_tokenizer_of_the_targets_own_ends_them_too(template: str | None) -> None:
    own = Writing(tokenizer("$A </s>"), tokenizer(template), False, start_id=BOS, end_id=EOS)
    assert own.write(["w7 w8"]) == [[7, 8, EOS]]
    assert own.read(["w7"]) == [[7, EOS]]


def test_a_text_is_read_up_to_its_first_end_and_without_the_decoders_beginning() -> None:
    own = writing(None, ends=(15, 16))
    assert own.decode([EOS, 7, 8, EOS, 9]) == "w7 w8"
    assert own.decode([EOS, 7, 16, 8, EOS]) == "w7"
    assert own.decode([9, 7, 8]) == "w7 w8"
    assert writing(None, is_decoder=True, ends=(15, 16)).decode([7, 15, 8]) == "w7"
    forced = writing(None, first_id=EOS)
    assert forced.decode([EOS, EOS, 7, EOS]) == "w7"


# -- texts without a token ------------------------------------------------------------------------


def test_an_encoder_reads_the_end_of_text_where_a_source_has_no_token() -> None:
    examples = encode_texts(Split(["", "w7"], None, ["w7", "w8"]), writing(None), 8, 8)
    assert [examples.inputs.row(i).tolist() for i in (0, 1)] == [[EOS], [7]]


def test_a_decoder_reads_the_end_of_text_where_neither_prompt_nor_target_has_a_token() -> None:
    own = writing(None, is_decoder=True, end_id=None)
    examples = encode_texts(Split(["", ""], None, ["", "w8"]), own, 8, 8)
    assert examples.written is not None
    assert [examples.inputs.row(i).tolist() for i in (0, 1)] == [[EOS], []]
    assert examples.written.row(0).tolist() == []
