"""Configurations that share passes train as alone: fp64 to 1e-9, fp32 gradients to 1e-4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from peftsearch.backbone.attach import attention
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import Diverged, NotANumber, OutOfMemory
from peftsearch.task.spec import TaskSpec
from peftsearch.training import device_losses, loss_monitor
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort.cohort import Cohort, member_optimisations, why_not_in_a_cohort
from peftsearch.training.loop import TrainingRun
from peftsearch.training.objectives.choose import objective_of
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.writing import writing_of
from support.backbones import backbone_at
from support.emulated_graphs import waits
from support.tiny import copying_rows, write_csv

STEPS = 20
BUDGET = TrainingBudget(max_steps=STEPS, rungs=(0.5, 1.0))
ALONE = member_optimisations(Optimisations())
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


def method(name: str, pooling: str = "mean", **training: Any) -> Configuration:
    settings = {"batch_size": 6, "weight_decay": 0.1, "head_lr": 1e-2, **training}
    return METHODS[name].configuration(Head(pooling), Training(**settings))  # type: ignore[arg-type]


MIXED = {
    "lora": method("lora"),
    "mam, larger batches": method("mam", batch_size=10),
    "bitfit": method("bitfit", lr=(("constant", 3e-3),)),
    "pfeiffer, in pieces": method("pfeiffer", accumulation=3),
    "houlsby, trained pooler": replace(method("houlsby"), head=Head("mean", "trained")),
    "dora": method("dora", max_grad_norm=0.1),
    "ia3": method("ia3", "first"),
    "unipelt": method("unipelt"),
    "multi-head adapter": method("multi-head-pa"),
}


def begun(bench: Workbench, backbone: Backbone, one: Configuration, seed: int = 0) -> TrainingRun:
    return TrainingRun(
        *(backbone, bench.train, bench.objective, one, BUDGET, seed), optimisations=ALONE
    )


def state(run: TrainingRun) -> State:
    own = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    return own | {f"average/{n}": v.clone() for n, v in run.average.values.items()}


def furthest(one: State, other: State) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def fp64(bench: Workbench) -> Backbone:
    return backbone_at(Path(bench.backbone.name), torch.float64)


def alone(bench: Workbench, one: Configuration, seed: int = 0) -> tuple[State, float, Any]:
    """State after all steps, smoothed loss, and evaluated losses half-way."""
    with begun(bench, fp64(bench), one, seed) as run:
        run.train_to(STEPS // 2)
        half = run.evaluate(bench.validation).losses
        run.train_to(STEPS)
        return state(run), run.smoothed_loss or 0.0, half


@pytest.mark.slow
def test_mixed_methods_train_as_alone_each_with_its_own_seed_batches_and_rates(
    bench: Workbench,
) -> None:
    """Members begin at different passes, are evaluated half-way, and leave when they are done."""
    cohort = Cohort(fp64(bench))
    waiting = [(name, seed) for seed, name in enumerate(MIXED)]
    running: dict[str, TrainingRun] = {}
    halves: dict[str, Any] = {}
    ends: dict[str, tuple[State, float]] = {}
    passes = 0
    while waiting or running:
        if waiting and (passes % 4 == 0 or not running):
            name, seed = waiting.pop(0)
            running[name] = begun(bench, cohort.member_backbone(), MIXED[name], seed)
        assert not cohort.step(list(running.values()))
        passes += 1
        for name, run in list(running.items()):
            if run.step == STEPS // 2 and name not in halves:
                halves[name] = run.evaluate(bench.validation).losses
            if run.step == STEPS:
                run.loss_monitor.check()
                ends[name] = state(run), run.smoothed_loss or 0.0
                running.pop(name).model.detach()
    assert passes < 4 * len(MIXED) + 3 * STEPS, "passes were shared"
    for seed, (name, one) in enumerate(MIXED.items()):
        expected, loss, half = alone(bench, one, seed)
        assert furthest(ends[name][0], expected) < 1e-9, name
        assert abs(ends[name][1] - loss) < 1e-9, name
        assert abs(halves[name] - half).max() < 1e-9, name
    assert not any(m._forward_hooks for m in cohort.backbone.model.modules())


@pytest.mark.slow
def test_methods_that_read_earlier_states_train_as_alone_on_one_row(bench: Workbench) -> None:
    names = ("unipelt", "parallel-adapter-attn", "lora", "pa-pa", "pfeiffer", "loreft", "bitfit")
    members = [method(name, "first") for name in names]
    cohort = Cohort(fp64(bench))
    runs = [begun(bench, cohort.member_backbone(), one, seed) for seed, one in enumerate(members)]
    for _ in range(STEPS):
        assert not cohort.step(runs)
    found = [state(run) for run in runs]
    for run in runs:
        run.model.detach()
    for seed, (one, own) in enumerate(zip(members, found, strict=True)):
        assert furthest(own, alone(bench, one, seed)[0]) < 1e-9, names[seed]


@pytest.mark.slow
@pytest.mark.parametrize("poolings", [("first", "first"), ("first", "mean")])
def test_one_row_is_computed_where_no_member_reads_more(
    bench: Workbench, poolings: tuple[str, str]
) -> None:
    rows: list[int] = []
    cohort = Cohort(fp64(bench))
    last = cohort.backbone.layer(1).get_submodule("output.dense")
    hook = last.register_forward_hook(lambda m, a, output: rows.append(output.shape[1]))
    members = [method("lora", poolings[0]), method("mam", poolings[1])]
    runs = [begun(bench, cohort.member_backbone(), one) for one in members]
    for _ in range(STEPS):
        cohort.step(runs)
    hook.remove()
    assert (set(rows) == {1}) == (poolings == ("first", "first"))
    for run, one in zip(runs, members, strict=True):
        found = state(run)
        run.model.detach()
        assert furthest(found, alone(bench, one)[0]) < 1e-9


def test_members_of_one_kind_have_their_rows_side_by_side(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the order in which they are given; the tokens that each pays for stay its own."""
    cohort, inner = Cohort(fp64(bench)), Cohort._joint
    asked: list[list[TrainingRun]] = []
    monkeypatch.setattr(
        Cohort, "_joint", lambda self, runs: asked.append(list(runs)) or inner(self, runs)
    )
    members = [method("lora"), method("bitfit"), method("lora", batch_size=12), method("bitfit")]
    runs = [begun(bench, cohort.member_backbone(), one) for one in members]
    for _ in range(2):
        assert not cohort.step(runs)
    assert asked == [[runs[1], runs[3], runs[0], runs[2]]] * 2
    assert runs[2].cpu_s > 1.5 * runs[0].cpu_s, "twice the texts"
    for run in runs:
        run.model.detach()


def test_gradients_of_one_step_in_fp32(bench: Workbench) -> None:
    backbone = backbone_at(Path(bench.backbone.name), torch.float32)

    def noted(run: TrainingRun) -> State:
        given: State = {}
        assert run.optimiser is not None
        run.optimiser.register_step_pre_hook(
            lambda *_: given.update({n: p.grad.clone() for n, p in run.model.parameters.items()})  # type: ignore[union-attr]
        )
        return given

    cohort = Cohort(backbone)
    runs = [begun(bench, cohort.member_backbone(), one) for one in MIXED.values()]
    together = [noted(run) for run in runs]
    for _ in range(3):  # as many as the member that trains in pieces takes
        cohort.step([run for run in runs if run.step == 0])
    for run in runs:
        run.model.detach()
    for found, one in zip(together, MIXED.values(), strict=True):
        with begun(bench, backbone, one) as run:
            expected = noted(run)
            run.train_to(1)
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        assert furthest(found, expected) <= 1e-4 * largest


@pytest.mark.slow
@pytest.mark.parametrize(("model", "kind"), [("tiny_bart", "seq2seq"), ("tiny_llama", "causal")])
def test_texts_are_learned_as_alone(
    model: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = write_csv(tmp_path / "answers.csv", copying_rows(60))
    folder = request.getfixturevalue(model)
    bench = Workbench.prepare(str(folder), TaskSpec(train=str(data), kind=kind))
    backbone = load_backbone(str(folder), dtype=torch.float64, writes=True)
    writing = writing_of(backbone, bench.task.spec)
    bench = replace(
        bench,
        backbone=backbone,
        objective=objective_of(bench.task, bench.train, backbone, writing, bench.lengths.target),
    )
    members = [method(name, "none") for name in ("lora", "prefix", "ia3")]
    cohort = Cohort(backbone)
    runs = [begun(bench, cohort.member_backbone(), one, seed) for seed, one in enumerate(members)]
    for _ in range(STEPS):
        assert not cohort.step(runs)
    found = [(state(run), run.evaluate(bench.validation)) for run in runs]
    for run in runs:
        run.model.detach()
    for seed, (one, (own, evaluated)) in enumerate(zip(members, found, strict=True)):
        with begun(bench, backbone, one, seed) as run:
            run.train_to(STEPS)
            assert furthest(own, state(run)) < 1e-9
            expected = run.evaluate(bench.validation)
        assert abs(evaluated.losses - expected.losses).max() < 1e-9
        assert evaluated.predicted == expected.predicted


def test_a_member_that_fails_leaves_the_others_as_they_would_be(bench: Workbench) -> None:
    lost = method("lora", lr=(("linear", 10.0),), head_lr=10.0, max_grad_norm=1e6)
    cohort = Cohort(fp64(bench))
    good, bad = (begun(bench, cohort.member_backbone(), one) for one in (MIXED["lora"], lost))
    running, failed = [good, bad], {}
    while good.step < STEPS:
        failed |= (now := cohort.step(running))
        running = [run for run in running if run not in now]
        for run in now:
            run.model.detach()
    assert list(failed) == [bad]
    assert isinstance(failed[bad], Diverged | NotANumber)
    found = state(good)
    good.model.detach()
    assert furthest(found, alone(bench, MIXED["lora"])[0]) < 1e-9


@pytest.mark.slow
def test_a_pass_that_does_not_fit_leaves_every_run_where_it_was(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = Cohort(fp64(bench))
    runs = [begun(bench, cohort.member_backbone(), one) for one in list(MIXED.values())[:4]]
    cohort.step(runs)
    cohort.step(runs)  # the member that trains in pieces is within a step
    inner = type(bench.objective).loss_of_outputs

    def full(*args: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(type(bench.objective), "loss_of_outputs", full)
    with pytest.raises(OutOfMemory, match="out of memory"):
        cohort.step(runs)
    monkeypatch.setattr(type(bench.objective), "loss_of_outputs", inner)
    fewer = runs[2:]
    while any(run.step < STEPS for run in fewer):
        cohort.step([run for run in fewer if run.step < STEPS])
    found = [state(run) for run in fewer]
    for run in runs:
        run.model.detach()
    for own, one in zip(found, list(MIXED.values())[2:4], strict=True):
        assert furthest(own, alone(bench, one)[0]) < 1e-9


def test_an_optimiser_without_memory_fails_its_own_run_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    cohort = Cohort(fp64(bench))
    good, bad = (begun(bench, cohort.member_backbone(), MIXED["lora"], seed) for seed in (0, 1))
    monkeypatch.setattr(bad.optimiser, "step", full)
    failed = cohort.step([bad, good])
    assert list(failed) == [bad]
    assert isinstance(failed[bad], OutOfMemory)
    assert good.step == 1
    for run in (good, bad):
        run.model.detach()


def test_a_checkpoint_of_a_member_goes_on_alone(bench: Workbench, tmp_path: Path) -> None:
    cohort = Cohort(fp64(bench))
    runs = [begun(bench, cohort.member_backbone(), MIXED[name]) for name in ("lora", "bitfit")]
    for _ in range(7):
        cohort.step(runs)
    runs[0].save(tmp_path / "checkpoint.safetensors")
    for run in runs:
        run.model.detach()
    expected, *_ = alone(bench, MIXED["lora"])
    with begun(bench, fp64(bench), MIXED["lora"]) as run:
        run.restore(tmp_path / "checkpoint.safetensors")
        assert run.step == 7
        run.train_to(STEPS)
        assert furthest(state(run), expected) < 1e-9


class _Asked(TorchDispatchMode):
    """Operations whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            self.found.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("members", [["lora"], list(MIXED)])
def test_on_a_gpu_no_step_waits_for_the_device(
    members: list[str], bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be run there: with the CPU's rules replaced by the GPU's."""
    monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())
    monkeypatch.setitem(loss_monitor._STEPS, "cpu", loss_monitor._STEPS["cuda"])
    cohort = Cohort(backbone_at(Path(bench.backbone.name), torch.float32))
    runs = [begun(bench, cohort.member_backbone(), MIXED[name]) for name in members]
    inner = Cohort._joint
    prepared = []

    def joint(self: Cohort, asked: Any) -> Any:
        """Batches are put together on the host, before anything of the device is touched."""
        prepared.append(inner(self, asked))
        return prepared[-1]

    monkeypatch.setattr(Cohort, "_joint", lambda self, asked: prepared.pop())
    for _ in range(3):
        joint(cohort, runs)
        with _Asked() as asked:
            cohort.step(runs)
        assert asked.found == []
    for run in runs:
        run.model.detach()


def test_losses_of_all_members_are_copied_at_once_every_sixteen_steps(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member joins four passes later, and looks four passes later, at what is not copied."""
    monkeypatch.setitem(loss_monitor._STEPS, "cpu", loss_monitor._STEPS["cuda"])
    copied: list[int] = []
    inner = device_losses._on_host

    def counted(losses: torch.Tensor) -> list[float]:
        copied.append(len(losses))
        return inner(losses)

    monkeypatch.setattr(device_losses, "_on_host", counted)
    cohort = Cohort(fp64(bench))
    names = ("lora", "dora", "bitfit", "ia3")
    runs = [begun(bench, cohort.member_backbone(), MIXED[name]) for name in names]
    for number in range(20):
        assert not cohort.step(runs[:3] if number < 4 else runs)
    smoothed = [run.smoothed_loss for run in runs]
    for run in runs:
        run.model.detach()
    assert copied == [3 * 4 + 4 * 12, 4 * 4]
    for name, found in zip(names, smoothed, strict=True):
        with begun(bench, fp64(bench), MIXED[name]) as run:
            run.train_to(16)
            assert found == pytest.approx(run.smoothed_loss, rel=1e-9)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (method("head-only-mean"), "computed once"),
        (method("lora", dropout=0.1), "its own random stream"),
        (method("lora", checkpointing=True), "computed again"),
        (method("prompt"), "longer than the others'"),
        (method("full"), "nothing would be shared"),
    ],
    ids=["head", "dropout", "checkpointing", "prompt", "full"],
)
def test_what_trains_alone_says_why(one: Configuration, why: str, bench: Workbench) -> None:
    assert why in str(why_not_in_a_cohort(bench.backbone, one))
    assert why_not_in_a_cohort(bench.backbone, MIXED["lora"]) is None
