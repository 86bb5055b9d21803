"""Example predictions: a few validation texts with reference and generated text, for reports."""

from __future__ import annotations

from peftsearch.task.task import Task
from peftsearch.training.objectives.choose import Evaluation

__all__ = ["example_predictions"]

_COUNT = 8
_CHARACTERS = 600


def example_predictions(task: Task, evaluation: Evaluation) -> list[dict[str, str]]:
    """The first examples of the (shuffled) validation split; none unless texts were generated."""
    if task.kind.output != "texts" or evaluation.predicted is None:
        return []
    count = min(_COUNT, evaluation.examples)
    columns = (task.validation.texts[:count], task.validation.targets[:count])
    return [
        {
            "text": text[:_CHARACTERS],
            "reference": str(reference)[:_CHARACTERS],
            "prediction": str(prediction)[:_CHARACTERS],
        }
        for text, reference, prediction in zip(
            *columns, list(evaluation.predicted[:count]), strict=True
        )
    ]
