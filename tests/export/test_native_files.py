"""The native format on disk: bit-equal logits, and no half, changed or foreign export is loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

import peftsearch
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.composition import Gated, Scaled
from peftsearch.design.configuration import Configuration, Head
from peftsearch.design.form import Gelu, Linear, Prefix
from peftsearch.design.insertion import Parallel
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import DataError, MissingError, PeftsearchError
from peftsearch.export import native
from peftsearch.export.native import load, write_native
from peftsearch.task.spec import TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import encode
from peftsearch.training.bench import Workbench
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.labels import outputs_of
from support.backbones import perturb
from support.exports import package

TEXTS = ["the film was good", "a bad and terribly long evening with friends", "no", "no"]

MIXED = Configuration(
    (
        Modification(Prefix(), Place(("attn.heads",), (1,)), composition=Gated(), width=3),
        Modification(Gelu(init="bert"), Place.parse("ffn.out"), composition=Scaled(), width=(1, 4)),
        Modification(
            Linear(), Place.parse("attn.query+out"), Parallel("projection_input"), width=2
        ),
    ),
    Head("mean", "trained", pooler_counts=True),
)
CONFIGURATIONS = {n: m.configuration(Head("first", "trained")) for n, m in METHODS.items()}
CONFIGURATIONS["mixed"] = MIXED


@pytest.fixture(scope="module")
def backbone(tiny_bert: Path) -> Backbone:
    return load_backbone(str(tiny_bert))


def written(folder: Path, backbone: Backbone, configuration: Configuration) -> torch.Tensor:
    """Exports a perturbed configuration; its logits before."""
    split = Split(tuple(TEXTS), None, np.zeros(len(TEXTS), np.int64))
    with TunedModel(backbone, configuration, 2) as model:
        perturb(model.parameters)
        logits = outputs_of(model, encode(split, backbone.tokenizer, 64))
        tensors = {name: p.detach().clone() for name, p in model.stored().items()}
    write_native(folder, package(backbone, configuration), save(tensors))
    return logits


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_logits_are_bit_equal_before_writing_and_after_loading(
    name: str, backbone: Backbone, tmp_path: Path
) -> None:
    logits = written(tmp_path, backbone, CONFIGURATIONS[name])
    assert torch.equal(load(tmp_path).logits(TEXTS), logits)


def test_what_was_evaluated_is_what_is_exported(
    tiny_roberta: Path, tiny_sentiment_csv: Path, tmp_path: Path
) -> None:
    """The averaged weights, not the last step's: predictions and loss are the trial's own."""
    spec = TaskSpec(train=str(tiny_sentiment_csv), text=("text",), label="label")
    bench = Workbench.prepare(str(tiny_roberta), spec)
    configuration = METHODS["mam"].configuration()
    budget = TrainingBudget(max_steps=8)
    with TrainingRun(bench.backbone, bench.train, bench.objective, configuration, budget, 0) as run:
        run.train_to(8)
        measured = run.evaluate(bench.validation)
        run.save_adapter(tmp_path / "trial.safetensors")
    of_export = package(bench.backbone, configuration, bench.max_length)
    write_native(tmp_path / "out", of_export, (tmp_path / "trial.safetensors").read_bytes())
    logits = load(tmp_path / "out").logits(bench.task.validation.texts)
    loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(bench.task.validation.targets))
    assert logits.argmax(-1).tolist() == measured.predicted.tolist()
    assert loss.item() == pytest.approx(measured.loss, rel=1e-5)


@pytest.mark.parametrize("name", ["adapter.safetensors", "configuration.json"])
def test_a_missing_file_is_named(name: str, backbone: Backbone, tmp_path: Path) -> None:
    written(tmp_path, backbone, METHODS["lora"].configuration())
    (tmp_path / name).unlink()
    with pytest.raises((DataError, MissingError), match=re.escape(name)) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("path", ["nothing", "file"])
def test_what_is_no_export_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MissingError, match="no export at"):
        load(tmp_path / path)


def test_an_adapter_cut_at_any_place_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    written(tmp_path, backbone, METHODS["lora"].configuration())
    path = tmp_path / "adapter.safetensors"
    content = path.read_bytes()
    for size in (0, 1, 8, 200, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match="cannot be read as safetensors"):
            load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": "positive"},
        {"max_length": "long"},
        {"unknown": 1},
        {"configuration": {"modifications": 3}},
        {"configuration": {"modifications": [{"form": "lora"}]}},
    ],
    ids=str,
)
def test_a_changed_configuration_file_is_one_sentence(
    change: dict[str, object], backbone: Backbone, tmp_path: Path
) -> None:
    written(tmp_path, backbone, METHODS["lora"].configuration())
    path = tmp_path / "configuration.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PeftsearchError) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_backbone_of_other_weights_is_refused_and_a_moved_one_is_not(
    backbone: Backbone, tiny_bert: Path, tmp_path: Path
) -> None:
    logits = written(tmp_path / "out", backbone, METHODS["lora"].configuration())
    moved = Path(shutil.copytree(tiny_bert, tmp_path / "moved"))
    assert torch.equal(load(tmp_path / "out", model=str(moved)).logits(TEXTS), logits)
    tensors = load_file(moved / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"] *= 1.001
    save_file(tensors, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MissingError, match="is not the backbone this export was trained on"):
        load(tmp_path / "out", model=str(moved))


def test_a_write_that_fails_half_way_is_no_export(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "model_card", full_disk)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "out", backbone, METHODS["lora"].configuration())
    with pytest.raises(MissingError, match="no export at"):
        load(tmp_path / "out")


def test_no_file_of_an_export_is_a_pickle(backbone: Backbone, tmp_path: Path) -> None:
    """A pickle of protocol 2 or later begins with byte 80h, a zip of torch.save with `PK`."""
    written(tmp_path, backbone, MIXED)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {p.name for p in files} == {"README.md", "adapter.safetensors", "configuration.json"}
    for path in files:
        assert path.read_bytes()[:2] not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
        assert path.read_bytes()[:2] != b"PK"
    header = (tmp_path / "adapter.safetensors").read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_the_code_of_the_model_card_runs(backbone: Backbone, tmp_path: Path) -> None:
    written(tmp_path, backbone, MIXED)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(code) == 1
    names: dict[str, object] = {}
    exec(code[0].replace("this folder", str(tmp_path)), names)
    assert isinstance(names["model"], type(peftsearch.load(tmp_path)))
