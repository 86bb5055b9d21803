"""Every saving leaves what is computed as it was: 20 AdamW steps in fp64, and one step in fp32."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftsearch.backbone.loading.load import load_backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.methods import METHODS
from peftsearch.errors import ConfigurationError
from peftsearch.task.spec import TaskSpec
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.bench import Workbench
from peftsearch.training.frozen import activations
from peftsearch.training.frozen import states as frozen
from peftsearch.training.frozen.activations import CACHE
from peftsearch.training.loop import TrainingRun
from peftsearch.training.optimisations import Optimisations
from support.backbones import backbone_at, perturb

EXACT = (
    *("tokens", "short_backward", "activations", "rows", "features", "inference", "fused"),
    *("fused_sum", "causal", "logits", "allocator"),
)
"""Not `buckets`, which trains on other batches."""
BUDGET = TrainingBudget(max_steps=20, rungs=(1.0,))
TRAINING = Training(
    lr=(
        *(("linear", 0.02), ("prefix", 0.02), ("relu", 0.02)),
        *(("constant", 0.01), ("sparse", 0.01)),
    ),
    batch_size=6,
    weight_decay=0.1,
)


@pytest.fixture(scope="module")
def bench(tiny_bert: Path, tiny_sentiment_csv: Path) -> Workbench:
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    return Workbench.prepare(str(tiny_bert), spec)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / "cache"))


def method(name: str, layers: tuple[int, ...] | None, head: Head) -> Configuration:
    own = METHODS[name].configuration().modifications
    return Configuration(tuple(m.on(layers) for m in own), head, TRAINING)


CASES = {
    "lora, upper layer, first": method("lora", (1,), Head("first")),
    "lora, upper layer, mean": method("lora", (1,), Head("mean")),
    "mam, upper layer, first": method("mam", (1,), Head("first")),
    "bitfit, upper layer, first": method("bitfit", (1,), Head("first")),
    "ln-tuning, upper layer, mean": method("ln-tuning", (1,), Head("mean")),
    "scaled-parallel-adapter, upper layer, first": method(
        "scaled-parallel-adapter", (1,), Head("first")
    ),
    "pfeiffer, all layers, first": method("pfeiffer", None, Head("first")),
    "head, mean": Configuration((), Head("mean", "trained"), TRAINING),
    "head, first": Configuration((), Head("first"), TRAINING),
}


def trained(
    bench: Workbench,
    one: Configuration,
    optimisations: Optimisations,
    dtype: torch.dtype = torch.float64,
) -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
    """Parameters and evaluated losses after the whole budget; layers that were kept."""
    backbone = backbone_at(Path(bench.backbone.name), dtype)
    with TrainingRun(
        *(backbone, bench.train, bench.objective, one, BUDGET, 3),
        optimisations=optimisations,
        shared_by=8,
    ) as run:
        run.train_to(run.full_steps)
        losses = torch.from_numpy(run.evaluate(bench.validation).losses)
        values = {n: p.detach().clone() for n, p in run.model.parameters.items()}
    return values, losses, run.frozen.kept_layers


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("name", ["head, first", "lora, upper layer, mean"])
def test_computing_states_is_stopped_and_begun_anew(
    name: str, bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes over all data: who wants to stop does not wait for that."""
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(frozen, "evaluation_tokens", lambda device: 64)  # many batches
    asked = iter([False, False, True])
    backbone = backbone_at(Path(bench.backbone.name), torch.float64)
    own = (backbone, bench.train, bench.objective, CASES[name], BUDGET, 3)
    with TrainingRun(*own, shared_by=8) as run:
        assert not run.train_to(run.full_steps, lambda: next(asked))
        assert run.step == run.frozen.kept_layers == 0
        assert entries(tmp_path) == set()
        assert run.train_to(run.full_steps)
        assert run.frozen.kept_layers > 0
        assert len(entries(tmp_path)) == 1


def entries(cache: Path) -> set[Path]:
    """Files of states, whole or not."""
    return set(cache.rglob("states.bin"))


@pytest.mark.parametrize("name", CASES)
def test_all_of_them_together_change_nothing(name: str, bench: Workbench) -> None:
    with_all, losses, kept = trained(bench, CASES[name], Optimisations())
    without, plain_losses, plain_kept = trained(bench, CASES[name], Optimisations().without(*EXACT))
    assert furthest(with_all, without) < 1e-9
    assert float((losses - plain_losses).abs().max()) < 1e-9
    assert plain_kept == 0
    assert kept == (0 if "all layers" in name else 1 if "upper" in name else 2)


@pytest.mark.slow
@pytest.mark.parametrize("optimisation", EXACT)
def test_each_alone_changes_nothing(optimisation: str, bench: Workbench) -> None:
    name = "head, first" if optimisation == "features" else "lora, upper layer, first"
    own, losses, _ = trained(bench, CASES[name], Optimisations.only("buckets", optimisation))
    plain, plain_losses, _ = trained(bench, CASES[name], Optimisations.only("buckets"))
    assert furthest(own, plain) < 1e-9
    assert float((losses - plain_losses).abs().max()) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_one_step_in_fp32(name: str, bench: Workbench) -> None:
    found = []
    for optimisations in (Optimisations(), Optimisations().without(*EXACT)):
        backbone = backbone_at(Path(bench.backbone.name), torch.float32)
        with TrainingRun(
            *(backbone, bench.train, bench.objective, CASES[name], BUDGET, 3),
            optimisations=optimisations,
            shared_by=8,
        ) as run:
            run.frozen.prepare(bench.train, 9.0, run.model.pooled)
            run.backward(run.objective.loss(run.model, run.train_set, run.next_piece()))
            gradients = {n: p.grad for n, p in run.model.parameters.items() if p.grad is not None}
        found.append({n: g.clone() for n, g in gradients.items()})
    largest = max(float(g.abs().max()) for g in found[1].values())
    assert furthest(found[0], found[1]) <= 1e-4 * largest


def test_kept_states_are_bit_equal_however_they_came_to_be(bench: Workbench) -> None:
    """Made from the texts, from a lower layer's kept states, and read back from the disk."""
    one = CASES["lora, upper layer, first"]
    straight, losses, _ = trained(bench, one, Optimisations(), torch.float32)
    again, losses_again, _ = trained(bench, one, Optimisations(), torch.float32)
    assert furthest(straight, again) == 0
    assert torch.equal(losses, losses_again)
    head = CASES["head, first"]
    from_below, _, _ = trained(bench, head, Optimisations(), torch.float32)
    for entry in CACHE.folder.iterdir():
        entry.rename(entry.with_name(entry.name + ".aside"))
    anew, _, _ = trained(bench, head, Optimisations(), torch.float32)
    assert furthest(from_below, anew) == 0


def test_a_second_trial_computes_no_lower_layer(bench: Workbench) -> None:
    one = CASES["lora, upper layer, first"]
    trained(bench, one, Optimisations(), torch.float32)
    backbone, ran = backbone_at(Path(bench.backbone.name), torch.float32), []
    lowest = backbone.layer(0).get_submodule("output.dense")
    hook = lowest.register_forward_hook(lambda *_: ran.append(1))
    trained(bench, one, Optimisations(), torch.float32)
    assert not ran
    trained(bench, one, Optimisations().without("activations"), torch.float32)
    hook.remove()
    assert ran, "without the optimisation it does"


def test_texts_are_tokenised_before_the_trials_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    kind = type(bench.backbone.tokenizer)
    tokenise = kind.__call__

    def counting(self: object, texts: list[str], *others: object, **options: object) -> object:
        read.append(len(texts))
        return tokenise(self, texts, *others, **options)

    monkeypatch.setattr(kind, "__call__", counting)
    trained(bench, CASES["pfeiffer, all layers, first"], Optimisations(), torch.float32)
    assert not read
    one = CASES["pfeiffer, all layers, first"]
    trained(bench, one, Optimisations().without("tokens"), torch.float32)
    assert sum(read) >= 20 * one.training.batch_size + len(bench.validation)


@pytest.mark.parametrize(
    "one",
    [
        replace(CASES["lora, upper layer, first"], training=replace(TRAINING, dropout=0.1)),
        replace(CASES["head, first"], training=replace(TRAINING, dropout=0.1)),
        method("prompt", None, Head("first")),
        method("bitfit", None, Head("first")),
    ],
    ids=["dropout", "dropout under a head", "prompt", "biases"],
)
def test_nothing_is_kept_where_lower_layers_differ(one: Configuration, bench: Workbench) -> None:
    rates = (("prompt", 0.1), *one.training.lr)
    one = replace(one, training=replace(one.training, lr=rates))
    assert trained(bench, one, Optimisations(), torch.float32)[2] == 0
    assert not CACHE.folder.exists()


def test_other_weights_tokens_or_layers_are_other_entries(bench: Workbench) -> None:
    backbone = backbone_at(Path(bench.backbone.name), torch.float32)
    data = bench.validation
    keys = [activations._key(backbone, data, "after 1 layers")]
    keys.append(activations._key(backbone, data, "after 2 layers"))
    keys.append(activations._key(backbone, bench.train, "after 1 layers"))
    keys.append(
        activations._key(
            backbone_at(Path(bench.backbone.name), torch.float64), data, "after 1 layers"
        )
    )
    other = load_backbone(bench.backbone.name, dtype=torch.float32)
    with torch.no_grad():
        other.model.get_parameter("encoder.layer.0.output.dense.bias")[3] += 1e-3
    keys.append(activations._key(other, data, "after 1 layers"))
    assert len({str(key) for key in keys}) == len(keys)


def test_what_stands_in_a_weights_place_is_no_part_of_an_entrys_name(bench: Workbench) -> None:
    backbone = load_backbone(bench.backbone.name, dtype=torch.float32)
    clean = activations.backbone_digest(load_backbone(bench.backbone.name, dtype=torch.float32))
    one = CASES["bitfit, upper layer, first"]
    with TrainingRun(*(backbone, bench.train, bench.objective, one, BUDGET, 3), shared_by=8) as run:
        perturb(dict(run.model.attachment.tensors))
        assert activations._key(backbone, bench.train, "x")["backbone"] == clean


def test_without_room_nothing_is_kept_and_nothing_lost(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = CASES["lora, upper layer, first"]
    expected, _, _ = trained(bench, one, Optimisations().without("activations"))
    monkeypatch.setenv("PEFTSEARCH_ACTIVATIONS_GB", "0.000001")
    found, _, kept = trained(bench, one, Optimisations())
    assert kept == 0
    assert furthest(found, expected) == 0


def test_a_cache_that_cannot_be_written_costs_time_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = CASES["lora, upper layer, first"]
    expected, _, _ = trained(bench, one, Optimisations().without("activations"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("PEFTSEARCH_CACHE", str(tmp_path / "file" / "cache"))
    found, _, kept = trained(bench, one, Optimisations())
    assert kept == 0
    assert furthest(found, expected) == 0


def test_a_full_disk_leaves_no_half_entry(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(activations.os, "posix_fallocate", full)
    assert trained(bench, CASES["lora, upper layer, first"], Optimisations())[2] == 0
    assert list(CACHE.folder.iterdir()) == []


def test_beyond_the_limit_the_oldest_entries_go(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(bench, CASES["head, first"], Optimisations(), torch.float32)
    trained(bench, CASES["lora, upper layer, first"], Optimisations(), torch.float32)
    pooled, states = 2, 2  # of training and validation examples
    assert len(list(CACHE.folder.glob("*/entry.json"))) == pooled + states
    sizes = sorted(path.stat().st_size for path in CACHE.folder.glob("*/states.bin"))
    monkeypatch.setenv("PEFTSEARCH_ACTIVATIONS_GB", str(1.2 * sum(sizes[-2:]) / 1e9))
    one = CASES["lora, upper layer, first"]
    trained(bench, one, Optimisations(), torch.float64)  # entries twice as large
    assert CACHE.bytes <= CACHE.limit


def test_states_in_half_precision_are_kept_as_such(bench: Workbench) -> None:
    one = CASES["lora, upper layer, mean"]
    values, _, kept = trained(bench, one, Optimisations(), torch.bfloat16)
    plain, _, _ = trained(bench, one, Optimisations().without("activations"), torch.bfloat16)
    assert kept == 1
    assert furthest(values, plain) < 0.02
    size = sum(path.stat().st_size for path in CACHE.folder.glob("*/states.bin"))
    tokens = int(bench.train.lengths.sum() + bench.validation.lengths.sum())
    assert size == 2 * tokens * bench.backbone.shapes.hidden


def test_a_truncated_entry_is_made_anew(bench: Workbench) -> None:
    one = CASES["lora, upper layer, first"]
    expected, _, _ = trained(bench, one, Optimisations(), torch.float32)
    entries = list(CACHE.folder.glob("*/states.bin"))
    assert len(entries) == 2
    for path in entries:
        path.write_bytes(path.read_bytes()[:-8])
    found, _, kept = trained(bench, one, Optimisations(), torch.float32)
    assert kept == 1
    assert furthest(found, expected) == 0


def test_the_first_examples_are_read_from_the_whole_set(bench: Workbench) -> None:
    few = bench.validation.first(5)
    assert few.whole is bench.validation
    assert few.first(2).whole is bench.validation
    with TrainingRun(
        *(backbone_at(Path(bench.backbone.name), torch.float64), bench.train, bench.objective),
        *(CASES["lora, upper layer, first"], BUDGET, 3),
        shared_by=8,
    ) as run:
        whole = run.evaluate(bench.validation).losses
        part = run.evaluate(bench.validation, limit=5).losses
    assert abs(whole[:5] - part).max() < 1e-12
    assert len(list(CACHE.folder.glob("*/states.bin"))) == 1


def test_an_unknown_optimisation_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'activation' unknown; did you mean"):
        Optimisations().without("activation")


def test_digests_differ_with_padding_and_tokens(bench: Workbench) -> None:
    data: Encoded = bench.validation
    assert data.digest != replace(data, pad_id=data.pad_id + 1).digest
    flat = data.inputs.flat.clone()
    flat[0] += 1
    assert data.digest != replace(data, inputs=replace(data.inputs, flat=flat)).digest
