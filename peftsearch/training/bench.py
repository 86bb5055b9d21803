"""Workbench: the frozen backbone and the tokenised data that all trials of a process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch

from peftsearch.backbone.device import refuse_no_tf32
from peftsearch.backbone.loading.language import Tokenizers
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.backbone.precision import DTYPES, TF32, dtype_of
from peftsearch.design.training import Training
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.task import Task
from peftsearch.task.tokens.encode import Encoded, encode
from peftsearch.task.tokens.encode_texts import Writing, encode_texts
from peftsearch.training.choose_lengths import MAX_SAMPLE, Lengths, choose_lengths
from peftsearch.training.objectives.choose import Objective, objective_of
from peftsearch.training.text_lengths import refuse_no_room
from peftsearch.training.writing import end_of_text_notes, writing_of

__all__ = ["Workbench", "set_threads"]


@dataclass(frozen=True)
class Workbench:
    """A backbone, and a task tokenised for it and cut to `lengths`."""

    backbone: Backbone
    task: Task
    train: Encoded
    validation: Encoded
    lengths: Lengths
    objective: Objective
    writing: Writing | None = None
    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    _variants: dict[str | int, Workbench] = field(default_factory=dict, repr=False)
    """This bench in other precisions or lengths, made when a configuration first needs it."""

    @property
    def max_length(self) -> int:
        """Tokens that texts are cut to."""
        return self.lengths.text

    @classmethod
    def prepare(
        cls,
        model: str,
        spec: TaskSpec,
        device: str = "cpu",
        max_length: int | None = None,
        with_prompts: bool = False,
        notify: Callable[[str], None] = lambda _: None,
        tokenizers: Tokenizers = Tokenizers(),  # noqa: B008 (frozen)
        precision: str = "fp32",
        task: Task | None = None,
    ) -> Workbench:
        """Load model and data, and tokenise.

        `max_length`: tokens of a text; None: the 99.5th percentile, within the model's limit.
        `with_prompts`: texts leave room for the longest prompt before them. `task`: the data of
        `spec`, if they were read already. `notify` is called with notes for the user.
        Raises ConfigurationError if a length leaves no room, MissingError, DataError.
        """
        if precision == TF32:
            refuse_no_tf32(device)
        task = task or load_task(spec)
        task.metric.refuse_if_missing()
        for note in task.notes:
            notify(note)
        writes = task.kind.output == "texts"
        backbone = load_backbone(model, device, dtype_of(precision), writes, tokenizers)
        backbone = replace(backbone, tf32=precision == TF32)
        for note in filter(None, (backbone.family.note, backbone.note)):
            notify(note)
        writing = writing_of(backbone, task.spec) if writes else None
        for note in end_of_text_notes(backbone, writing) if writing else ():
            notify(note)
        lengths, train = choose_lengths(task, backbone, writing, with_prompts, max_length)
        if train is None:
            train = _encoded(task.train, backbone, writing, lengths)
        validation = _encoded(task.validation, backbone, writing, lengths)
        for encoded in (train, validation):
            backbone.refuse_unknown_tokens(*encoded.tokens)
        return cls(
            backbone=backbone,
            task=task,
            train=train,
            validation=validation,
            lengths=lengths,
            objective=objective_of(task, train, backbone, writing, lengths.target),
            writing=writing,
            tokenizers=tokenizers,
        )

    def encode(self, split: Split) -> Encoded:
        """Another split, tokenised in the same way."""
        return _encoded(split, self.backbone, self.writing, self.lengths)

    def refuse_no_room(self, length: int) -> None:
        """Raise ConfigurationError if cutting texts to `length` tokens leaves nothing of them."""
        few = self.task.train.between(0, MAX_SAMPLE)
        refuse_no_room(length, few, self.backbone, self.writing, "max_length")

    def for_training(self, training: Training) -> Workbench:
        """The bench in the precision and with the text length of a configuration's training.

        Raises ConfigurationError if that length leaves nothing of a text, MissingError if the
        device has no TF32 where that is the precision.
        """
        bench, backbone, precision = self, self.backbone, training.precision
        same = (backbone.dtype, backbone.tf32) == (DTYPES[precision], precision == TF32)
        # A backbone in fp64, as in tests, has no precision of `DTYPES` and keeps its own.
        if not same and backbone.dtype in DTYPES.values():
            bench = bench._variant(precision, partial(bench._in_precision, precision))
        length = min(training.max_length, self.lengths.text) or self.lengths.text
        if length != bench.lengths.text:
            bench = bench._variant(length, partial(bench._cut_to, length))
        return bench

    def _variant(self, key: str | int, make: Callable[[], Workbench]) -> Workbench:
        """The variant for a precision or a length, made by `make` the first time."""
        if key not in self._variants:
            self._variants[key] = make()
        return self._variants[key]

    def _in_precision(self, precision: str) -> Workbench:
        """A copy of the bench with its own backbone; between fp32 and TF32 the weights are the
        same.
        """
        backbone, device, dtype = self.backbone, str(self.backbone.device), dtype_of(precision)
        if precision == TF32:
            refuse_no_tf32(device)
        if dtype != backbone.dtype:
            writes = backbone.lm is not None
            backbone = load_backbone(backbone.name, device, dtype, writes, self.tokenizers)
        backbone = replace(backbone, tf32=precision == TF32)
        return self._with(backbone, self.train, self.validation, self.lengths)

    def _cut_to(self, length: int) -> Workbench:
        """The same bench with texts of at most `length` tokens."""
        lengths = Lengths(length, self.lengths.target)
        self.refuse_no_room(length)
        splits = (self.task.train, self.task.validation)
        train, validation = (_encoded(s, self.backbone, self.writing, lengths) for s in splits)
        return self._with(self.backbone, train, validation, lengths)

    def _with(
        self, backbone: Backbone, train: Encoded, validation: Encoded, lengths: Lengths
    ) -> Workbench:
        objective = objective_of(self.task, train, backbone, self.writing, lengths.target)
        return Workbench(
            *(backbone, self.task, train, validation, lengths, objective),
            writing=self.writing,
            tokenizers=self.tokenizers,
        )


def _encoded(
    split: Split, backbone: Backbone, writing: Writing | None, lengths: Lengths
) -> Encoded:
    """A split tokenised for the backbone, and cut to `lengths`."""
    if writing is None:
        return encode(split, backbone.tokenizer, lengths.text, backbone.type_rows)
    return encode_texts(split, writing, lengths.text, lengths.target)


def set_threads(threads: int) -> None:
    """Threads of this process; results are bit-equal at equal thread counts."""
    torch.set_num_threads(threads)
