"""Precision tf32: set for the passes of a trial alone, kept apart from fp32, refused without a GPU.

A CPU computes matrix products in fp32 whatever is set, so that the setting itself is watched.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import peftsearch
from peftsearch.backbone import device as devices
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.precision import matrix_products_in_tf32
from peftsearch.cli.main import run
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import MissingError
from peftsearch.export.recipe import Recipe
from peftsearch.export.retrain import retrain
from peftsearch.study.study import Assignment
from peftsearch.task.spec import TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import Cohort
from peftsearch.training.cohort.size import CohortSize
from peftsearch.training.frozen import activations
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations
from peftsearch.workers.cohort_scheduler import CohortScheduler
from peftsearch.workers.trial import PreparedTrial, TrialRunner
from support.standin import create

BUDGET = TrainingBudget(max_steps=2, rungs=(1.0,))
TF32 = Training(batch_size=8, precision="tf32")
LORA = METHODS["lora"].configuration(Head("mean"), TF32)
SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 2, rungs: [1]}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {precision: [fp32, tf32]}
"""


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


@pytest.fixture
def has_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's processor passes for a GPU with TF32."""
    monkeypatch.setattr(devices, "has_tf32", lambda device: True)


def watched(backbone: Backbone) -> tuple[list[str], torch.utils.hooks.RemovableHandle]:
    """The setting at every forward and backward pass of a linear layer."""
    seen: list[str] = []

    def note(*_: object) -> None:
        seen.append(torch.get_float32_matmul_precision())

    (layer,) = [m for m in backbone.layer(1).modules() if isinstance(m, nn.Linear)][-1:]

    def forward(module: nn.Module, args: object, output: torch.Tensor) -> None:
        note()
        if output.requires_grad:
            output.register_hook(note)

    return seen, layer.register_forward_hook(forward)


def test_the_setting_is_put_back_also_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    seen = []
    with suppress(ZeroDivisionError), matrix_products_in_tf32(True):
        seen.append(torch.get_float32_matmul_precision())
        raise ZeroDivisionError
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == before
    with matrix_products_in_tf32(False):
        assert torch.get_float32_matmul_precision() == before


@pytest.mark.usefixtures("has_tf32")
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_training_and_evaluation_compute_in_it_and_nothing_else(
    precision: str, bench: Workbench
) -> None:
    one = replace(LORA, training=replace(TF32, precision=precision))
    own = bench.for_training(one.training)
    seen, handle = watched(own.backbone)
    with TrainingRun(own.backbone, own.train, own.objective, one, BUDGET, 0) as training:
        training.train_to(2)
        assert len(seen) == 4, "forward and backward of two steps"
        training.evaluate(own.validation)
    handle.remove()
    assert set(seen) == {"high" if precision == "tf32" else "highest"}
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("has_tf32")
def test_so_does_a_shared_pass(bench: Workbench) -> None:
    own = bench.for_training(TF32)
    cohort = Cohort.of(own.backbone, Optimisations())
    seen, handle = watched(own.backbone)
    with TrainingRun(
        *(cohort.member_backbone(), own.train, own.objective, LORA, BUDGET, 0),
    ) as training:
        assert cohort.step([training]) == {}
    handle.remove()
    assert seen == ["high", "high"]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("has_tf32")
def test_fp32_and_tf32_share_weights_and_no_cached_states(bench: Workbench) -> None:
    own = bench.for_training(TF32)
    assert own.backbone.model is bench.backbone.model
    assert (own.backbone.tf32, bench.backbone.tf32) == (True, False)
    assert own.for_training(Training()).backbone.tf32 is False
    keys = [activations._key(one.backbone, bench.train, "x") for one in (own, bench)]
    assert keys[0] != keys[1]


@pytest.mark.usefixtures("has_tf32")
def test_fp32_and_tf32_share_no_pass(bench: Workbench, tmp_path: Path, tiny_bert: Path) -> None:
    folder = create(tiny_bert, tmp_path)
    runner = TrialRunner(
        bench=bench,
        budget=BUDGET,
        seed=0,
        record=lambda *_: None,
        judge=lambda *_: pytest.fail("nothing is trained"),
        stop=lambda: False,
    )
    scheduler = CohortScheduler(runner, folder, CohortSize.of(bench.backbone.device, 4))

    def shares(precision: str) -> bool:
        one = replace(LORA, training=replace(TF32, precision=precision))
        prepared: PreparedTrial = runner.prepare(Assignment(0, one, "sampled"), folder.trial(0))
        return scheduler.shares_passes(prepared)

    assert shares("fp32")
    assert not shares("tf32")


def test_recorded_configurations_keep_their_hash() -> None:
    assert "precision" not in replace(LORA, training=Training()).to_json()["training"]
    assert LORA.to_json()["training"]["precision"] == "tf32"
    assert LORA.hash != replace(LORA, training=replace(TF32, precision="fp32")).hash


def recipe(model: Path, data: Path) -> Recipe:
    return Recipe(
        schema=1,
        model=str(model),
        task=TaskSpec(train=str(data), text=("text",), label="label", eval_examples=20),
        max_steps=2,
        rungs=(1.0,),
        configuration=LORA.to_json(),
    )


def test_an_export_says_it_and_is_loaded_on_a_cpu(
    tiny_bert: Path, tiny_sentiment_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(devices, "has_tf32", lambda device: True)
        asked = recipe(tiny_bert, tiny_sentiment_csv)
        retrain(asked, tmp_path / "out", 1, "cpu", open_test=False, notify=lambda _: None)
    loaded = peftsearch.load(tmp_path / "out")
    assert loaded.package.precision == "tf32"
    assert loaded.backbone.dtype == torch.float32
    assert loaded.predict("a kind and clear day") in loaded.labels


def test_on_a_cpu_it_is_refused_before_anything_is_loaded(
    tiny_bert: Path,
    tiny_sentiment_csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(SPACE)
    data = ["--train", str(tiny_sentiment_csv), "--text", "text", "--label", "label"]
    assert run(["search", "space.yaml", "--model", str(tiny_bert), *data, "--study", "s"]) == 3
    assert "precision tf32 needs a GPU with TF32" in capsys.readouterr().err
    assert not Path("studies/s").exists()
    with pytest.raises(MissingError, match="which cpu is not: use fp32"):
        retrain(
            *(recipe(tiny_bert, tiny_sentiment_csv), None, 1, "cpu"),
            open_test=False,
            notify=lambda _: None,
        )


def test_a_bench_on_a_cpu_refuses_it(bench: Workbench) -> None:
    with pytest.raises(MissingError, match="precision tf32"):
        replace(bench, _variants={}).for_training(TF32)


@pytest.mark.parametrize(("can", "found"), [(True, "cuda:0"), (False, "no GPU with TF32")])
def test_doctor_names_the_gpus_that_have_it(
    can: bool,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "a GPU")
    monkeypatch.setattr(devices, "has_tf32", lambda device: can)
    assert run(["doctor", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checks"]
    assert [row["found"] for row in rows if row["check"] == "precision tf32"] == [found]
