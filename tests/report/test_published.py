"""Published results in the report: seen at once to be another's, and counted nowhere."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from peftsearch.records.records import MetricScale, PublishedValue, StudyRecord
from peftsearch.report.figures.pareto import pareto_figure
from peftsearch.report.figures.published import TRACE
from peftsearch.report.html import render_report
from support.reports import info, result

ROUGE = MetricScale(name="rouge2", worst=0, best=100, decimals=2, title="ROUGE-2 F1 × 100")
HOSTILE = "<img src=x onerror=alert(1)></script>"


def value(name: str, rouge: float, tuned: float, **more: Any) -> PublishedValue:
    fields = {"name": name, "metric": "rouge2", "value": rouge, "tuned_pct": tuned}
    return PublishedValue.model_validate({**fields, "source": "A paper, Table 2", **more})


PUBLISHED = (value("MAM", 21.9, 6.7), value("prompt", 15.98, 0.08), value("worse", 14.0, 7.0))


def study(*published: PublishedValue) -> StudyRecord:
    own = info().model_copy(update={"metric": ROUGE, "published": published})
    return StudyRecord(
        info=own,
        results=(
            result(0, 18.25, 0.1),
            result(1, 20.5, 3.0),
            result(2, 19.0, 4.0, state="stopped"),
        ),
    )


def drawn(record: StudyRecord) -> tuple[dict[str, Any], Any]:
    figure = json.loads(pareto_figure(record).to_json())
    return {trace["name"]: trace for trace in figure["data"] if "name" in trace}, figure["layout"]


def test_published_points_are_hollow_grey_diamonds_behind_the_studys_own() -> None:
    traces, _ = drawn(study(*PUBLISHED))
    assert next(iter(traces)) == TRACE
    assert traces[TRACE]["marker"]["symbol"] == "diamond-open"
    assert traces[TRACE]["y"] == [21.9, 15.98, 14.0]


def test_only_what_no_other_published_result_beats_has_its_name_beside_it() -> None:
    traces, _ = drawn(study(*PUBLISHED))
    assert traces[TRACE]["text"] == ["MAM (published)", "prompt (published)", ""]
    assert all("(published)" in text for text in traces[TRACE]["customdata"])
    assert all("not measured here:<br>A paper" in text for text in traces[TRACE]["customdata"])


def test_names_of_published_points_belong_to_the_trace_that_the_legend_switches_off() -> None:
    traces, layout = drawn(study(*PUBLISHED))
    assert traces[TRACE]["mode"] == "markers+text"
    assert traces[TRACE].get("showlegend", True)
    assert [note for note in layout.get("annotations", []) if "published" in note["text"]] == []


def test_published_points_lie_within_the_axes() -> None:
    traces, layout = drawn(study(value("full", 35.0, 100), value("tiny", 5.0, 0.0001)))
    for axis, key in (("xaxis", "x"), ("yaxis", "y")):
        low, high = layout[axis]["range"]
        assert all(low < place < high for place in traces[TRACE][key])


def test_published_results_in_another_metric_are_not_drawn() -> None:
    record = study(value("MAM", 0.876, 0.5, metric="accuracy"))
    assert TRACE not in drawn(record)[0]
    assert "not measured here" not in _without_scripts(render_report(record, {}))


def test_published_results_change_no_frontier_hypervolume_or_table() -> None:
    with_them, without = study(*PUBLISHED), study()
    assert with_them.front == without.front
    assert with_them.hypervolume == without.hypervolume
    pages = [_without_scripts(render_report(record, {})) for record in (with_them, without)]
    tables = [re.findall(r"<table.*?</table>", page, re.DOTALL) for page in pages]
    assert tables[0] == tables[1]


def test_the_page_says_who_published_what_is_drawn() -> None:
    page = _without_scripts(render_report(study(*PUBLISHED, value("b", 20, 1, source=HOSTILE)), {}))
    assert "published, not measured here: A paper, Table 2." in " ".join(page.split())
    assert "published, not measured here: &lt;img src=x" in " ".join(page.split())


def test_a_published_name_is_text() -> None:
    page = render_report(study(value(HOSTILE, 20.0, 1.0)), {})
    assert "<img src=x" not in page
    traces, _ = drawn(study(value(HOSTILE, 20.0, 1.0)))
    assert traces[TRACE]["text"] == [
        "&lt;img src=x onerror=alert(1)&gt;&lt;/script&gt; (published)"
    ]


def test_a_study_without_trials_shows_the_published_points() -> None:
    record = StudyRecord(info=study(*PUBLISHED).info, results=())
    assert drawn(record)[0][TRACE]["y"] == [21.9, 15.98, 14.0]


@pytest.mark.parametrize("maximise", [True, False])
def test_which_published_results_are_named_follows_the_metrics_direction(maximise: bool) -> None:
    record = study(value("low", 10.0, 1.0), value("high", 20.0, 2.0))
    metric = ROUGE.model_copy(update={"maximise": maximise, "worst": 0 if maximise else 50})
    turned = StudyRecord(info=record.info.model_copy(update={"metric": metric}), results=())
    named = [text for text in drawn(turned)[0][TRACE]["text"] if text]
    assert ("high (published)" in named) == maximise


def _without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
