"""The report: one file, nothing from outside, nothing of the user's taken as HTML."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from peftsearch.records.records import StudyRecord, TrialResult
from peftsearch.report.figures.label_places import place_labels
from peftsearch.report.figures.pareto import pareto_figure
from peftsearch.report.html import render_report, write_report
from support.reports import info, result

CHROMIUM = shutil.which("chromium")
HOSTILE = "<img src=x onerror=alert(1)></script><script>console.error('owned')</script>"


def study(**more: str) -> StudyRecord:
    return StudyRecord(
        info=info(**more),
        results=(
            result(0, 0.69, 0.0, method="head-only-mean", origin="landmark"),
            result(1, 0.71, 0.0068, method="lora", origin="seed"),
            result(2, 0.70, 0.1),
            result(3, 0.75, 1.5, description=HOSTILE),
            result(4, 0.66, 2.0, state="stopped"),
            result(5, None, 3.0, state="failed", cause="nan"),
            result(6, 0.71, 0.0068, state="duplicate", same_as=1),
        ),
    )


class Resources(HTMLParser):
    """Collects every element that loads something, and every attribute that runs something."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        for key, value in attrs:
            if key in ("src", "href") and not str(value).startswith(("data:", "#")):
                self.loaded.append(f"{tag} {value}")
            if key.startswith("on"):
                self.handlers.append(f"{tag} {key}")


def parsed(page: str) -> Resources:
    resources = Resources()
    resources.feed(re.sub(r"(<script>).*?(</script>)", r"\1\2", page, flags=re.DOTALL))
    return resources


def test_the_page_loads_nothing_from_outside() -> None:
    assert parsed(render_report(study(), {})).loaded == []


def test_what_comes_from_the_user_is_text() -> None:
    page = render_report(study(task=HOSTILE), {"python": HOSTILE})
    resources = parsed(page)
    assert (resources.images, resources.handlers) == (0, [])
    assert "<img src=x" not in page
    assert "</script><script>console" not in page


def test_the_same_study_gives_the_same_page() -> None:
    assert render_report(study(), {}) == render_report(study(), {})


@pytest.mark.parametrize("results", [(), (result(0, 0.7, 0.1),), (result(0, 0.7, 0.0),)])
def test_a_study_of_no_or_one_trial_has_a_report_too(results: tuple[TrialResult, ...]) -> None:
    page = render_report(StudyRecord(info=info(), results=results), {})
    assert ("No trial has reached full length" in page) == (not results)


def test_the_page_states_the_reference_of_the_hypervolume_and_the_export_command() -> None:
    page = " ".join(render_report(study(), {}).split())
    assert "tuned % from 0.005 to 5 (log), accuracy from 0.4000 to 1" in page
    assert "peftsearch export study --at &#39;#3&#39; --to native OUT" in page


def test_the_frontier_is_a_staircase_through_its_points_and_failures_are_not_drawn() -> None:
    figure = json.loads(pareto_figure(study()).to_json())
    drawn = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    frontier = drawn["frontier (± standard error)"]
    assert frontier["y"] == [0.69, 0.71, 0.75]
    assert frontier["error_y"]["array"] == [0.014] * 3
    assert drawn["full length"]["y"] == [0.70]
    assert drawn["stopped early"]["y"] == [0.66]
    assert sum(len(trace["y"]) for trace in drawn.values()) == 5
    names = [note["text"] for note in figure["layout"]["annotations"]]
    assert {"head-only-mean", "lora"} <= set(names)


def test_zero_percent_stands_left_of_the_log_axis_behind_a_break() -> None:
    figure = json.loads(pareto_figure(study()).to_json())
    axis = figure["layout"]["xaxis"]
    assert axis["ticktext"][0] == "0"
    assert axis["tickvals"][0] < axis["tickvals"][1]
    assert any(note["text"] == "//" for note in figure["layout"]["annotations"])


def test_labels_do_not_cover_one_another() -> None:
    points = [(100.0 + 30 * i, 200.0 + 5 * (i % 3)) for i in range(10)]
    names = [(f"method-{i}", x, y) for i, (x, y) in enumerate(points)]
    boxes = [label.box for label in place_labels(names, points, 1000, 440)]
    overlaps = sum(a.overlap(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert overlaps == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_opens_in_a_browser_without_errors_and_draws_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_report(study(task=HOSTILE), page)
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--enable-logging=stderr --virtual-time-budget=8000"
    ).split()
    opened = subprocess.run(
        [
            str(CHROMIUM),
            *flags,
            f"--user-data-dir={tmp_path / 'user'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "CONSOLE" not in opened.stderr
    assert opened.stdout.count('class="main-svg"') >= 4
