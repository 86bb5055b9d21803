"""Kept states where texts are written: an encoder's while a decoder learns, a decoder's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from peftsearch.backbone.loading.load import load_backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.task.spec import TaskSpec
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.objective import objective_of
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.writing import writing_of
from support.tiny import copying_rows, write_csv

BUDGET = TrainingBudget(max_steps=20, rungs=(1.0,))
TRAINING = Training(lr=(("linear", 0.02),), batch_size=6)
CASES = {
    # model, kind, modified layers, layers that are kept
    "encoder-decoder, decoder tuned": ("tiny_bart", "seq2seq", (2, 3), 2),
    "encoder-decoder, upper encoder tuned": ("tiny_bart", "seq2seq", (1, 3), 1),
    "decoder": ("tiny_llama", "causal", (1,), 1),
}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_and_texts_are_those_of_the_whole_model(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, kind, layers, expected = CASES[case]
    data = write_csv(tmp_path / "answers.csv", copying_rows(60))
    folder = request.getfixturevalue(model)
    bench = Workbench.prepare(str(folder), TaskSpec(train=str(data), kind=kind))
    backbone = load_backbone(str(folder), dtype=torch.float64, writes=True)
    writing = writing_of(backbone, bench.task.spec)
    objective = objective_of(bench.task, bench.train, backbone, writing, bench.lengths.target)
    own = METHODS["lora"].configuration().modifications
    one = Configuration(tuple(m.on(layers) for m in own), Head("none"), TRAINING)

    def trained(optimisations: Optimisations) -> tuple[Any, Any, int]:
        with TrainingRun(
            *(backbone, bench.train, objective, one, BUDGET, 0),
            optimisations=optimisations,
            shared_by=8,
        ) as run:
            run.train_to(run.full_steps)
            found = run.evaluate(bench.validation)
            return found.losses, found.predicted, run.frozen.kept_layers

    losses, texts, kept = trained(Optimisations())
    plain = Optimisations().without("activations", "tokens")
    plain_losses, plain_texts, plain_kept = trained(plain)
    assert (kept, plain_kept) == (expected, 0)
    assert np.abs(losses - plain_losses).max() < 1e-9
    assert texts == plain_texts


def test_rows_end_to_end() -> None:
    first, second = Ragged.of([[1, 2], [], [3]]), Ragged.of([[4], [5, 6], []])
    joined = Ragged.end_to_end(first, second)
    assert [joined.row(i).tolist() for i in range(3)] == [[1, 2, 4], [5, 6], [3]]
