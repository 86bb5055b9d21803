"""The recorded studies are what they say: whole, with a frontier that follows from their trials."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from peftsearch.cli.main import app
from peftsearch.records.derive import frontier_document
from peftsearch.records.folder import StudyFolder
from support.readme import readme_commands

STUDIES = Path(__file__).parents[1] / "studies"
RECORDED = sorted(readme.parent.name for readme in STUDIES.glob("*/README.md"))


def test_four_tasks_are_recorded() -> None:
    kinds = {json.loads((STUDIES / name / "study.json").read_text())["kind"] for name in RECORDED}
    assert len(RECORDED) >= 4
    assert {"classification", "seq2seq"} <= kinds


@pytest.mark.parametrize("name", RECORDED)
def test_the_frontier_of_a_recorded_study_follows_from_its_trials(name: str) -> None:
    folder = StudyFolder.open(name, STUDIES)
    document = frontier_document(folder.read())
    assert document["counts"]["evaluated"] >= 30
    assert len(document["points"]) >= 4
    recorded = json.loads((STUDIES / name / "frontier.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(document)) == recorded


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_study_is_small_and_says_how_to_repeat_it(name: str) -> None:
    files = [path for path in (STUDIES / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    assert {path.name for path in files} >= {"space.yaml", "env.json", "report.html", "report.png"}
    page = (STUDIES / name / "README.md").read_text(encoding="utf-8")
    searches = [
        shlex.split(command.text)
        for command in readme_commands(page)
        if command.kind == "console" and " search " in command.text
    ]
    (words,) = searches
    known = {flag for option in get_command(app).commands["search"].params for flag in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert words[words.index("--study") + 1] == name
