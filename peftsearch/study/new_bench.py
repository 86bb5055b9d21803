"""The workbench of a study that is about to be created: model and data as it requests them."""

from __future__ import annotations

from collections.abc import Callable

from peftsearch.backbone.loading.language import Tokenizers
from peftsearch.backbone.precision import TF32
from peftsearch.design.methods import METHODS
from peftsearch.space.space import Space
from peftsearch.study.new_study import NewStudy
from peftsearch.task.task import Task
from peftsearch.training.bench import Workbench

__all__ = ["new_bench", "offers_prompts", "precision_of"]


def new_bench(
    request: NewStudy,
    device: str,
    notify: Callable[[str], None] = lambda _: None,
    task: Task | None = None,
) -> Workbench:
    """The bench in the first precision of the space, or, where that is tf32 and `device` a CPU, in
    fp32. `task` is the data, if they were read.
    """
    precision = precision_of(request)
    if precision == TF32 and device == "cpu":
        precision = "fp32"  # the same weights; it is the workers' GPUs that compute in TF32
    return Workbench.prepare(
        *(request.model, request.limited_task, device, request.max_length),
        with_prompts=offers_prompts(request.space),
        notify=notify,
        tokenizers=Tokenizers(request.tokenizer, request.target_tokenizer, request.task.languages),
        precision=precision,
        task=task or request.open_task(),
    )


def precision_of(request: NewStudy) -> str:
    """The precision that the study is measured in: the first of the space."""
    return str(request.space.file.train.precision.choices[0])


def offers_prompts(space: Space) -> bool:
    """Whether a configuration of the space, or a seed, may put tokens before the text."""
    offered = {str(form) for slot in space.file.choices.values() for form in slot.form.choices}
    seeded = {
        m.form.name for seed in space.file.seed_with for m in METHODS[seed.method].modifications
    }
    return "prompt" in offered | seeded
