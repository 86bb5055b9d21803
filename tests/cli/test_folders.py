"""A study, a recipe and an export work from any folder, whatever paths they were given."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftsearch
from peftsearch.cli import watch
from peftsearch.cli.main import run
from peftsearch.errors import SpaceError
from peftsearch.export.recipe import Recipe
from peftsearch.records.folder import StudyFolder
from peftsearch.space.space import load_space
from peftsearch.study.create import NewStudy, create_study
from peftsearch.task.sources.absolute_paths import with_absolute_paths
from peftsearch.task.spec import TaskSpec
from support.tiny import sentiment_rows, write_csv
from support.worker_here import search_in_this_process

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 2, rungs: [1]}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {batch_size: 8, lr: 0.001}
"""

Chdir = Callable[[Path], None]


@pytest.fixture
def home(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder `home` with everything that a search needs, and `away`, another one."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    (home / "space.yaml").write_text(SPACE)
    (home / "m").symlink_to(tiny_bert)
    (home / "data" / "train.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    write_csv(home / "data" / "eval.csv", sentiment_rows(40, 1))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def begin(*words: str) -> dict[str, Any]:
    """Begin a study `s` without workers; its study.json."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watch, "watch_local", lambda *_: None)
        assert run(["search", "space.yaml", "--study", "s", *words]) == 0
    found: dict[str, Any] = json.loads(Path("studies/s/study.json").read_text())
    return found


def resumed(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(watch, "watch_local", lambda *_: None)
        return run(["search", "--study", "s", "--resume", *words])


@pytest.mark.parametrize(
    ("said", "whole"),
    [
        ("data/train.csv", "{}/data/train.csv"),
        ("./data/../data/train.csv", "{}/data/train.csv"),
        ("~/data/train.csv", "{}/data/train.csv"),
        ("link.csv", "{}/link.csv"),
    ],
)
def test_a_study_remembers_absolute_paths_and_links_as_links(
    said: str, whole: str, home: Path
) -> None:
    (home / "link.csv").symlink_to("data/train.csv")
    study = begin(
        "--model", "./m", "--train", said, "--eval", "data/eval.csv", "--tokenizer", "./m"
    )
    assert study["task"]["train"] == whole.format(home)
    assert study["task"]["eval"] == f"{home}/data/eval.csv"
    assert study["model"] == study["tokenizer"] == f"{home}/m"


@pytest.mark.slow
def test_a_study_of_relative_paths_is_gone_on_with_and_exported_from_another_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin("--model", "m", "--train", "data/train.csv", "--seed", "3")
    monkeypatch.chdir(tmp_path / "away")
    there = ["--studies", "../home/studies"]
    assert run(["search", "--study", "s", "--resume", "--trials", "1", *there]) == 0
    search_in_this_process(monkeypatch)
    assert run(["search", "--resume", "--study", "s", "--train", "../home/data/train.csv",
                "--trials", "2", *there]) == 0  # fmt: skip
    assert run(["export", "s", "out", *there]) == 0
    assert run(["export", "s", "recipe.yaml", "--to", "recipe", *there]) == 0
    monkeypatch.chdir(tmp_path)
    predicted = peftsearch.load("away/out").predict(["a good film"])
    assert predicted[0] in ("negative", "positive")
    assert run(["train", "away/recipe.yaml", "--to", "again"]) == 0
    monkeypatch.chdir(home)
    assert peftsearch.load("../again").predict(["a good film"])


def test_saying_a_path_again_means_the_file_not_its_spelling(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("--model", "m", "--train", "data/train.csv")
    assert resumed("--train", "./data/../data/train.csv", "--model", "~/m") == 0
    monkeypatch.chdir(tmp_path / "away")
    here = ["--studies", "~/studies"]
    assert resumed("--train", "../home/data/train.csv", "--model", "../home/m", *here) == 0
    (tmp_path / "away" / "data").mkdir()
    (tmp_path / "away" / "data" / "train.csv").write_text("text,label\na,b\n")
    assert resumed("--train", "data/train.csv", *here) == 2  # another file of that name
    assert f"created with --train {home}/data/train.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_parallel_text_and_folders_of_splits_are_remembered_whole(
    home: Path, tiny_bart: Path
) -> None:
    (home / "a,b").mkdir()
    lines = [row["text"] for row in sentiment_rows(40)]
    for name in ("data/news.en", "data/news.ro", "a,b/news.en", "a,b/news.ro"):
        (home / name).write_text("\n".join(lines) + "\n")
    where = {
        "data/news.en,data/news.ro": f"{home}/data/news.en,{home}/data/news.ro",
        "a,b/news.en, a,b/news.ro": f"{home}/a,b/news.en,{home}/a,b/news.ro",
        "data": f"{home}/data",
    }
    for said, whole in where.items():
        assert with_absolute_paths(TaskSpec(train=said)).train == whole
    request = NewStudy(
        "p", load_space("space.yaml"), "space.yaml", str(tiny_bart),
        TaskSpec(train="data/news.en,data/news.ro"),
    )  # fmt: skip
    info = create_study(request, None, "").read_info()
    assert info.task["train"] == where["data/news.en,data/news.ro"]


def test_a_name_of_the_hub_stays_a_name_unless_there_is_such_a_folder(home: Path) -> None:
    assert with_absolute_paths(TaskSpec(name="owner/dataset:config")).name == "owner/dataset:config"
    assert with_absolute_paths(TaskSpec(name="demo:bbc")).name == "demo:bbc"
    (home / "owner" / "dataset").mkdir(parents=True)
    whole = with_absolute_paths(TaskSpec(name="owner/dataset:config")).name
    assert whole == f"{home}/owner/dataset:config"


def test_a_study_of_an_earlier_version_opens_from_the_folder_it_was_begun_in(home: Path) -> None:
    begin("--model", "m", "--train", "data/train.csv")
    path = home / "studies" / "s" / "study.json"
    old = json.loads(path.read_text())
    old["model"], old["task"]["train"] = "m", "data/train.csv"
    path.write_text(json.dumps(old))
    assert resumed("--train", "data/train.csv") == 0
    assert StudyFolder.open("s").read_info().task["train"] == "data/train.csv"


def test_what_a_space_recommends_lies_beside_it_and_names_the_study(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recommended = "recommended: {model: ./m, task: {train: data/train.csv}}\n"
    (home / "own.yaml").write_text(SPACE + recommended)
    monkeypatch.chdir(tmp_path / "away")
    monkeypatch.setattr(watch, "watch_local", lambda *_: None)
    assert run(["search", "../home/own.yaml"]) == 0
    info = StudyFolder.open("own-train").read_info()
    assert Path(info.model).samefile(home / "m")
    assert Path(info.task["train"]).samefile(home / "data" / "train.csv")
    assert run(["search", "../home/own.yaml", "--resume"]) == 0  # the same name again


def recipe_of(folder: Path, train: str, model: str = "./m") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(f"""schema: 1
model: {model}
task: {{train: "{train}", text: [text], label: label}}
max_steps: 2
configuration: {{modifications: []}}
""")
    return path


def test_a_recipe_names_files_from_where_it_lies_or_from_the_working_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_of(home, "data/train.csv")
    monkeypatch.chdir(tmp_path / "away")
    beside = Recipe.read(path)
    assert (beside.model, beside.task.train) == (f"{home}/m", f"{home}/data/train.csv")
    monkeypatch.chdir(home)
    of_here = Recipe.read(recipe_of(tmp_path / "recipes", "data/train.csv"))
    assert (of_here.model, of_here.task.train) == (f"{home}/m", f"{home}/data/train.csv")


def test_a_recipe_of_parallel_text_names_both_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.en", "a.ro"):
        (home / name).write_text("x\n")
    path = recipe_of(home, "a.en, a.ro")
    monkeypatch.chdir(tmp_path)
    assert Recipe.read(path).task.train == f"{home}/a.en,{home}/a.ro"


def test_a_path_in_a_recipe_that_means_two_files_is_an_error_with_its_line(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipes" / "data").mkdir(parents=True)
    (tmp_path / "recipes" / "data" / "train.csv").write_text("text,label\na,b\n")
    path = recipe_of(tmp_path / "recipes", "data/train.csv")
    with pytest.raises(SpaceError, match=r"recipe.yaml:3: task.train: .* write the whole path"):
        Recipe.read(path)
    os.remove(home / "data" / "train.csv")
    assert Recipe.read(path).task.train == f"{tmp_path}/recipes/data/train.csv"


def test_a_model_of_a_plain_name_is_never_taken_from_beside_a_recipe(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe_of(home, "data/train.csv", model="m")  # may be one of the Hub
    monkeypatch.chdir(tmp_path)
    assert Recipe.read(path).model == "m"


def test_artifacts_and_studies_are_absolute_paths(home: Path, tmp_path: Path) -> None:
    from peftsearch.api.values import parse_options

    assert parse_options({"artifacts": "kept"})["artifacts"] == f"{home}/kept"
    assert parse_options({"artifacts": "s3://bucket/x"})["artifacts"] == "s3://bucket/x"
    assert StudyFolder.new("x", Path("~/other"), "").root == home / "other" / "x"
