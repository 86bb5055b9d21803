"""`search --resume`: every option is used, or must be what the study was created with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from peftsearch.api.options import CHANGEABLE, FIXED, NEUTRAL
from peftsearch.cli import watch
from peftsearch.cli.main import app, run
from peftsearch.records.folder import StudyFolder
from peftsearch.records.storage_name import VARIABLE
from peftsearch.workers.limits import Limits, WorkerSettings

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 6, rungs: [0.5, 1], rung_examples: 12}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {batch_size: 8, lr: 0.001}
"""
BEGUN = {
    "seed": "9",
    "text": "text",
    "max_length": "600",  # more than the model's 64
    "without": "rows",
    "eval_limit": "11",
    "train_examples": "100",
}
DIFFERENT = {
    "model": ("--model", "demo:minilm", "--model {home}/m"),
    "task": ("--task", "demo:tweets", "no --task"),
    "train": ("--train", "other.csv", "--train {home}/data.csv"),
    "eval": ("--eval", "data.csv", "no --eval"),
    "test": ("--test", "data.csv", "no --test"),
    "text": ("--text", "label", "--text text"),
    "label": ("--label", "text", "no --label"),
    "kind": ("--kind", "regression", "--kind classification"),
    "metric": ("--metric", "macro_f1", "--metric accuracy"),
    "positive": ("--positive", "negative", "no --positive"),
    "template": ("--template", "Say {text}", "no --template"),
    "no_header": ("--no-header", None, "no --no-header"),
    "separator": ("--separator", "|", "no --separator"),
    "beams": ("--beams", "4", "--beams 1"),
    "languages": ("--languages", "en,ro", "no --languages"),
    "seed": ("--seed", "0", "--seed 9"),
    "max_length": ("--max-length", "599", "--max-length 600"),
    "max_target": ("--max-target", "8", "no --max-target"),
    "tokenizer": ("--tokenizer", "other", "no --tokenizer"),
    "target_tokenizer": ("--target-tokenizer", "other", "no --target-tokenizer"),
    "train_examples": ("--train-examples", "10", "--train-examples 100"),
    "eval_examples": ("--eval-examples", "10", "no --eval-examples"),
    "eval_limit": ("--eval-limit", "12", "--eval-limit 11"),
    "without": ("--without", "graphs", "--without rows"),
    "low_rungs": ("--low-rungs", "int8", "no --low-rungs"),
    "sampler": ("--sampler", "random", "--sampler tpe"),
    "no_stopping": ("--no-stopping", None, "no --no-stopping"),
    "landmarks": ("--landmarks", "none", "--landmarks all"),
    "artifacts": ("--artifacts", "/elsewhere", "no --artifacts"),
}
"""Each fixed option with a value that the study was not begun with, and the recorded one."""

Watched = list[tuple[Limits, int | None, WorkerSettings]]


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, tiny_sentiment_csv: Path
) -> Path:
    """A folder with a study `s` that was begun as `BEGUN` says, and has no trial yet."""
    home = tmp_path_factory.mktemp("home")
    (home / "space.yaml").write_text(SPACE)
    (home / "m").symlink_to(tiny_bert)
    (home / "data.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        patched.setattr(watch, "watch_local", lambda *_: None)
        said = [word for key, value in BEGUN.items() for word in (flag(key), value)]
        files = ["--model", "m", "--train", "data.csv", "--study", "s"]
        assert run(["search", "space.yaml", *files, *said]) == 0
    return home


def flag(name: str) -> str:
    return next(option.flag for option in FIXED if option.name == name)


@pytest.fixture
def watched(home: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The settings that workers would be started with, in the study's folder."""
    heard: Watched = []

    def watch_local(
        _run: Any,
        _folder: StudyFolder,
        limits: Limits,
        workers: int | None,
        settings: WorkerSettings,
        _: bool,
    ) -> None:
        heard.append((limits, workers, settings))

    monkeypatch.chdir(home)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(watch, "watch_local", watch_local)
    return heard


def resumed(*words: str) -> int:
    return run(["search", "--study", "s", "--resume", *words])


def test_every_option_of_search_is_of_exactly_one_kind_on_resume() -> None:
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    options = {parameter.name for parameter in command.params} - {"help"}
    assert sorted([*(option.name for option in FIXED), *CHANGEABLE, *NEUTRAL]) == sorted(options)


def test_every_fixed_option_is_written_as_the_command_line_knows_it() -> None:
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    known = {parameter.name: parameter.opts for parameter in command.params}
    assert [option.name for option in FIXED if option.flag not in known[option.name]] == []


def test_there_is_a_different_value_of_every_fixed_option_to_try() -> None:
    assert sorted(DIFFERENT) == sorted(option.name for option in FIXED)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_an_option_that_the_study_was_not_begun_with_is_an_error_with_both_values(
    name: str, watched: Watched, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option, value, began = DIFFERENT[name]
    words = [option] if value is None else [option, value]
    assert resumed(*words) == 2
    error = capsys.readouterr().err
    told = f"created with {began.replace('{home}', str(home))}, not {' '.join(words)}:"
    assert told in error
    assert error.count("\n") == 1
    assert watched == []


def test_every_difference_is_named(watched: Watched, capsys: pytest.CaptureFixture[str]) -> None:
    assert resumed("--seed", "0", "--beams", "4", "--text", "a", "--text", "b") == 2
    error = capsys.readouterr().err
    for told in (
        "--seed 9, not --seed 0",
        "--beams 1, not --beams 4",
        "--text text, not --text a --text b",
    ):
        assert told in error


@pytest.mark.parametrize("name", BEGUN)
def test_an_option_may_be_said_again_as_the_study_was_begun(name: str, watched: Watched) -> None:
    assert resumed(flag(name), BEGUN[name]) == 0
    assert len(watched) == 1


@pytest.mark.parametrize(
    "words",
    [
        "--max-length 64",  # what 600 came to
        "--kind classification --metric accuracy",  # what was guessed
        "--beams 1",
        "--sampler auto",
        "--sampler tpe",
        "--model m --train data.csv",
        "space.yaml",
        "",
    ],
)
def test_what_means_the_same_may_be_said(words: str, watched: Watched) -> None:
    assert resumed(*words.split()) == 0
    assert len(watched) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "others", "differs"),
    [
        ("tab", ["\t", "\\t"], "--separator tab, not --separator space"),
        ("comma", [","], "--separator ,, not --separator space"),
    ],
)
def test_a_separator_may_be_said_again_by_any_of_its_names(
    named: str,
    others: list[str],
    differs: str,
    watched: Watched,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = (home / "data.csv").read_text().splitlines()
    table = "\n".join("\t".join(row.rsplit(",", 1)) for row in rows)
    (home / "table.csv").write_text(table if named == "tab" else "\n".join(rows))
    words = ["search", "space.yaml", "--model", "m", "--train", "table.csv", "--study", named]
    assert run([*words, "--separator", named]) == 0
    again = ["search", "--study", named, "--resume", "--separator"]
    for other in (named, *others):
        assert run([*again, other]) == 0, other
    assert run([*words, "--separator", named, "--resume"]) == 0
    capsys.readouterr()
    assert run([*again, "space"]) == 2
    assert differs in capsys.readouterr().err
    assert run([*again, "letters"]) == 2
    assert "one character that is no letter or digit" in capsys.readouterr().err


def test_the_whole_command_that_began_a_study_goes_on_with_it(watched: Watched) -> None:
    said = [word for key, value in BEGUN.items() for word in (flag(key), value)]
    words = ["space.yaml", "--model", "m", "--train", "data.csv", *said]
    assert run(["search", *words, "--study", "s", "--resume"]) == 0
    assert len(watched) == 1


def test_a_name_that_was_left_out_is_left_out_again(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", "space.yaml", "--model", "m", "--train", "data.csv"]
    assert run(words) == 0
    assert run([*words, "--resume"]) == 0
    assert StudyFolder.open("space-data").read_info().train_examples == 160
    assert len(watched) == 2


def test_limits_means_and_device_are_heard(watched: Watched, home: Path) -> None:
    path = home / "studies" / "s" / "study.json"
    study = json.loads(path.read_text())
    path.write_text(json.dumps(study | {"device": "cuda"}))  # begun where there is a GPU
    try:
        words = "--trials 7 --minutes 2 --workers 3 --threads 2 --cohort 4 --device cpu"
        assert resumed(*words.split()) == 0
    finally:
        path.write_text(json.dumps(study))
    [(limits, workers, settings)] = watched
    assert (limits.trials, limits.seconds, workers) == (7, 120, 3)
    assert (settings.threads, settings.cohort, settings.device) == (2, 4, "cpu")


def test_what_is_not_given_leaves_the_studys_device(watched: Watched) -> None:
    assert resumed() == 0
    assert watched[0][2].device is None


def test_a_device_that_is_not_here_is_refused(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resumed("--device", "tpu") == 3
    assert "device 'tpu' cannot be used here" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["search --study s --resume", "worker s"])
def test_a_storage_for_a_study_with_a_journal_is_refused(
    command: str, watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.split(), "--storage", "postgresql://me:s3cret@db/x"]) == 2
    error = capsys.readouterr().err
    assert "study 's' was created without --storage" in error
    assert "s3cret" not in error


def test_a_storage_in_the_environment_is_another_studys(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://me@db/x")
    assert resumed() == 0


def test_another_space_is_refused_with_the_studys_own(
    watched: Watched, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", "demo", "--study", "s", "--resume"]) == 2
    assert f"{home}/studies/s/space.yaml" in capsys.readouterr().err


def test_a_dry_run_of_a_study_that_began_trains_nothing_and_refuses_alike(
    watched: Watched, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    assert resumed("--dry-run", "--json", "--minutes", "1") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["data"]["train"] == {"used": 100, "rows": 200}
    assert told["trials ended"] == 0
    assert resumed("--dry-run", "--seed", "0") == 2
    assert "--seed 9, not --seed 0" in capsys.readouterr().err
    assert watched == []
    assert sorted(home.rglob("*")) == before


def test_a_study_of_an_earlier_version_is_compared_by_what_was_used(
    watched: Watched, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "studies" / "s" / "study.json"
    study = json.loads(path.read_text())
    old = {key: value for key, value in study.items() if not key.startswith("asked_")}
    old["task"] = old["task"] | {"train": "data.csv"}  # as it was typed
    path.write_text(json.dumps(old | {"model": "m"}))
    try:
        assert resumed("--model", "m", "--train", "data.csv", "--max-length", "64") == 0
        assert resumed("--max-length", "32") == 2
        assert "--max-length 64, not --max-length 32" in capsys.readouterr().err
    finally:
        path.write_text(json.dumps(study))
