"""Tokens on disk: the same as in memory, made once, whole or not there, and within a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from peftsearch.task.split import Split
from peftsearch.task.tokens import token_cache
from peftsearch.task.tokens.encode import Encoded, encode
from peftsearch.task.tokens.encode_texts import Writing, encode_texts
from peftsearch.task.tokens.token_cache import CACHE, Chunk, cached_tokens, tokenizer_hash
from support.tiny import sentiment_rows

TEXTS = tuple(row["text"] for row in sentiment_rows(100))
LABELS = np.arange(100) % 2


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, used for every split, in chunks of 30 examples."""
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(token_cache, "WORTHWHILE", 50)
    monkeypatch.setattr(token_cache, "CHUNK", 30)
    return tmp_path / "cache" / "tokens"


def same(one: Encoded, other: Encoded) -> None:
    assert one.inputs.flat.dtype == other.inputs.flat.dtype == torch.int32
    for first, second in ((one.inputs, other.inputs), (one.written, other.written)):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert first.flat.tolist() == second.flat.tolist()
            assert first.offsets.tolist() == second.offsets.tolist()
    assert (one.types is None) == (other.types is None)
    if one.types is not None and other.types is not None:
        assert one.types.tolist() == other.types.tolist()
    assert one.truncated == other.truncated


@pytest.mark.parametrize("pairs", [None, TEXTS[::-1]])
@pytest.mark.parametrize("mapped", [False, True])
def test_tokens_from_the_disk_are_those_made_in_memory(
    pairs: tuple[str, ...] | None,
    mapped: bool,
    cache: Path,
    tiny_bert: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_cache, "IN_MEMORY", 0 if mapped else 2**30)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    split = Split(TEXTS, pairs, LABELS)
    first, second = encode(split, tokenizer, 12), encode(split, tokenizer, 12)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(token_cache, "WORTHWHILE", 10**9)
    plain = encode(split, tokenizer, 12)
    same(first, plain)
    same(second, plain)
    assert plain.truncated > 0
    batch = second.batch(np.array([3, 0, 99]))
    assert batch["input_ids"].tolist() == plain.batch(np.array([3, 0, 99]))["input_ids"].tolist()


def test_texts_to_be_written_are_kept_too(cache: Path, tiny_bart: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bart)
    writing = Writing(tokenizer, tokenizer, is_decoder=False, start_id=2, end_id=2)
    split = Split(TEXTS, None, TEXTS[::-1])
    first = encode_texts(split, writing, 10, 5)
    same(first, encode_texts(split, writing, 10, 5))
    assert len(list(cache.iterdir())) == 1
    other = Split(TEXTS, None, TEXTS)
    assert encode_texts(other, writing, 10, 5).written is not None
    assert len(list(cache.iterdir())) == 2


def test_another_length_text_or_tokenizer_is_another_entry(
    cache: Path, tiny_bert: Path, tiny_roberta: Path
) -> None:
    bert, roberta = (AutoTokenizer.from_pretrained(m) for m in (tiny_bert, tiny_roberta))
    split, other = Split(TEXTS, None, LABELS), Split((*TEXTS[:-1], "new"), None, LABELS)
    for tokens in ((split, bert, 12), (split, bert, 13), (other, bert, 12), (split, roberta, 12)):
        encode(*tokens)
    assert len(list(cache.iterdir())) == 4
    encode(Split(TEXTS, None, 1 - LABELS), bert, 12)  # labels are no tokens
    assert len(list(cache.iterdir())) == 4


def test_a_tokenizer_is_the_same_whatever_it_was_last_asked_to_cut_to(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    before = tokenizer_hash(tokenizer)
    tokenizer(list(TEXTS), truncation=True, max_length=5, padding=True)
    assert tokenizer_hash(tokenizer) == before


def numbers(first: int, end: int) -> Chunk:
    return Chunk({"inputs": [[i] * (i % 4) for i in range(first, end)]}, 0)


def key(**facts: Any) -> Any:
    return lambda: facts


@pytest.mark.parametrize("file", ["inputs.bin", "inputs.offsets.npy", "entry.json"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"{"])
def test_a_damaged_entry_is_made_again(file: str, content: bytes, cache: Path) -> None:
    whole, _ = cached_tokens(100, numbers, key(a=1))
    (entry,) = cache.iterdir()
    (entry / file).write_bytes(content)
    again, _ = cached_tokens(100, numbers, key(a=1))
    assert again["inputs"].flat.tolist() == whole["inputs"].flat.tolist()
    assert json.loads((entry / "entry.json").read_text())["count"] == 100


def test_a_chunk_that_fails_leaves_nothing_behind(cache: Path) -> None:
    def fails(first: int, end: int) -> Chunk:
        if first:
            raise RuntimeError("a bug")
        return numbers(first, end)

    with pytest.raises(RuntimeError, match="a bug"):
        cached_tokens(100, fails, key(a=1))
    assert list(cache.iterdir()) == []


def test_what_cannot_be_written_stays_in_memory(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    found, _ = cached_tokens(100, numbers, key(a=1))
    assert found["inputs"].lengths.tolist() == [i % 4 for i in range(100)]


def test_what_was_used_longest_ago_goes_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for age, name in enumerate("abc"):
        cached_tokens(100, numbers, key(name=name))
        newest = max(cache.iterdir(), key=lambda p: p.stat().st_ctime_ns)
        os.utime(newest / "entry.json", (1000 - age, 1000 - age))
    by_age = sorted(cache.iterdir(), key=lambda p: (p / "entry.json").stat().st_mtime)
    monkeypatch.setenv("PEFTSEARCH_CACHE_GB", str(3.5 * CACHE.bytes / 3 / 1e9))
    cached_tokens(100, numbers, key(name="d"))
    left = set(cache.iterdir())
    assert by_age[0] not in left
    assert {by_age[1], by_age[2]} < left
    assert CACHE.folder == cache


def test_few_examples_are_not_worth_a_file(cache: Path) -> None:
    cached_tokens(49, numbers, key(a=1))
    assert not cache.exists()
