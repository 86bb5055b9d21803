"""Choosing the lengths that a task's texts are cut to, from a sample of its training texts."""

from __future__ import annotations

from dataclasses import dataclass

from peftsearch.backbone.loading.load import Backbone
from peftsearch.errors import ConfigurationError
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.task import Task
from peftsearch.task.tokens.encode import Encoded, choose_max_length, encode
from peftsearch.task.tokens.encode_texts import Writing, encode_texts
from peftsearch.training.text_lengths import max_text_tokens, max_text_tokens_beside, refuse_no_room

__all__ = ["MAX_SAMPLE", "Lengths", "choose_lengths"]

MAX_SAMPLE = 10_000
"""Most training examples to choose lengths from."""


@dataclass(frozen=True)
class Lengths:
    """Tokens that texts and target texts are cut to; `target`: 0 if a task has no target texts."""

    text: int
    target: int = 0


def choose_lengths(
    task: Task, backbone: Backbone, writing: Writing | None, with_prompts: bool, asked: int | None
) -> tuple[Lengths, Encoded | None]:
    """Lengths within the model's limit, chosen from training texts unless the user named them; and
    the training set if it was tokenised with that length on the way, else None.
    """
    few, room = task.train.sample(MAX_SAMPLE, seed=0), max_text_tokens(backbone, with_prompts)
    if writing is not None:
        return _text_task_lengths(task.spec, few, backbone, writing, with_prompts, asked), None
    limit = min(room, asked or room)
    refuse_no_room(limit, few, backbone, writing, "--max-length")
    # The length is known, and a sample of the training set of no further use.
    if asked is not None and len(few) < len(task.train):
        return Lengths(limit), None
    probe = encode(few, backbone.tokenizer, limit, backbone.type_rows)
    length = min(asked or choose_max_length(probe.inputs.lengths, limit), limit)
    return Lengths(length), probe if length == limit and few is task.train else None


def _text_task_lengths(
    spec: TaskSpec,
    few: Split,
    backbone: Backbone,
    writing: Writing,
    with_prompts: bool,
    asked: int | None,
) -> Lengths:
    """Lengths of inputs and target texts, chosen from some examples."""
    room = max_text_tokens(backbone, with_prompts)
    # A prompt stands before what an encoder reads, and takes nothing of what a decoder writes.
    most = room if writing.is_decoder else backbone.max_length
    probe = encode_texts(few, writing, room, most)
    assert probe.written is not None
    target = min(spec.max_target or choose_max_length(probe.written.lengths, most), most)
    if target < writing.shortest_target:
        raise ConfigurationError(
            f"a target length of {target} leaves no room for a word beside special tokens: raise "
            f"--max-target to {writing.shortest_target} or more"
        )
    left = max_text_tokens_beside(
        target, spec.generation.max_tokens or 0, backbone, writing, with_prompts
    )
    wanted = min(asked or choose_max_length(probe.inputs.lengths.clip(min=1), left), left)
    refuse_no_room(wanted, few, backbone, writing, "--max-length")
    return Lengths(wanted, target)
