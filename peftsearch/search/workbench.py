"""What every trial of a process shares: the frozen backbone and the tokenised data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from peftsearch.backbone.load import Backbone, load_backbone
from peftsearch.errors import ConfigurationError
from peftsearch.space.schema import Budgets
from peftsearch.task.classification import ClassificationTask
from peftsearch.task.encode import Encoded, choose_max_length, encode
from peftsearch.task.load import load_task
from peftsearch.task.spec import TaskSpec
from peftsearch.training.budget import TrainingBudget

__all__ = ["Workbench", "training_budget"]


@dataclass(frozen=True)
class Workbench:
    """A backbone, a task and its tokens; `max_length` is what examples are cut to."""

    backbone: Backbone
    task: ClassificationTask
    train: Encoded
    validation: Encoded
    max_length: int

    @classmethod
    def prepare(
        cls,
        model: str,
        spec: TaskSpec,
        device: str = "cpu",
        max_length: int | None = None,
        with_prompts: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> Workbench:
        """Load and tokenise once. `max_length` None: the 99.5th percentile, within the model's;
        `with_prompts`: texts leave room for the longest prompt before them.
        """
        task = load_task(spec)
        for note in task.notes:
            say(note)
        backbone = load_backbone(model, device)
        if backbone.family.note:
            say(backbone.family.note)
        if backbone.family.is_encoder_decoder:
            raise ConfigurationError(
                f"'{model}' ({backbone.family.name}) is an encoder-decoder: the tasks so far are "
                "classification, for encoders and decoders"
            )
        room = backbone.max_length - (backbone.shapes.longest_prompt if with_prompts else 0)
        limit = min(room, max_length or room)
        train = encode(task.train, backbone.tokenizer, limit)
        length = min(max_length or choose_max_length(train.lengths, limit), limit)
        return cls(
            backbone=backbone,
            task=task,
            train=encode(task.train, backbone.tokenizer, length) if length < limit else train,
            validation=encode(task.validation, backbone.tokenizer, length),
            max_length=length,
        )


def training_budget(budgets: Budgets) -> TrainingBudget:
    """The training budget that a space file states."""
    return TrainingBudget(
        epochs=budgets.epochs,
        max_steps=budgets.max_steps,
        rungs=budgets.rungs,
        rung_examples=budgets.rung_examples,
    )


def set_threads(threads: int) -> None:
    """Threads of this process; results are bit-equal at equal thread counts."""
    torch.set_num_threads(threads)
