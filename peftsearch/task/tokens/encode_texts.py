"""Tokens of tasks that write text: inputs (source or prompt) and targets.

An encoder-decoder reads the source and writes the target; a decoder continues a prompt with the
response. Targets end with the end of text, whether the tokenizer adds one or not, so that the model
learns where to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from peftsearch.errors import ConfigurationError
from peftsearch.task.spec import TEXT
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import Encoded, blank_of
from peftsearch.task.tokens.token_cache import Chunk, cached_tokens, tokenizer_hash
from peftsearch.wording import counted

__all__ = ["Writing", "encode_texts"]


@dataclass(frozen=True)
class Writing:
    """Rules for reading and writing texts: tokenizers, template and special tokens. `is_decoder` is
    True for a single stack that continues its prompt.
    """

    tokenizer: Any
    target_tokenizer: Any
    is_decoder: bool
    template: str | None = None
    start_id: int | None = None
    """First token of an encoder-decoder's decoder."""
    end_id: int | None = None
    """End of text; targets end with it."""
    ends: tuple[int, ...] = ()
    """Further tokens that stop generation: the model's own ends of text."""
    first_id: int | None = None
    """Token that an encoder-decoder is forced to write first; targets begin with it."""
    padding_id: int = 0
    """Padding of generated texts to the longest of their batch."""
    never_padding: bool = False
    """True where the model must not generate the padding token."""

    def filled(self, text: str) -> str:
        """A text in the template; by default the text, with a line break for decoders."""
        if self.is_decoder and not text:
            return ""
        return self.whole_template.replace(TEXT, text)

    @property
    def whole_template(self) -> str:
        return self.template or (f"{TEXT}\n" if self.is_decoder else TEXT)

    @property
    def tail(self) -> int:
        """Number of tokens at an input's end that are never cut: template and special tokens."""
        suffix = self.whole_template.partition(TEXT)[2]
        probe = self.read([f"a{suffix}"])[0]
        special = {*self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id}
        ends = next((i for i, t in enumerate(reversed(probe)) if t not in special), 0)
        return ends + len(self.tokenizer(suffix, add_special_tokens=False)["input_ids"])

    @property
    def around(self) -> int:
        """Number of input tokens that are not of the text: the template's and special ones."""
        return len(self.read([self.whole_template.replace(TEXT, "")])[0])

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of filled templates, uncut."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), return_attention_mask=False)["input_ids"]
        return [self._open_ended(ids) for ids in found] if self.is_decoder else found

    def _open_ended(self, ids: list[int]) -> list[int]:
        """A prompt without the tokenizer's end of text."""
        return ids[:-1] if ids and ids[-1] == self.end_id and self.end_id is not None else ids

    def write(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of targets with the end of text, uncut, and without the decoder's first token,
        which the model adds.
        """
        if not texts:
            return []
        if self.is_decoder:
            found = self.target_tokenizer(
                list(texts), add_special_tokens=False, return_attention_mask=False
            )["input_ids"]
            return [[*ids, *self._end()] for ids in found]
        found = self._targets(list(texts))
        before, after = self._around
        start = 1 if before and before[0] == self.start_id else 0
        forced = [] if self.first_id is None else [self.first_id]
        first = [] if forced == before[start : start + 1] else forced
        end = [] if {*after} & {*self.all_ends} else self._end()
        return [[*first, *ids[start:], *end] for ids in found]

    @property
    def target_tail(self) -> int:
        """Tokens at the end of a target that are never cut: an encoder-decoder's end of text."""
        if self.is_decoder:
            return 0
        after = self._around[1]
        return len(after) + (0 if {*after} & {*self.all_ends} else len(self._end()))

    @property
    def shortest_target(self) -> int:
        """Number of tokens from which a cut target keeps some of its text."""
        return 1 if self.is_decoder else 1 + len(self.write([""])[0])

    def _end(self) -> list[int]:
        return [] if self.end_id is None else [self.end_id]

    @property
    def closing(self) -> list[int]:
        """Special tokens that the tokenizer adds after a target."""
        return self._around[1]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Special tokens that the tokenizer adds before and after a target."""
        for text in ("a", "1", "."):
            (whole,), (bare,) = self._targets([text]), self._targets([text], special=False)
            for first in range(len(whole) - len(bare) + 1):
                end = first + len(bare)
                if bare and whole[first:end] == bare:
                    return whole[:first], whole[end:]
        (whole,) = self._targets([""])
        return whole[:1], whole[1:]

    def _targets(self, texts: list[str], special: bool = True) -> list[list[int]]:
        options = {"return_attention_mask": False, "add_special_tokens": special}
        if self.target_tokenizer is self.tokenizer:
            return self.tokenizer(text_target=texts, **options)["input_ids"]  # type: ignore[no-any-return]
        return self.target_tokenizer(texts, **options)["input_ids"]  # type: ignore[no-any-return]

    @cached_property
    def all_ends(self) -> tuple[int, ...]:
        """Every token that ends a text."""
        return tuple(dict.fromkeys([*self._end(), *self.ends]))

    @cached_property
    def blank(self) -> int:
        """The token that stands for a text without tokens: end of text."""
        if self.is_decoder and self.end_id is not None:
            return self.end_id
        return blank_of(self.tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """The generated text up to its end, without special tokens and without an encoder-decoder's
        first token, which it is given.
        """
        begins = 0 if self.is_decoder else 1
        searched = begins + (0 if self.first_id is None else 1)
        last = (i for i in range(searched, len(ids)) if ids[i] in self.all_ends)
        own = ids[begins : next(last, len(ids))]
        text: str = self.target_tokenizer.decode(own, skip_special_tokens=True)
        return text.strip()


def encode_texts(split: Split, writing: Writing, max_length: int, max_target: int) -> Encoded:
    """Tokenise sources and targets, cut to `max_length` and `max_target` tokens. A source that is
    too long loses the end of its text, never that of the template; a target loses its end, but an
    encoder-decoder's end of text is kept. ConfigurationError if the template leaves no room.

    Returns n examples for a split of n, with `written`.
    """
    tail = writing.tail
    if tail >= max_length:
        raise ConfigurationError(
            f"texts of {counted(max_length, 'token')} have no room beside the template's {tail}: "
            "raise --max-length, or shorten --template"
        )
    kept = writing.target_tail

    def make(first: int, end: int) -> Chunk:
        part = split.between(first, end)
        sources = writing.read([writing.filled(text) for text in part.texts])
        targets = writing.write([str(text) for text in part.targets])
        truncated = sum(len(ids) > max_length for ids in sources)
        truncated += sum(len(ids) > max_target for ids in targets)
        read = [_cut(ids, max_length, tail) for ids in sources]
        written = [_cut(ids, max_target, kept) for ids in targets]
        return Chunk(
            {"inputs": _never_blank(read, written, writing), "written": written}, truncated
        )

    columns, truncated = cached_tokens(
        len(split), make, lambda: _key(split, writing, max_length, max_target)
    )
    return Encoded(
        inputs=columns["inputs"],
        types=None,
        labels=torch.zeros(len(split), dtype=torch.int64),
        pad_id=int(writing.tokenizer.pad_token_id or 0),
        written=columns["written"],
        truncated=truncated,
        again=lambda indices: encode_texts(split.take(indices), writing, max_length, max_target),
    )


def _never_blank(
    read: list[list[int]], written: list[list[int]], writing: Writing
) -> list[list[int]]:
    """Inputs, with an end of text in place of empty ones. A decoder's input may be empty where the
    target has tokens: it learns to continue from the first of them.
    """
    pairs = zip(read, written, strict=True)
    return [
        ids or ([] if writing.is_decoder and target else [writing.blank]) for ids, target in pairs
    ]


def _key(split: Split, writing: Writing, max_length: int, max_target: int) -> dict[str, Any]:
    """Everything that the tokens depend on, for the cache."""
    return {
        "texts": split.digest(with_targets=True),
        "lengths": [max_length, max_target],
        "tokenizers": [tokenizer_hash(t) for t in (writing.tokenizer, writing.target_tokenizer)],
        "writing": [
            *(writing.is_decoder, writing.whole_template, writing.start_id, writing.end_id),
            *(writing.first_id, writing.blank),
        ],
    }


def _cut(ids: list[int], length: int, tail: int) -> list[int]:
    """At most `length` ids, of which the last `tail` are kept."""
    if len(ids) <= length:
        return ids
    return [*ids[: length - tail], *(ids[-tail:] if tail else [])]
