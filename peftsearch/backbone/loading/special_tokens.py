"""Special tokens of a language model: start, forced first token, ends of text and padding.

They stand in up to three places (tokenizer, config.json, generation_config.json), which disagree in
many checkpoints. Training and writing both take them from here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peftsearch.errors import MissingError

__all__ = ["SpecialTokens", "complete_special_tokens", "special_tokens"]


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens around the texts that a language model writes."""

    start: int | None = None
    """The first token that an encoder-decoder's decoder reads."""
    first: int | None = None
    """The first token that an encoder-decoder writes, whatever it reads: BART's beginning of text,
    or a language.
    """
    end: int | None = None
    """The token that training targets end with; None where neither tokenizer nor settings name
    one.
    """
    ends: tuple[int, ...] = ()
    """Tokens that end a written text: `end`, and the model's own EOS ids."""
    padding: int = 0
    """The token that fills up a batch."""
    never_padding: bool = False
    """Whether the model's settings forbid it to write padding (Marian's logits favour it)."""
    plain_words: tuple[int, ...] = ()
    """EOS ids in the settings that are ordinary tokens in this tokenizer, and so ignored."""


def special_tokens(lm: Any, tokenizer: Any) -> SpecialTokens:
    """The special tokens of a language model whose texts `tokenizer` writes."""
    settings = (lm.generation_config, lm.config)
    is_encoder_decoder = bool(lm.config.is_encoder_decoder)
    own = [*dict.fromkeys(i for s in settings for i in _ids(lm, s, "eos_token_id"))]
    taught = tokenizer.eos_token_id
    words = () if taught is None else _plain_words(own, tokenizer)
    first = next((i for s in settings for i in _ids(lm, s, "forced_bos_token_id")), None)
    first = first if is_encoder_decoder else None
    ends = [i for i in own if i not in words and i != first]
    ends = ends if taught is None else [*dict.fromkeys([taught, *ends])]
    padding = next(_named(lm, tokenizer, "pad_token_id"), ends[0] if ends else 0)
    return SpecialTokens(
        start=next(iter(_ids(lm, lm.config, "decoder_start_token_id")), None),
        first=first,
        end=ends[0] if ends else None,
        ends=tuple(ends),
        padding=padding,
        never_padding=padding not in ends and padding in _banned(lm.generation_config),
        plain_words=words,
    )


def complete_special_tokens(lm: Any, tokenizer: Any, name: str) -> None:
    """Fill in an encoder-decoder's padding and decoder start token where its config.json has none.

    The decoder starts with the generation settings' token, else padding, else beginning of text.
    Raises MissingError where none of them is set, or where the model has no row for it.
    """
    config, rows = lm.config, _rows(lm)
    start = config.decoder_start_token_id
    if start is None:
        own = _ids(lm, lm.generation_config, "decoder_start_token_id")[:1]
        paddings, beginnings = (
            _named(lm, tokenizer, f"{short}_token_id") for short in ("pad", "bos")
        )
        start = next(itertools.chain(own, paddings, beginnings), None)
    if start is None:
        raise MissingError(
            f"model '{name}' names no decoder start token and no padding token: add "
            "decoder_start_token_id to its config.json"
        )
    if not 0 <= start < rows:
        raise MissingError(
            f"the decoder of '{name}' begins with token {start:,} (decoder_start_token_id of its "
            f"config.json), but the model has {rows:,} tokens: get a complete copy of it"
        )
    config.decoder_start_token_id = start
    if not _ids(lm, config, "pad_token_id"):
        config.pad_token_id = next(_named(lm, tokenizer, "pad_token_id"), 0)


def _rows(lm: Any) -> int:
    """Number of rows of the table of token embeddings."""
    return int(lm.get_input_embeddings().weight.shape[0])


def _ids(lm: Any, settings: Any, key: str) -> list[int]:
    """The token ids of a setting, which is one or a list, that the model has rows for."""
    value = getattr(settings, key, None)
    values = _listed(value) or [value]
    known = range(_rows(lm))
    return [i for i in values if isinstance(i, int) and not isinstance(i, bool) and i in known]


def _named(lm: Any, tokenizer: Any, key: str) -> Iterator[int]:
    """Yields the first valid id for `key` in generation config, tokenizer and config."""
    for place in (lm.generation_config, tokenizer, lm.config):
        yield from _ids(lm, place, key)[:1]


def _plain_words(own: list[int], tokenizer: Any) -> tuple[int, ...]:
    """EOS ids that are ordinary words in this tokenizer (usually config defaults left over from
    another vocabulary). Bracketed tokens such as `<|im_end|>` are never ordinary.
    """
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
    plain = [i for i in own if i not in special]
    return tuple(i for i in plain if not _bracketed(str(tokenizer.convert_ids_to_tokens(i))))


def _bracketed(token: str) -> bool:
    """Whether a token is written `<…>` or `[…]`."""
    return len(token) > 2 and token[0] + token[-1] in ("<>", "[]")


def _banned(settings: Any) -> set[int]:
    """The single tokens that a model's settings forbid it to write."""
    words = _listed(getattr(settings, "bad_words_ids", None))
    alone = [word[0] for word in map(_listed, words) if len(word) == 1]
    return {*alone, *_listed(getattr(settings, "suppress_tokens", None))}


def _listed(value: Any) -> list[Any]:
    """A list or tuple as a list; anything else as an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []
