"""A request for a new study, and its validation before model and data are loaded.

Imports neither torch nor transformers, and pandas only when data are opened.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftsearch.backbone.device import refuse_tf32_on_a_cpu, refuse_unknown_device
from peftsearch.backbone.loading.source import (
    absolute_source,
    refuse_missing_model,
    refuse_missing_tokenizer,
)
from peftsearch.errors import UsageError
from peftsearch.policy.landmarks import refuse_unknown_landmarks
from peftsearch.records.storage_name import JOURNAL
from peftsearch.space.space import Space
from peftsearch.study.low_rungs import refuse_low_rungs
from peftsearch.task.sources.open import open_task
from peftsearch.task.spec import TaskSpec
from peftsearch.training.optimisations import Optimisations

if TYPE_CHECKING:
    from peftsearch.task.task import Task

__all__ = ["NewStudy"]


@dataclass(frozen=True)
class NewStudy:
    """A request for a new study, before anything is loaded."""

    name: str
    space: Space
    space_name: str
    model: str
    task: TaskSpec
    seed: int = 0
    device: str = "cpu"
    max_length: int | None = None
    rung_examples: int | None = None
    tokenizer: str | None = None
    target_tokenizer: str | None = None
    without: tuple[str, ...] = ()
    """Optimisations to switch off, for measuring."""
    low_rungs: str | None = None
    """The low precision of frozen layers below full length."""
    sampler: str = "auto"
    """The policy that proposes configurations: a row of `policy/table.py`, or `auto`."""
    stopping: bool = True
    """Whether trials may be stopped below full length."""
    landmarks: str | None = None
    """The published methods to train, too (`policy/landmarks.py`); None: the space's default."""
    storage: str = JOURNAL
    """Or a database's address, without its password."""
    artifacts: str | None = None

    def with_absolute_paths(self) -> NewStudy:
        """The same request with absolute paths, valid in any working folder."""
        from peftsearch.task.sources.absolute_paths import with_absolute_paths  # with pandas

        return replace(
            self,
            model=absolute_source(self.model),
            task=with_absolute_paths(self.task),
            tokenizer=absolute_source(self.tokenizer),
            target_tokenizer=absolute_source(self.target_tokenizer),
        )

    @property
    def limited_task(self) -> TaskSpec:
        """The task with the space's limits on examples, unless the user set their own."""
        budgets = self.space.file.budgets
        limits = {
            "train_examples": self.task.train_examples or budgets.train_examples,
            "eval_examples": self.task.eval_examples or budgets.eval_examples,
        }
        return self.task.model_copy(update=limits)

    def refuse_unusable(self, needs_weights: bool = True) -> None:
        """Raise an error for any problem that can be found without loading model or data."""
        Optimisations().without(*self.without)
        refuse_unknown_device(self.device)
        if "tf32" in self.space.file.train.precision.choices:
            refuse_tf32_on_a_cpu(self.device)
        if self.low_rungs is not None:
            refuse_low_rungs(self.low_rungs, self.space, self.device)
        if self.sampler != "auto":
            from peftsearch.policy.table import sampler_named  # with Optuna

            sampler_named(self.sampler)
        if self.landmarks is not None:
            refuse_unknown_landmarks(self.landmarks)
        if needs_weights:
            refuse_missing_model(self.model)
        for name in (self.tokenizer, self.target_tokenizer):
            if name is not None:
                refuse_missing_tokenizer(name)

    def open_task(self) -> Task:
        """Load the data; UsageError for options this kind of task would ignore."""
        task = open_task(self.limited_task)
        if self.target_tokenizer is not None and task.kind.output != "texts":
            raise UsageError(
                "--target-tokenizer applies only to tasks that generate text, and this is "
                f"{task.kind.name}: leave it out, or give --kind seq2seq or causal"
            )
        return task
