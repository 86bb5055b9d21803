"""Choosing the objective of a task by its kind of output."""

from __future__ import annotations

from peftsearch.backbone.loading.load import Backbone
from peftsearch.task.task import Task
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing
from peftsearch.training.objectives.base import Evaluation, Objective
from peftsearch.training.objectives.label_sets import LabelSets
from peftsearch.training.objectives.labels import Labels
from peftsearch.training.objectives.texts import Texts
from peftsearch.training.objectives.values import Values

__all__ = ["Evaluation", "Objective", "objective_of", "scale_of_values"]


def objective_of(
    task: Task, train: Encoded, backbone: Backbone, writing: Writing | None, max_target: int
) -> Objective:
    """The objective of a task on its tokenised training examples. `max_target`: tokens that the
    targets of a text task are cut to.
    """
    if task.kind.output == "labels":
        return Labels(task.outputs)
    if task.kind.output == "label sets":
        return LabelSets(task.outputs)
    if task.kind.output == "values":
        return Values.of(train)
    assert writing is not None
    return Texts(backbone, writing, task.spec.generation, max_target)


def scale_of_values(objective: Objective) -> tuple[float, float] | None:
    """Mean and standard deviation of training targets, whose units a head's numbers are in; None
    unless numbers are predicted.
    """
    return (objective.mean, objective.spread) if isinstance(objective, Values) else None
