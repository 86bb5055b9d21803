"""Texts written in padded batches are those that each example alone would get, without padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Training
from peftsearch.task.spec import Generation
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import encode_texts
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.frozen.states import Stopped
from peftsearch.training.objectives import generation
from peftsearch.training.objectives.generation import generate
from support.families import EOS, TINY
from support.perturbed import attached
from support.texts import (
    PAD,
    encoded,
    objective,
    run_of,
    twin,
    untuned,
    words,
    writer,
    writing,
)

FAMILIES = (
    "llama gpt2 opt qwen2 gpt_neox gemma bart mbart t5 marian mistral gemma2 gemma3_text phi3 "
    "falcon falcon-40b falcon-rw"
).split()
METHODS = ("nothing", "lora", "prefix", "prompt")
TOKENS = 6
VARIED = 2
"""No two words twice: models of random weights would else write one word for ever."""


@cache
def prompts() -> list[str]:
    """Of 2, 12, 1, 7 and 4 words: in no order of length."""
    draw = random.Random(1)
    return [words(*draw.choices(range(5, EOS), k=length)) for length in (2, 12, 1, 7, 4)]


def data(backbone: Backbone) -> Encoded:
    return encode_texts(Split(prompts(), None, ["w5"] * 5), writing(backbone), 20, 8)


@contextmanager
def tuned(backbone: Backbone, method: str) -> Iterator[None]:
    """With a method whose tuned tensors are far from where they begin."""
    if method == "nothing":
        yield
        return
    with attached(backbone, method):
        yield


def alone(lm: Any, backbone: Backbone, ids: list[int], **options: Any) -> str:
    """One text, written from its tokens by transformers. An mBART's decoder begins, as in training,
    with the end of text, whatever its config says.
    """
    given = torch.tensor([ids])
    if backbone.name == "mbart":
        options["decoder_start_token_id"] = EOS
    found = lm.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
        no_repeat_ngram_size=VARIED,
        **{"max_new_tokens": TOKENS, **options},
    )[0]
    begins = len(ids) if TINY[backbone.name].kind == "decoder" else 0
    return str(backbone.tokenizer.decode(found[begins:], skip_special_tokens=True)).strip()


def one_by_one(lm: Any, backbone: Backbone, **options: Any) -> list[str]:
    examples = data(backbone)
    return [alone(lm, backbone, examples.inputs.row(i).tolist(), **options) for i in range(5)]


def batched(backbone: Backbone, asked: Generation, max_tokens: int = TOKENS) -> list[str]:
    return generate(backbone.lm, data(backbone), writing(backbone), asked, max_tokens)


class Numbers:
    """Decodes to token ids, special ones among them."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def tokens(backbone: Backbone, asked: Generation, max_tokens: int = TOKENS) -> list[list[int]]:
    """What is written of each example before the end of text, or padding in its place."""
    numbers = replace(writing(backbone), target_tokenizer=Numbers())
    found = []
    for text in generate(backbone.lm, data(backbone), numbers, asked, max_tokens):
        ids = [int(number) for number in text.split()]
        found.append(ids[: ids.index(EOS)] if EOS in ids else ids)
    return found


@cache
def of_nothing(family: str, beams: int) -> list[str]:
    return batched(writer(family), Generation(beams=beams, no_repeat_ngram=VARIED))


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("family", "method"),
    [(f, m) for f in FAMILIES for m in METHODS if not (f.startswith("falcon") and m == "prefix")],
)
def test_a_padded_batch_is_written_as_one_by_one(family: str, method: str, beams: int) -> None:
    backbone = writer(family)
    with tuned(backbone, method):
        together = batched(backbone, Generation(beams=beams, no_repeat_ngram=VARIED))
        options = {"num_beams": beams, "early_stopping": beams > 1}
        assert together == one_by_one(backbone.lm, backbone, **options)
    assert len(set(together)) > 1, "one text for all would show no order"
    assert method == "nothing" or together != of_nothing(family, beams), "inert"


@pytest.mark.parametrize("family", ["llama", "opt", "bart", "t5"])
def test_with_nothing_attached_texts_are_those_of_transformers(family: str) -> None:
    assert of_nothing(family, 3) == one_by_one(
        twin(family).eval(), writer(family), num_beams=3, early_stopping=True
    )


def test_beams_find_other_texts_than_the_greedy_search() -> None:
    assert any(of_nothing(family, 1) != of_nothing(family, 3) for family in FAMILIES)


# -- order and limits --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "bart"])
def test_texts_come_in_the_order_of_the_data_whatever_the_batches(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 40 padded tokens a batch: several batches, the shortest texts first."""
    backbone, lengths = writer(family), []
    inner = backbone.lm.generate

    def noted(input_ids: torch.Tensor, **options: Any) -> Any:
        lengths.append(input_ids.shape[1])
        assert (input_ids.shape[1] + TOKENS) * len(input_ids) <= 40
        return inner(input_ids=input_ids, **options)

    together = of_nothing(family, 1)
    monkeypatch.setattr(generation, "_TOKENS", 40)
    monkeypatch.setattr(backbone.lm, "generate", noted)
    assert batched(backbone, Generation(no_repeat_ngram=VARIED)) == together
    assert len(lengths) > 1
    assert lengths == sorted(lengths)


def test_beams_count_among_a_batchs_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, sizes = writer("llama"), []
    inner = backbone.lm.generate

    def noted(input_ids: torch.Tensor, **options: Any) -> Any:
        sizes.append((input_ids.shape[1] + TOKENS) * len(input_ids) * 3)
        return inner(input_ids=input_ids, **options)

    monkeypatch.setattr(generation, "_TOKENS", 120)
    monkeypatch.setattr(backbone.lm, "generate", noted)
    batched(backbone, Generation(beams=3))
    assert len(sizes) > 1
    assert max(sizes) <= 120


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_an_evaluation_with_a_limit_writes_the_first_examples(family: str) -> None:
    backbone = writer(family)
    examples = encoded(backbone, 24)
    with run_of(backbone, Training()) as run:
        every, few = run.evaluate(examples), run.evaluate(examples, limit=5)
        losses = run.evaluate(examples, limit=5, predict=False)
        whole = run.evaluate(examples, predict=False)
    assert isinstance(every.predicted, list)
    assert few.predicted == every.predicted[:5]
    assert (few.examples, every.examples, losses.examples) == (5, 24, 5)
    assert losses.predicted is None
    assert losses.losses.tolist() == pytest.approx(whole.losses[:5].tolist(), rel=1e-10)


def test_where_texts_are_written_losses_are_of_the_first_few_and_metrics_of_all() -> None:
    backbone = writer("bart")
    examples = encoded(backbone, 80)
    own = objective(backbone, max_tokens=2)
    with untuned(backbone) as model:
        written, losses = own.evaluate(model, examples), own.evaluate(model, examples, False)
    assert (written.examples, len(written.losses), len(losses.losses)) == (80, 20, 80)
    assert written.losses.tolist() == pytest.approx(losses.losses[:20].tolist(), rel=1e-10)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "bart"])
def test_at_most_the_asked_for_tokens_are_written(family: str, beams: int) -> None:
    asked = Generation(beams=beams, max_tokens=3, no_repeat_ngram=VARIED)
    short = tokens(writer(family), asked, max_tokens=6)
    assert max(map(len, short)) == 3
    if beams == 1:
        free = Generation(no_repeat_ngram=VARIED)
        assert short == [ids[:3] for ids in tokens(writer(family), free)]


def test_the_limit_by_default_is_what_targets_are_cut_to() -> None:
    backbone = writer("llama")
    with untuned(backbone) as model:
        texts = objective(backbone, max_tokens=4).write(model, data(backbone))
    assert texts == batched(backbone, Generation(max_tokens=4))
    assert texts != batched(backbone, Generation(max_tokens=5))


@contextmanager
def always_ends(backbone: Backbone) -> Iterator[None]:
    """The end of text is by far the likeliest token."""

    def ends(_module: Any, _args: Any, output: Any) -> Any:
        output.logits[..., EOS] += 100
        return output

    handle = backbone.lm.register_forward_hook(ends)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "bart"])
def test_nothing_is_written_after_the_end_of_text_nor_the_end_before_the_minimum(
    family: str, beams: int
) -> None:
    backbone = writer(family)
    with always_ends(backbone):
        asked = Generation(beams=beams, no_repeat_ngram=VARIED)
        assert batched(backbone, asked) == [""] * 5
        longer = tokens(backbone, asked.model_copy(update={"min_tokens": 4}))
    assert list(map(len, longer)) == [4] * 5


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_run_of_words_is_repeated(size: int, beams: int) -> None:
    def repeats(ids: list[int]) -> bool:
        runs = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
        return len(set(runs)) < len(runs)

    backbone = writer("bart")
    free = tokens(backbone, Generation(beams=beams), 12)
    bound = tokens(backbone, Generation(beams=beams, no_repeat_ngram=size), 12)
    assert any(map(repeats, free)), "the limit has nothing to do here"
    assert not any(map(repeats, bound))


def test_a_length_penalty_decides_between_beams() -> None:
    """A text's score is its log-probability over its length to this power."""
    backbone = writer("bart")
    lengths = []
    for penalty in (-5.0, 5.0):
        asked = Generation(beams=3, length_penalty=penalty, no_repeat_ngram=VARIED)
        with likely_end(backbone):
            lengths.append(sum(map(len, tokens(backbone, asked))))
    assert lengths[0] < lengths[1]


@contextmanager
def likely_end(backbone: Backbone) -> Iterator[None]:
    def likelier(_module: Any, _args: Any, output: Any) -> Any:
        output.logits[..., EOS] += 2.5
        return output

    handle = backbone.lm.register_forward_hook(likelier)
    try:
        yield
    finally:
        handle.remove()


# -- what the model brings along ---------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "bart"])
def test_a_models_own_ways_of_writing_are_not_followed_and_not_changed(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = writer(family)
    own = generation_config_of(backbone, do_sample=True, temperature=2.0, top_k=7, num_beams=2)
    own.max_length, own.min_length, own.length_penalty = 4, 3, 3.0
    monkeypatch.setattr(backbone.lm, "generation_config", own)
    before = own.to_dict()
    assert batched(backbone, Generation(no_repeat_ngram=VARIED)) == of_nothing(family, 1)
    assert own.to_dict() == before


def generation_config_of(backbone: Backbone, **changes: Any) -> Any:
    config = type(backbone.lm.generation_config)(**backbone.lm.generation_config.to_dict())
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def test_a_forced_first_token_of_the_model_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may say in which language to write."""
    backbone = writer("mbart")
    own = generation_config_of(backbone, forced_bos_token_id=17)
    monkeypatch.setattr(backbone.lm, "generation_config", own)
    texts = batched(backbone, Generation())
    assert {text.split()[0] for text in texts} == {"w17"}


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_text_without_a_prompt_is_written_from_the_end_of_text(family: str) -> None:
    backbone = writer(family)
    empty = Encoded(Ragged.of([[]]), None, torch.zeros(1), PAD)
    asked = Generation(no_repeat_ngram=VARIED)
    (text,) = generate(backbone.lm, empty, writing(backbone), asked, TOKENS)
    assert text == alone(backbone.lm, backbone, [EOS])


@pytest.mark.parametrize("beams", [1, 3])
def test_a_tokenizer_without_padding_writes_the_same_texts(beams: int) -> None:
    bare = writer("llama", pads=False)
    examples = replace(data(bare), pad_id=0)
    asked = Generation(beams=beams, no_repeat_ngram=VARIED)
    texts = generate(bare.lm, examples, writing(bare), asked, TOKENS)
    assert texts == of_nothing("llama", beams)


def test_an_empty_data_set_has_no_texts() -> None:
    backbone = writer("llama")
    none = data(backbone).first(0)
    assert generate(backbone.lm, none, writing(backbone), Generation(), TOKENS) == []


def test_writing_ends_before_the_batch_at_which_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "_TOKENS", 1)  # each text is a batch
    backbone, begun, written = writer("gpt2"), [], []
    write = backbone.lm.generate
    monkeypatch.setattr(
        backbone.lm, "generate", lambda **given: written.append(1) or write(**given)
    )

    def before_batch() -> None:
        begun.append(1)
        if len(begun) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        generate(
            *(backbone.lm, data(backbone), writing(backbone), Generation(), TOKENS),
            before_batch=before_batch,
        )
    assert len(written) == 2
