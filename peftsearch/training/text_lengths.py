"""Maximum text lengths: the model's positions less prompts, templates and special tokens."""

from __future__ import annotations

from peftsearch.backbone.loading.load import Backbone
from peftsearch.errors import ConfigurationError
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode_texts import Writing

__all__ = ["max_text_tokens", "max_text_tokens_beside", "refuse_no_room"]


def max_text_tokens(backbone: Backbone, with_prompts: bool) -> int:
    """Maximum tokens of a text. The longest prompt takes positions of the model, but does not count
    towards the tokenizer's limit.
    """
    return min(backbone.max_length, positions_left(backbone, with_prompts))


def positions_left(backbone: Backbone, with_prompts: bool) -> int:
    """Positions of the model, less the longest prompt's."""
    return backbone.positions - (backbone.shapes.longest_prompt if with_prompts else 0)


def max_text_tokens_beside(
    target: int, written: int, backbone: Backbone, writing: Writing, with_prompts: bool
) -> int:
    """Maximum tokens of a text beside targets of `target` tokens and generation of up to `written`
    (0: as many as targets): a decoder reads and generates in one sequence.

    Raises ConfigurationError if nothing is left.
    """
    room, positions = max_text_tokens(backbone, with_prompts), backbone.positions
    if writing.is_decoder:
        positions = positions_left(backbone, with_prompts)
    if written > positions - writing.is_decoder:
        raise ConfigurationError(
            f"the model's {positions} positions have no room for {written} tokens to be written: "
            "lower max_tokens"
        )
    left = min(room - target, positions - written) if writing.is_decoder else room
    if left < 1:
        raise ConfigurationError(
            f"targets of {target} tokens leave no room for texts in the model's {room} positions: "
            "lower --max-target"
        )
    return left


def refuse_no_room(
    length: int, split: Split, backbone: Backbone, writing: Writing | None, flag: str
) -> None:
    """Raise ConfigurationError if cutting to `length` tokens leaves nothing of a text; `flag`: the
    option that the message says to increase.
    """
    if writing is None:
        around, of_what = _added(backbone, split), "the tokenizer's special tokens"
    elif any(split.texts):
        around, of_what = writing.around, "the template and special tokens"
    else:  # a decoder's texts without prompts
        return
    if length <= around:
        raise ConfigurationError(
            f"a length of {length} leaves no room for a word: {of_what} of '{backbone.name}' take "
            f"{around}; raise {flag}, or take a model that reads longer texts"
        )


def _added(backbone: Backbone, split: Split) -> int:
    """Tokens that the tokenizer adds to a text, or to a pair of texts."""
    nothing = [[""]] * (1 if split.pairs is None else 2)
    return len(backbone.tokenizer(*nothing)["input_ids"][0])
