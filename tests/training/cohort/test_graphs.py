"""Passes played from recordings give what ordinary passes give, or are not used.

CUDA graphs as a CPU can have them (`support/emulated_graphs.py`), and at the end those of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach import attention
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Form, Relu
from peftsearch.design.methods import METHODS
from peftsearch.errors import TrialFailure
from peftsearch.task.spec import TaskSpec
from peftsearch.training import loss_monitor
from peftsearch.training.bench import Workbench
from peftsearch.training.cohort import cohort as cohort_module
from peftsearch.training.cohort import graph_cache as graphs_module
from peftsearch.training.cohort import joint_batch as joint_module
from peftsearch.training.cohort import recorded_pass
from peftsearch.training.cohort.cohort import Cohort, member_optimisations
from peftsearch.training.cohort.graph_cache import PAYS, GraphCache
from peftsearch.training.cohort.joint_batch import JointBatch
from peftsearch.training.cohort.recorded_pass import agree, result_of
from peftsearch.training.cohort.shared_pass import SharedPass
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations
from support.backbones import backbone_at
from support.emulated_graphs import EmulatedGraph, EmulatedRecorder
from support.graph_nodes import AccumulateNodes
from support.tiny import copying_rows, scored_rows, tagged_rows, write_csv

STEPS = 20
BUDGET = TrainingBudget(max_steps=STEPS, rungs=(0.5, 1.0))
ALONE = member_optimisations(Optimisations())
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are not read, few lengths, and replays count as faster unless a test says otherwise."""
    monkeypatch.setattr(attention, "MASK_SKIP_DEVICES", ())
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 8)
    monkeypatch.setattr(graphs_module, "PAYS", float("inf"))


def method(name: str, pooling: str = "mean", **training: Any) -> Configuration:
    settings = {"batch_size": 6, "weight_decay": 0.1, "head_lr": 1e-2, **training}
    return METHODS[name].configuration(Head(pooling), Training(**settings))  # type: ignore[arg-type]


MIXED = {
    "lora": method("lora"),
    "another lora": method("lora", lr=(("linear", 3e-3),)),
    "mam": method("mam", batch_size=10),
    "houlsby": method("houlsby", accumulation=2),
    "bitfit": method("bitfit", lr=(("constant", 3e-3),)),
    "prefix": method("prefix", max_grad_norm=0.1),
    "ia3": method("ia3", "first"),
    "pfeiffer": method("pfeiffer"),
    "unipelt": method("unipelt"),
    "dora": method("dora"),
}


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    """32 examples: five batches of six and a last one of two."""
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    made = Workbench.prepare(str(tiny_bert), spec)
    return replace(made, train=made.train.first(32))


def fp64(bench: Workbench) -> Backbone:
    return backbone_at(Path(bench.backbone.name), torch.float64)


def begun(bench: Workbench, cohort: Cohort, one: Configuration, seed: int = 0) -> TrainingRun:
    data = bench.train, bench.objective
    return TrainingRun(cohort.member_backbone(), *data, one, BUDGET, seed, optimisations=ALONE)


def state(run: TrainingRun) -> State:
    run.loss_monitor.check()
    own = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    own |= {f"average/{n}": v.clone() for n, v in run.average.values.items()}
    return own | {"loss": torch.tensor(run.smoothed_loss)}


def assert_same(found: Sequence[State], expected: Sequence[State]) -> None:
    """To the last bit."""
    for own, other in zip(found, expected, strict=True):
        assert own.keys() == other.keys()
        for name, value in own.items():
            assert torch.equal(value, other[name]), name


def trained(
    bench: Workbench, cohort: Cohort, members: Sequence[Configuration], at_once: int = 4
) -> list[State]:
    """So many begin at once, and others twelve passes later; they leave when they are done."""
    waiting = list(enumerate(members))
    running: dict[int, TrainingRun] = {}
    ends: dict[int, State] = {}
    passes = 0
    while waiting or running:
        if waiting and passes % 12 == 0:
            for seed, one in waiting[:at_once]:
                running[seed] = begun(bench, cohort, one, seed)
            waiting = waiting[at_once:]
        if running:
            assert not cohort.step(list(running.values()))
        passes += 1
        for seed, run in list(running.items()):
            if run.step == STEPS:
                ends[seed] = state(run)
                running.pop(seed).model.detach()
    return [ends[seed] for seed in range(len(members))]


class Emulated:
    """A cohort whose passes are recorded."""

    def __init__(self, backbone: Backbone, recorder: EmulatedRecorder | None = None) -> None:
        self.recorder = recorder or EmulatedRecorder()
        self.said: list[str] = []
        self.graphs = GraphCache(self.recorder, self.said.append)
        self.cohort = Cohort(backbone, self.graphs)


@pytest.mark.slow
@pytest.mark.parametrize("names", [list(MIXED)[:5], list(MIXED)[5:]], ids=" ".join)
def test_mixed_methods_train_the_same_while_members_join_and_leave(
    names: list[str], bench: Workbench
) -> None:
    members = [MIXED[name] for name in names]
    emulated = Emulated(fp64(bench))
    found = trained(bench, emulated.cohort, members, at_once=3)
    assert_same(found, trained(bench, Cohort(fp64(bench)), members, at_once=3))
    assert emulated.recorder.made >= 3, "of three, five, and two members"
    assert emulated.recorder.played > 10
    assert emulated.said == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "houlsby", "unipelt"])
def test_one_by_itself_trains_the_same_on_batches_of_several_lengths(
    name: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 5)
    emulated = Emulated(fp64(bench))
    found = trained(bench, emulated.cohort, [MIXED[name]])
    assert_same(found, trained(bench, Cohort(fp64(bench)), [MIXED[name]]))
    assert emulated.recorder.made == emulated.graphs.held == 3
    assert emulated.recorder.played >= STEPS / 2
    assert "native_layer_norm_backward" in emulated.recorder.names, "forward and backward"


@pytest.mark.slow
def test_a_smaller_batch_filled_up_is_that_batch(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = trained(bench, Cohort(fp64(bench)), [MIXED["lora"], MIXED["houlsby"]])
    monkeypatch.delitem(joint_module._MULTIPLE, "cpu")
    as_they_are = trained(bench, Cohort(fp64(bench)), [MIXED["lora"], MIXED["houlsby"]])
    for own, other in zip(filled, as_they_are, strict=True):
        assert max(float((own[name] - other[name]).abs().max()) for name in own) < 1e-9


def joined_tags(rows: int) -> list[dict[str, str]]:
    return [{"text": row["text"], "tags": "|".join(row["tags"])} for row in tagged_rows(rows)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind", "rows"),
    [
        ("tiny_bert", "regression", scored_rows),
        ("tiny_bert", "multilabel", joined_tags),
        ("tiny_bart", "classification", None),
        ("tiny_llama", "classification", None),
        ("tiny_bart", "seq2seq", copying_rows),
        ("tiny_llama", "causal", copying_rows),
    ],
)
def test_every_objective_and_kind_of_model_trains_the_same(
    model: str,
    kind: str,
    rows: Callable[[int], list[dict[str, str]]] | None,
    tmp_path: Path,
    tiny_sentiment_csv: Path,
    request: pytest.FixtureRequest,
) -> None:
    data = tiny_sentiment_csv if rows is None else write_csv(tmp_path / "rows.csv", rows(60))
    folder = request.getfixturevalue(model)
    bench = Workbench.prepare(str(folder), TaskSpec(train=str(data), kind=kind), precision="fp32")
    bench = replace(bench, train=bench.train.first(40))
    pooling = "none" if bench.writing is not None else "last"
    members = [method(name, pooling, label_smoothing=0.1) for name in ("lora", "prefix", "ia3")]
    emulated = Emulated(bench.backbone)
    found = trained(bench, emulated.cohort, members)
    assert emulated.said == []
    assert_same(found, trained(bench, Cohort(bench.backbone), members))
    assert emulated.recorder.played > STEPS / 3


IN_BF16 = [method(name, precision="bf16") for name in ("bitfit", "ln-tuning", "lora", "loreft")]
"""Copies of biases and norms are cast to the backbone's dtype in every forward."""


@pytest.fixture(scope="module")
def bf16_bench(bench: Workbench) -> Workbench:
    return bench.for_training(Training(precision="bf16"))


def test_every_pass_has_nodes_of_its_own_in_bf16(bf16_bench: Workbench) -> None:
    """On a GPU a node of the pass before would run on that one's stream, in the capture as well."""
    cohort = Cohort(bf16_bench.backbone)
    runs = [begun(bf16_bench, cohort, one) for one in IN_BF16]
    nodes = AccumulateNodes(
        {f"{i}/{n}": p for i, run in enumerate(runs) for n, p in run.model.parameters.items()}
    )
    for _ in range(3):
        cohort.step(runs)
        assert nodes.left == []
    assert len(nodes.ran) > 0.9 * len(nodes.parameters)
    for run in runs:
        run.model.detach()


@pytest.mark.slow
def test_in_bf16_cohorts_train_the_same(bf16_bench: Workbench) -> None:
    emulated = Emulated(bf16_bench.backbone)
    found = trained(bf16_bench, emulated.cohort, IN_BF16[:3])
    assert_same(found, trained(bf16_bench, Cohort(bf16_bench.backbone), IN_BF16[:3]))
    assert emulated.said == []
    assert emulated.recorder.played > STEPS / 3


# -- what is recorded is not trusted -----------------------------------------------------------


class _Frozen(EmulatedRecorder):
    """Gives back what the recording gave first, whatever it reads."""

    def record(self, function: Callable[[], Tensor]) -> EmulatedGraph:
        graph = super().record(function)
        read = [o for o in graph.tape.operations if o.name == "embedding"]
        assert read
        graph.tape.operations = [o for o in graph.tape.operations if o not in read]
        with torch.no_grad():
            for operation in read:
                operation()
        return graph


class _Failing(EmulatedRecorder):
    def __init__(self, error: Exception, replays: int = 0) -> None:
        super().__init__()
        self.error, self.replays = error, replays

    def record(self, function: Callable[[], Tensor]) -> EmulatedGraph:
        graph = super().record(function)
        if not self.replays:
            raise self.error
        inner = graph.replay

        def replay() -> None:
            if self.played == self.replays:
                raise self.error
            inner()

        graph.replay = replay  # type: ignore[method-assign]
        return graph


class _NotSurviving(_Failing):
    survives_errors = False


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")
NOT_PERMITTED = RuntimeError("CUDA error: operation not permitted when stream is capturing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recorder", "why", "times"),
    [
        (_Frozen(), "did not compute what", 2),
        (_Failing(OUT_OF_MEMORY), "Tried to allocate 2.00 GiB", 2),
        (_Failing(NOT_PERMITTED), "not permitted", 3),
        (_Failing(KeyError()), "KeyError", 3),
        (_NotSurviving(NOT_PERMITTED), "not permitted", 1),
        (_Failing(NOT_PERMITTED, replays=3), "not permitted", 2),
    ],
    ids=["wrong", "memory", "error", "without a message", "old torch", "later"],
)
def test_what_goes_wrong_is_said_once_and_changes_nothing(
    recorder: EmulatedRecorder, why: str, times: int, bench: Workbench
) -> None:
    """Once for each of two crews, or, while kinds of members are tried by themselves, three times;
    with a torch that does not survive it, once.
    """
    members = [MIXED["lora"], MIXED["houlsby"], MIXED["mam"]]
    emulated = Emulated(fp64(bench), recorder)
    found = trained(bench, emulated.cohort, members, at_once=3)
    assert_same(found, trained(bench, Cohort(fp64(bench)), members, at_once=3))
    assert why in emulated.said[0]
    assert "\n" not in emulated.said[0]
    assert len(emulated.said) == recorder.made == times
    assert emulated.graphs.held == 0


@pytest.mark.slow
def test_after_a_few_failures_nothing_is_recorded_any_more(bench: Workbench) -> None:
    emulated = Emulated(fp64(bench), _Failing(OUT_OF_MEMORY))
    for _ in range(5):
        trained(bench, emulated.cohort, [MIXED["bitfit"]])
    assert emulated.recorder.made == len(emulated.said) == 3
    assert ["any more" in line for line in emulated.said] == [False, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_replay_that_fails_half_way_through_its_gradients_is_begun_anew(
    accumulation: int, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the first run are added by then."""
    members = [method("lora", accumulation=accumulation), MIXED["bitfit"]]
    expected = trained(bench, Cohort(fp64(bench)), members)
    emulated = Emulated(fp64(bench))
    inner, calls = recorded_pass.add, []

    def failing(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OUT_OF_MEMORY
        inner(*arguments, **options)

    monkeypatch.setattr(recorded_pass, "add", failing)
    assert_same(trained(bench, emulated.cohort, members), expected)
    assert len(calls) > 1
    assert "Tried to allocate" in emulated.said[0]


def test_a_recording_that_forgets_one_small_gradient_is_found(bench: Workbench) -> None:
    """An adapter's gradients may be a hundredth of the head's: they are compared all the same."""
    cohort = Cohort(fp64(bench))
    run = begun(bench, cohort, MIXED["houlsby"])
    do = SharedPass(cohort.backbone, cohort.slices, [run])
    losses, gradients = result_of(do, do.parameters, JointBatch.next_of([run], cohort.backbone))
    largest = [float(g.abs().max()) for g in gradients if g is not None]
    for index, gradient in enumerate(gradients):
        assert gradient is not None
        if largest[index] > 1e-5 * max(largest):
            wrong = [*gradients]
            wrong[index] = torch.zeros_like(gradient)
            assert agree((losses, wrong), (losses, gradients), do) is False, index
    assert min(largest) < 1e-2 * max(largest)
    assert agree((losses, gradients), (losses, gradients), do) is True
    run.model.detach()


def test_gradients_that_are_no_numbers_say_nothing_of_a_recording(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run fails by itself."""
    monkeypatch.setitem(loss_monitor._STEPS, "cpu", 16)
    emulated = Emulated(fp64(bench))
    run = begun(bench, emulated.cohort, MIXED["lora"])
    with torch.no_grad():
        run.parameters[0].fill_(float("inf"))
    failed: dict[TrainingRun, TrialFailure] = {}
    while not failed:
        failed = emulated.cohort.step([run])
    run.model.detach()
    assert emulated.recorder.made > 1
    assert emulated.said == []


@pytest.mark.slow
def test_a_pass_that_needs_the_memory_of_recordings_gets_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second piece of a step, which begins anew."""
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 5)
    expected = trained(bench, Cohort(fp64(bench)), [MIXED["houlsby"]])
    emulated = Emulated(fp64(bench))
    inner, refused = SharedPass.__call__, []

    def full(self: SharedPass, joint: JointBatch) -> Tensor:
        if emulated.recorder.played > 2 and emulated.graphs.held and self.runs[0].pieces.all_taken:
            refused.append(joint.counts)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, joint)

    monkeypatch.setattr(SharedPass, "__call__", full)
    found = trained(bench, emulated.cohort, [MIXED["houlsby"]])
    assert_same(found, expected)
    assert len(refused) == 1
    assert emulated.said == ["continuing without CUDA graphs: their memory is needed"]
    assert emulated.graphs.held == 0


# -- members that cannot be recorded -----------------------------------------------------------


class _Refusing(EmulatedRecorder):
    """Refuses passes with one operation in them, which no form declares."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation, self.refused = operation, 0

    def record(self, function: Callable[[], Tensor]) -> EmulatedGraph:
        graph = super().record(function)
        if self.operation in self.names:
            self.refused += 1
            raise NOT_PERMITTED from KeyError(self.operation)
        return graph


def assert_close(found: Sequence[State], expected: Sequence[State]) -> None:
    """As far as members in passes of other sizes are."""
    for own, other in zip(found, expected, strict=True):
        assert max(float((own[name] - other[name]).abs().max()) for name in own) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("third", "refused"), [("bitfit", 1), ("ia3", 2)])
def test_a_member_that_cannot_be_recorded_is_found_and_the_others_are_replayed(
    third: str, refused: int, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Suspects are tried in the order of their forms' names: constant, linear, relu, rescale. That
    of all three is refused, and then, unless both others were cleared before it, relu's own.
    """
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 64)
    members = [method("lora"), method("houlsby"), method(third, "first")]
    emulated = Emulated(fp64(bench), _Refusing("relu"))
    found = trained(bench, emulated.cohort, members)
    assert_close(found, trained(bench, Cohort(fp64(bench)), members))
    recorder = emulated.recorder
    assert isinstance(recorder, _Refusing)
    assert recorder.refused == len(emulated.said) == refused
    assert not any("any more" in line for line in emulated.said)
    assert "relu" not in recorder.names, "the last recording is of the other two"
    assert recorder.played > STEPS / 4
    assert not emulated.graphs.is_over


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2])
def test_loreft_passes_by_itself_beside_recorded_passes(
    place: int, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 64)
    members = [method("lora"), method("ia3", "first")]
    members.insert(place, method("loreft", accumulation=2))
    emulated = Emulated(fp64(bench))
    found = trained(bench, emulated.cohort, members)
    assert_close(found, trained(bench, Cohort(fp64(bench)), members))
    assert emulated.recorder.made == 1
    assert not any("qr" in name for name in emulated.recorder.names)
    assert emulated.recorder.played > STEPS / 2
    assert emulated.said == []


def test_runs_that_cannot_be_recorded_count_only_those_that_shared_their_pass(
    bench: Workbench,
) -> None:
    emulated = Emulated(fp64(bench))
    runs = [begun(bench, emulated.cohort, method(name)) for name in ("lora", "loreft", "ia3")]
    emulated.cohort.step(runs)
    assert [run.cohort for run in runs] == [2, 1, 2]
    assert emulated.cohort.was_ordinary
    assert all(run.wall_s > 0 for run in runs)
    emulated.cohort.step(runs[1:2])
    assert [run.step for run in runs] == [1, 2, 1]
    for run in runs:
        run.model.detach()


@pytest.mark.slow
def test_a_wait_that_an_ordinary_pass_shows_costs_no_failed_capture(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This matters where torch does not survive one."""
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 64)
    inner = Relu.delta

    def waiting(self: Relu, tensors: Any, source: Tensor) -> Tensor:
        return inner(self, tensors, source) * float(torch.ones(()).item())

    monkeypatch.setattr(Relu, "delta", waiting)
    monkeypatch.setattr(Relu, "add_to", Form.add_to)
    recorder = EmulatedRecorder(notices=True)
    recorder.survives_errors = False
    emulated = Emulated(fp64(bench), recorder)
    for members in ([method("houlsby")], [method("lora"), method("houlsby")]):
        trained(bench, emulated.cohort, members)
    assert emulated.said == [
        "continuing without CUDA graphs: a pass waits for the device (_local_scalar_dense)"
    ]
    assert recorder.made == 1
    assert recorder.played > STEPS / 2


# -- where it pays -----------------------------------------------------------------------------


class _Timed(EmulatedRecorder):
    """A clock by which an ordinary pass takes 10 s, and a replay so long."""

    def __init__(self, replay_s: float) -> None:
        super().__init__()
        self.replay_s, self.marks = replay_s, 0

    def mark(self) -> float:
        self.marks += 1
        return float(self.played)

    def seconds(self, first: float, second: float) -> float:
        return self.replay_s if second > first else 10.0


@pytest.mark.slow
@pytest.mark.parametrize(("replay_s", "pays"), [(8.9, True), (9.1, False)])
def test_recordings_are_used_where_they_are_faster(
    replay_s: float, pays: bool, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs_module, "PAYS", PAYS)
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 64)
    recorder = _Timed(replay_s)
    emulated = Emulated(fp64(bench), recorder)
    found = trained(bench, emulated.cohort, [MIXED["lora"]])
    assert_same(found, trained(bench, Cohort(fp64(bench)), [MIXED["lora"]]))
    assert recorder.made == 1
    compared, timed = 1, 3
    assert recorder.played == (STEPS - 3 if pays else compared + timed)
    assert recorder.marks == 2 * (2 + timed), "nothing is timed once it is decided"
    assert emulated.graphs.held == int(pays)


def test_only_so_many_are_kept_and_what_is_no_longer_used_gives_way(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(joint_module._MULTIPLE, "cpu", 1)
    monkeypatch.setattr(graphs_module, "_MAX_RECORDINGS", 1)
    held: list[int] = []
    for stale, recorded in ((1000, 1), (0, 6)):
        monkeypatch.setattr(graphs_module, "_STALE", stale)
        emulated = Emulated(fp64(bench))
        run = begun(bench, emulated.cohort, MIXED["bitfit"])
        while run.step < STEPS:
            emulated.cohort.step([run])
            held.append(emulated.graphs.held)
        run.model.detach()
        assert emulated.recorder.made == recorded
    assert max(held) == 1


def test_what_is_recorded_of_members_is_forgotten_when_they_change(bench: Workbench) -> None:
    emulated = Emulated(fp64(bench))
    runs = [begun(bench, emulated.cohort, MIXED[name]) for name in ("lora", "bitfit")]
    while emulated.recorder.played < 2:
        emulated.cohort.step(runs)
    assert emulated.graphs.held
    played = emulated.recorder.played
    emulated.cohort.step(runs[::-1])  # members are sorted: it is the same pass
    assert (emulated.graphs.held, emulated.recorder.played) == (1, played + 1)
    emulated.cohort.step(runs[:1])
    assert (emulated.graphs.held, emulated.recorder.played) == (0, played + 1)
    while emulated.recorder.played < played + 3:
        emulated.cohort.step(runs[:1])
    for parameter in runs[0].model.parameters.values():
        parameter.data = parameter.data.clone()  # elsewhere in memory
    emulated.cohort.step(runs[:1])
    assert emulated.graphs.held == 0
    for run in runs:
        run.model.detach()


def test_the_switch_and_a_cpu_record_nothing(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = EmulatedRecorder()
    assert Cohort.of(bench.backbone, Optimisations()).graphs is None
    monkeypatch.setattr(cohort_module, "recorder_for", lambda device: recorder)
    for optimisations, records in (
        (Optimisations().without("graphs"), False),
        (Optimisations(), True),
    ):
        trained(bench, Cohort.of(bench.backbone, optimisations), [MIXED["lora"]])
        assert (recorder.made > 0) == records


# -- the emulation itself ----------------------------------------------------------------------


def test_what_a_gpu_cannot_record_is_refused() -> None:
    x = torch.ones(3)
    for function in (
        lambda: x * x.sum().item(),
        lambda: x[x > 0],
        lambda: x + torch.tensor([1.0, 2.0, 3.0]),
    ):
        with pytest.raises(RuntimeError, match="not permitted"):
            EmulatedRecorder().record(function)
    with pytest.raises(AssertionError, match="was there before"):
        EmulatedRecorder().record(lambda: x.add_(1))


def test_what_is_no_tensor_is_frozen_and_what_is_one_is_read_anew() -> None:
    recorder, x, weight = EmulatedRecorder(), torch.ones(2, requires_grad=True), 2.0

    def computed() -> Tensor:
        y = (x * weight).exp().sum()
        y.backward()
        return y.detach()

    graph = recorder.record(computed)
    assert x.grad is not None
    weight = 5.0
    with torch.no_grad():
        x.copy_(torch.tensor([0.0, 1.0]))
    graph.replay()
    expected = torch.tensor([0.0, 2.0]).exp()
    assert torch.equal(graph.output, expected.sum())
    assert torch.equal(x.grad, 2 * expected)
    recorder.record(lambda: x * 2)
    assert graph.output.isnan()


# -- a GPU -------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("members", [1, 4])
def test_on_a_gpu_graphs_give_what_ordinary_passes_give(
    members: int, precision: str, tiny_bert: Path, tiny_sentiment_csv: Path
) -> None:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    bench = Workbench.prepare(str(tiny_bert), spec, "cuda", precision=precision)
    some = list(MIXED.values())[:members]
    said: list[str] = []
    with_graphs = Cohort.of(bench.backbone, Optimisations(), said.append)
    recorder = _counted(with_graphs)
    found = trained(bench, with_graphs, some)
    assert said == []
    assert recorder
    expected = trained(bench, Cohort.of(bench.backbone, Optimisations().without("graphs")), some)
    for own, other in zip(found, expected, strict=True):
        for name, value in own.items():
            assert torch.allclose(value, other[name], rtol=0, atol=1e-3), name


def _counted(cohort: Cohort) -> list[object]:
    """A list that grows with every replay that is taken for a pass."""
    assert cohort.graphs is not None
    played: list[object] = []
    inner = cohort.graphs._replay

    def play(*arguments: Any) -> Tensor:
        played.append(arguments)
        return inner(*arguments)

    cohort.graphs._replay = play  # type: ignore[method-assign]
    return played
