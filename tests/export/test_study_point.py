"""From a study to an export: which point, and what is said when it cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save

from peftsearch.backbone.loading.load import load_backbone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import NothingFeasible, UsageError
from peftsearch.export import native
from peftsearch.export.peft.write import why_not_peft
from peftsearch.export.recipe import Recipe
from peftsearch.export.study_point import export_point
from peftsearch.records.folder import StudyFolder
from peftsearch.training.model import TunedModel
from support.backbones import backbone_at
from support.standin import create, open_study, take, train_for_nothing

TRIALS = 6


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study of six trials, the last one stopped early, none of them with weights."""
    folder = create(tiny_bert, tmp_path_factory.mktemp("studies"))
    study = open_study(folder)
    for number in range(TRIALS):
        train_for_nothing(study, take(study), stop_early=number == TRIALS - 1)
    return folder


def full(folder: StudyFolder) -> list[int]:
    return [r.number for r in folder.read().results if r.state == "full"]


def test_a_recipe_is_the_trials_own_configuration(folder: StudyFolder, tmp_path: Path) -> None:
    for number in full(folder):
        result = export_point(folder, f"#{number}", "recipe", tmp_path / f"a/{number}.yaml")
        configuration = Recipe.read(tmp_path / f"a/{number}.yaml").parsed()
        assert result.number == number
        assert configuration.hash == result.configuration_hash


def test_weights_that_are_gone_are_named_with_the_way_out(
    folder: StudyFolder, tmp_path: Path
) -> None:
    for to in ("native", "peft"):
        with pytest.raises(UsageError, match="is missing: export a recipe and train it again"):
            export_point(folder, f"#{full(folder)[0]}", to, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["native", "peft", "recipe"])
def test_a_configuration_that_is_none_is_named_with_its_file(
    to: str, tiny_bert: Path, tmp_path: Path
) -> None:
    own = create(tiny_bert, tmp_path)
    study = open_study(own)
    train_for_nothing(study, take(study))
    (number,) = full(own)
    trial = own.trial(number)
    result = json.loads(trial.result_path.read_text())
    result["configuration"]["training"] = []
    trial.result_path.write_text(json.dumps(result))
    trial.adapter_path.write_bytes(save({}))
    with pytest.raises(UsageError, match=rf"{number:05}/result\.json: damaged \(.*training"):
        export_point(own, f"#{number}", to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stopped_trial_is_no_point(folder: StudyFolder, tmp_path: Path) -> None:
    (stopped,) = (r.number for r in folder.read().results if r.state == "stopped")
    with pytest.raises(UsageError, match=rf"trial {stopped} did not reach full length \(stopped\)"):
        export_point(folder, f"#{stopped}", "native", tmp_path / "out")


@pytest.mark.parametrize("at", ["#99", "#²", "#", "worst", "-1", "nan"])
def test_a_point_that_is_not_there_is_one_sentence(
    at: str, folder: StudyFolder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        export_point(folder, at, "recipe", tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.yaml").exists()


def test_an_empty_study_has_nothing_to_export(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingFeasible, match="the frontier is empty"):
        export_point(create(tiny_bert, tmp_path), "best", "recipe", tmp_path / "r.yaml")


def test_an_export_that_is_cut_off_is_none(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor new weights beside what an earlier one said of its own."""
    own, out = create(tiny_bert, tmp_path), tmp_path / "OUT"
    study = open_study(own)
    train_for_nothing(study, take(study))
    own.trial(0).adapter_path.write_bytes(save({}))
    export_point(own, "best", "native", out)
    assert (out / "configuration.json").exists()
    written: list[str] = []

    def dies(path: Path, content: bytes | str) -> None:
        written.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "write_atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        export_point(own, "best", "native", out)
    assert written == ["adapter.safetensors"]
    assert list(out.iterdir()) == []


def test_a_place_that_is_taken_is_left_alone(folder: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file: choose another place"):
        export_point(folder, "best", "native", tmp_path / "file")
    with pytest.raises(UsageError, match="is a folder: choose another place"):
        export_point(folder, "best", "recipe", tmp_path)
    with pytest.raises(UsageError, match=r"with other files in it \(file\): name a new one"):
        export_point(folder, "best", "native", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "README.md").exists()


def test_a_study_exports_its_loras_to_peft_and_says_of_the_others_why_not(
    folder: StudyFolder, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = backbone_at(tiny_bert)
    study = folder.study_path
    fingerprint = load_backbone(str(tiny_bert)).fingerprint
    study.write_text(json.dumps(json.loads(study.read_text()) | {"model_fingerprint": fingerprint}))
    forms = set()
    for result in folder.read().results:
        if result.state != "full":
            continue
        configuration = Configuration.from_json(result.configuration or {})
        with TunedModel(backbone, configuration, 2) as model:
            tensors = {n: p.detach().float().clone() for n, p in model.stored().items()}
        path = folder.trial(result.number).adapter_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(save(tensors))
        out, reason = tmp_path / str(result.number), why_not_peft(configuration, backbone.family)
        forms.add(reason is None)
        if reason is None:
            export_point(folder, f"#{result.number}", "peft", out)
        else:
            with pytest.raises(UsageError, match=f"trial {result.number} cannot be exported to"):
                export_point(folder, f"#{result.number}", "peft", out)
        assert (out / "adapter_config.json").exists() == (reason is None)
        path.unlink()
    assert forms == {True, False}
