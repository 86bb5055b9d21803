"""Low rungs in low precision: a function of the step alone, and nothing of it at full length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.frozen.activations import CACHE
from peftsearch.training.loop import TrainingRun
from peftsearch.training.low_precision_steps import LowPrecisionSteps
from support.backbones import backbone_at

pytestmark = pytest.mark.skipif(
    not all(p.is_here for p in LOW_PRECISIONS.values()), reason="needs VNNI and bf16 instructions"
)
BUDGET = TrainingBudget(max_steps=9, rungs=(0.33, 0.67, 1.0))
"""Rungs at steps 3, 6 and 9."""


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / "cache"))


def configured(name: str = "lora", layers: tuple[int, ...] | None = None, **training: Any) -> Any:
    own = METHODS[name].configuration().modifications
    settings = Training(lr=(("linear", 0.02),), batch_size=8, **training)
    return Configuration(tuple(m.on(layers) for m in own), Head("mean"), settings)


def begun(
    bench: Workbench,
    low_rungs: str | None,
    one: Configuration | None = None,
    budget: TrainingBudget = BUDGET,
) -> TrainingRun:
    return TrainingRun(
        *(bench.backbone, bench.train, bench.objective, one or configured(), budget, 3),
        shared_by=8,
        low_rungs=low_rungs,
    )


def values(run: TrainingRun) -> dict[str, torch.Tensor]:
    held = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    return held | {f"average/{n}": v.clone() for n, v in run.average.values.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", LOW_PRECISIONS)
def test_from_the_last_low_rung_on_everything_is_exact(
    name: str, bench: Workbench, tmp_path: Path
) -> None:
    with begun(bench, name) as low:
        low.train_to(6)
        low.save(tmp_path / "c")
        low.train_to(9)
        ended, losses = values(low), low.evaluate(bench.validation).losses
    with begun(bench, None) as exact:
        exact.restore(tmp_path / "c")
        exact.train_to(9)
        assert equal(ended, values(exact))
        assert (losses == exact.evaluate(bench.validation).losses).all()


@pytest.mark.parametrize("name", LOW_PRECISIONS)
def test_below_it_neither_training_nor_evaluation_is(
    name: str, bench: Workbench, tmp_path: Path
) -> None:
    with begun(bench, name) as low, torch.no_grad():
        untrained = low.evaluate(bench.validation).losses
    with begun(bench, None) as exact:
        exactly = exact.evaluate(bench.validation).losses
        exact.train_to(6)
        after = values(exact)
    assert 0 < abs(untrained - exactly).max() < 0.3
    with begun(bench, name) as low:
        low.train_to(6)
        assert not equal(values(low), after)


def test_the_precision_of_a_step_follows_from_the_rungs(bench: Workbench) -> None:
    def of(*rung_steps: int) -> list[str | None]:
        low = LowPrecisionSteps.of(bench.backbone, "int8", rung_steps, rung_steps[-1])
        return [low.evaluated_in(step) for step in range(rung_steps[-1] + 1)]

    assert of(1, 3) == ["int8", "int8", None, None]
    assert of(1, 1, 3) == ["int8", "int8", None, None]
    assert of(1, 2, 3) == ["int8", "int8", "int8", None]
    assert of(3, 3) == [None] * 4, "full length is exact, and so is what leads there alone"
    assert of(3) == [None] * 4
    assert of(0) == [None], "an untuned model is evaluated at full length"


def test_a_linear_schedule_has_no_low_rungs(bench: Workbench) -> None:
    one = configured(schedule="linear")
    ends = []
    for name in ("int8", None):
        with begun(bench, name, one) as run:
            run.train_to(9)
            ends.append(values(run))
    assert equal(*ends)


def cuts() -> Iterator[int]:
    """On both sides of both rungs."""
    yield from (1, 3, 4, 6, 7)


@pytest.mark.slow
def test_cut_off_at_any_step_it_ends_as_if_it_had_not_been(
    bench: Workbench, tmp_path: Path
) -> None:
    with begun(bench, "int8") as whole:
        whole.train_to(9)
        expected = values(whole)
    for cut in cuts():
        with begun(bench, "int8") as first:
            first.train_to(cut)
            first.save(tmp_path / "c")
        with begun(bench, "int8") as second:
            second.restore(tmp_path / "c")
            second.train_to(9)
            assert equal(values(second), expected)


@pytest.mark.parametrize("one", [configured(layers=(1,)), Configuration((), Head("mean"))])
def test_states_that_are_kept_are_exact(
    one: Configuration, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made outside of low precision, and the layers below read them there."""
    found = []
    for name in ("int8", None):
        monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / f"cache-{name}"))
        with begun(bench, name, one) as run:
            run.train_to(3)
            run.evaluate(bench.validation, limit=20)
            assert run.frozen.kept_layers
        files = sorted(CACHE.folder.glob("*/states.bin"))
        found.append({path.parent.name: path.read_bytes() for path in files})
    assert len(found[0]) == 2
    assert found[0] == found[1]


def test_a_backbone_in_another_precision_is_refused(bench: Workbench) -> None:
    backbone = backbone_at(Path(bench.backbone.name), torch.bfloat16)
    with pytest.raises(ConfigurationError, match=r"in fp32 on a CPU, not in torch\.bfloat16"):
        LowPrecisionSteps.of(backbone, "int8", (1, 3), 3)
