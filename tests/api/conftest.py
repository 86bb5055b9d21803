"""A folder in which the examples of the public face run as they stand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import peftsearch
from support.tiny import sentiment_rows, write_csv
from support.worker_here import search_in_this_process

RECORDED = Path(__file__).parents[2] / "studies"
SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 4, rungs: [1]}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
train: {lr: 0.01, batch_size: 8}
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A tiny model, data, a space, the recorded studies, and an export of a study made here."""
    home = tmp_path_factory.mktemp("examples")
    (home / "tiny-bert").symlink_to(tiny_bert)
    (home / "space.yaml").write_text(SPACE)
    write_csv(home / "reviews.csv", sentiment_rows(60))
    (home / "studies").mkdir()
    shutil.copytree(RECORDED / "sst2-minilm", home / "studies" / "sst2-minilm")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        search_in_this_process(patched)
        study = peftsearch.search(
            *("space.yaml", "tiny-bert"),
            train="reviews.csv",
            study="exported",
            trials=1,
            progress=False,
        )
        study.export("OUT")
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder; a search's worker is this process."""
    for path in made.iterdir():
        if path.name == "studies":
            shutil.copytree(path, tmp_path / "studies")
        else:
            (tmp_path / path.name).symlink_to(path.resolve())
    monkeypatch.chdir(tmp_path)
    search_in_this_process(monkeypatch)
    return tmp_path
