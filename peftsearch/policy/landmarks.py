"""Landmarks: published methods, trained to full length as a comparison for a search's own points.

`all` are the methods in the space's `seed_with`. With `lora`, LoRA comes first, with a tuned
learning rate, and those methods as time allows. A landmark within the space is a point that the
sampler learns from; one outside it (head-only, full fine-tuning) is only compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import UsageError, did_you_mean
from peftsearch.policy.history import History
from peftsearch.policy.seeds import Seed, seeds_of
from peftsearch.policy.tuned_lora import TunedLora
from peftsearch.space.space import Space

__all__ = [
    "LANDMARKS",
    "Landmarks",
    "default_landmarks",
    "landmarks_of",
    "refuse_unknown_landmarks",
]

LANDMARKS = ("none", "lora", "all")
"""The values of `--landmarks`."""
MOST_TRIALS = 1 / 2
"""Share of the trials that may be landmarks, while there are some left."""
MOST_TRAINING = 1 / 4
"""With `lora`: share of the training that methods other than the tuned LoRA may take."""


@dataclass(frozen=True)
class Landmarks:
    """The landmarks of one search. `most_training`: the share of the training that those after
    LoRA may take.
    """

    lora: TunedLora | None = None
    others: tuple[Seed, ...] = ()
    most_training: float = 1.0

    @property
    def examples(self) -> tuple[Seed, ...]:
        """Every landmark, if LoRA's middle rate is its best."""
        return (*(self.lora.examples if self.lora else ()), *self.others)

    def due(self, history: History) -> Seed | None:
        """The landmark to begin now; None if none is due. One whose worker was killed before
        its configuration was recorded is due again; one that failed is not.
        """
        if history.has_queued:
            return None  # enqueued parameters come first
        begun = [record.seed for record in history.trials if record.was_begun]
        labels = {label for label in begun if label is not None}
        if sum(label is not None for label in begun) > MOST_TRIALS * len(begun):
            return None
        lora = _first(self.lora.wanted(history), labels) if self.lora else None
        if lora is not None or self._take_too_much(history):
            return lora
        return _first(self.others, labels)

    def _take_too_much(self, history: History) -> bool:
        """Whether the methods after LoRA have had their share of the training so far."""
        labels = {seed.label for seed in self.others}
        trained = [
            (record.seed in labels, _length(history, record.number)) for record in history.trials
        ]
        theirs = sum(length for is_theirs, length in trained if is_theirs)
        return theirs > self.most_training * sum(length for _, length in trained)


def landmarks_of(choice: str, space: Space, shapes: BackboneShapes) -> Landmarks:
    """The landmarks of a study that recorded `choice`."""
    if choice == "none":
        return Landmarks()
    published = tuple(seeds_of(space, shapes))
    if choice == "all":
        return Landmarks(others=published)
    return Landmarks(TunedLora(space, shapes), published, MOST_TRAINING)


def default_landmarks(space: Space, shapes: BackboneShapes) -> str:
    """`lora` for a space that contains LoRA on this backbone, else `all`. A recipe has `all`, too:
    its methods are those of its paper, at the paper's rate, and its trials may take days.
    """
    is_recipe = space.file.published is not None
    return "lora" if not is_recipe and TunedLora(space, shapes).is_in_the_space else "all"


def refuse_unknown_landmarks(choice: str) -> None:
    """UsageError for a name that is not in `LANDMARKS`."""
    if choice not in LANDMARKS:
        raise UsageError(f"landmarks '{choice}' unknown{did_you_mean(choice, LANDMARKS)}")


def _first(seeds: Iterable[Seed], begun: set[str]) -> Seed | None:
    return next((seed for seed in seeds if seed.label not in begun), None)


def _length(history: History, number: int) -> float:
    """A trial's training so far, in full lengths: to its last rung; of a landmark that is still
    running all of it, since none is stopped.
    """
    record = history.trials[number]
    if record.seed is not None and not record.has_ended:
        return 1.0
    reached: Sequence[float] = [history.rungs[score.rung] for score in record.rungs]
    return max(reached, default=0.0)
