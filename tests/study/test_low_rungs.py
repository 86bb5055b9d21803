"""`--low-rungs`: written down rung by rung, shown, repeated by a recipe, and refused where it
would change nothing or cannot be had.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from peftsearch.api.resume import existing_study
from peftsearch.backbone.savings import low_precision
from peftsearch.backbone.savings.low_precision import LOW_PRECISIONS
from peftsearch.cli.main import run
from peftsearch.errors import MissingError
from peftsearch.records.records import RungValue, StudyInfo
from peftsearch.workers import worker
from support.worker_here import search_in_this_process

needs_int8 = pytest.mark.skipif(
    not LOW_PRECISIONS["int8"].is_here, reason="needs VNNI instructions"
)
SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, epochs: 2, rungs: [0.5, 1], rung_examples: 10}
places: {attn: {at: [query+value, heads]}}
choices:
  attn: {form: [linear, relu, prefix], composition: [add, {scaled: {s: [2, 4]}}, gated]}
train: {batch_size: 16}
seed_with: [head-only-mean, lora]
"""


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sentiment_csv: Path
) -> Path:
    home = tmp_path_factory.mktemp("low")
    (home / "space.yaml").write_text(SPACE)
    (home / "data.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    (home / "model").symlink_to(tiny_bert)
    return home


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)


def search(*more: str, space: str = "space.yaml") -> int:
    words = ["search", space, "--model", "model", "--train", "data.csv", "--trials", "3"]
    return run([*words, *more])


@pytest.fixture(scope="module")
def trials(home: Path) -> list[dict[str, Any]]:
    """Of a finished study `low`."""
    with pytest.MonkeyPatch.context() as patch:
        search_in_this_process(patch)
        patch.chdir(home)
        assert search("--low-rungs", "int8", "--study", "low") == 0
    found = sorted((home / "studies/low/trials").glob("*/result.json"))
    return [json.loads(path.read_text()) for path in found]


@pytest.mark.slow
@needs_int8
def test_every_rung_says_its_precision_and_full_length_is_exact(
    trials: list[dict[str, Any]],
) -> None:
    said = {(value["fraction"], value["low_precision"]) for t in trials for value in t["curve"]}
    assert said == {(0.5, "int8"), (1.0, None)}
    info = StudyInfo.model_validate_json(Path("studies/low/study.json").read_text())
    assert info.low_rungs == "int8"


@pytest.mark.slow
@needs_int8
def test_status_and_report_say_it(
    trials: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "low"]) == 0
    assert "frozen layers in int8" in capsys.readouterr().out
    assert "frozen layers computed in int8" in Path("studies/low/report.html").read_text()


@needs_int8
def test_a_recipe_trains_to_the_same_metric(
    trials: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    best = next(t for t in trials if t["state"] == "full" and t["tuned_parameters"])
    assert run(["export", "low", "r.yaml", "--at", f"#{best['number']}", "--to", "recipe"]) == 0
    assert "low_rungs: int8" in Path("r.yaml").read_text()
    capsys.readouterr()
    assert run(["train", "r.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["validation_accuracy"] == best["metric"]


@needs_int8
def test_a_study_goes_on_in_its_own_precision_alone(
    trials: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resume = ["search", "--study", "low", "--resume", "--trials", "3"]
    assert run([*resume, "--low-rungs", "bf16"]) == 2
    assert "created with --low-rungs int8, not --low-rungs bf16" in capsys.readouterr().err
    existing_study({"study": "low", "low_rungs": "int8"})
    monkeypatch.setattr(low_precision, "cpu_flags", lambda: frozenset({"avx2"}))
    info = StudyInfo.model_validate_json(Path("studies/low/study.json").read_text())
    with pytest.raises(MissingError, match="--low-rungs int8 needs a CPU with one of"):
        worker.bench_of(info, "cpu")


def changed(name: str, **keys: str) -> str:
    """The space with other rungs or another training."""
    text = SPACE.replace("rungs: [0.5, 1]", keys.get("rungs", "rungs: [0.5, 1]"))
    Path(name).write_text(text.replace("batch_size: 16", keys.get("train", "batch_size: 16")))
    return name


@pytest.mark.parametrize(
    ("asked", "keys", "code", "sentence"),
    [
        ("int9", {}, 2, "low precision 'int9' unknown; did you mean 'int8'?"),
        ("int8", {"rungs": "rungs: [1]"}, 2, "has no rung below full length"),
        ("int8", {"train": "schedule: linear"}, 2, "evaluated at full length only"),
        ("bf16", {"train": "precision: bf16"}, 2, "backbone is in bf16, not in fp32"),
        ("bf16", {}, 3, "needs a CPU with one of avx512_bf16, amx_bf16"),
    ],
)
def test_where_it_is_not_meant_it_is_refused_in_one_sentence(
    asked: str,
    keys: dict[str, str],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(low_precision, "cpu_flags", lambda: frozenset({"avx512_vnni"}))
    space = changed("changed.yaml", **keys)
    assert search("--low-rungs", asked, "--study", "none", space=space) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert not Path("studies/none").exists()


def test_doctor_says_what_this_cpu_can_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, said in (
        ({"avx512_vnni"}, "--low-rungs int8"),
        ({"amx_bf16", "amx_int8"}, "--low-rungs int8 or bf16"),
        (set(), "this CPU has no instructions for them"),
    ):
        monkeypatch.setattr(low_precision, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert run(["doctor", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["checks"]
        assert next(r for r in rows if r["check"] == "low-precision rungs")["found"] == said


def test_curves_and_studies_without_the_field_are_exact() -> None:
    line = {"rung": 0, "step": 1, "fraction": 0.5, "metric": 0.5, "loss": 1.0, "train_loss": None}
    value = RungValue.model_validate({**line, "examples": 10, "wall_s": 1.0, "cpu_s": 1.0})
    assert value.low_precision is None
    assert StudyInfo.model_fields["low_rungs"].default is None
