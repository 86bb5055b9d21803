"""Metrics of every scale and direction in the report, and what a model wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from peftsearch.errors import UsageError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import MetricScale, StudyRecord, TrialResult
from peftsearch.report.figures.axis import metric_range
from peftsearch.report.figures.curves import curves_figure
from peftsearch.report.figures.hypervolume import hypervolume_figure
from peftsearch.report.figures.pareto import pareto_figure
from peftsearch.report.figures.text import hover
from peftsearch.report.html import render_report, write_report
from peftsearch.report.samples import Sample, Samples, samples_of_best
from support.reports import info, result

PERPLEXITY = MetricScale(
    name="perplexity", maximise=False, worst=58.125, best=1, decimals=2, title="perplexity"
)
BLEU = MetricScale(name="bleu", worst=0, best=100, decimals=2, title="BLEU")


def study(metric: MetricScale, *results: TrialResult) -> StudyRecord:
    own = info().model_copy(update={"metric": metric, "kind": "causal"})
    return StudyRecord(info=own, results=results)


LOSS = study(
    PERPLEXITY,
    result(0, 58.0, 0.0, method="untuned", origin="landmark"),
    result(1, 30.25, 0.1),
    result(2, 40.0, 0.2),
    result(3, 20.125, 1.5, metric_se=0.5),
    result(4, 5123.0, 2.0),
)


def text_of(page: str) -> str:
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_of_a_loss_the_lowest_is_the_best() -> None:
    page = text_of(render_report(LOSS, {}))
    assert "20.12 best perplexity (the lowest), ± 0.50, at 1.5 % tuned" in page
    assert "58.00 the untuned model" in page
    assert "perplexity from 58.12 to 1" in page


def test_of_a_loss_the_frontier_descends_and_the_axis_says_so() -> None:
    figure = json.loads(pareto_figure(LOSS).to_json())
    drawn = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    assert drawn["frontier (± standard error)"]["y"] == [58.0, 30.25, 20.125]
    assert "less is better" in figure["layout"]["yaxis"]["title"]["text"]


def test_of_a_loss_the_hypervolume_grows_all_the_same() -> None:
    heights = hypervolume_figure(LOSS, "trials").data[0].y
    assert list(heights) == sorted(heights)
    assert 0 < heights[1] < heights[-1] < 1


def test_a_trial_that_diverged_is_counted_and_does_not_flatten_the_others() -> None:
    low, high = pareto_figure(LOSS).layout.yaxis.range
    assert low < 20.125
    assert 58 < high < 100
    assert "1 of the trials lies outside of the plot" in text_of(render_report(LOSS, {}))
    assert curves_figure(LOSS).layout.yaxis.range[1] < 100


@pytest.mark.parametrize("metric", [PERPLEXITY, BLEU], ids=["loss", "bleu"])
def test_an_axis_holds_every_value_within_its_scale(metric: MetricScale) -> None:
    low, high = metric_range([10.0, 12.0, 30.0], metric)
    assert low < 10 < 30 < high
    assert metric_range([], metric) == tuple(sorted((metric.worst, metric.best)))


def test_values_are_written_with_the_metrics_decimals_everywhere() -> None:
    record = study(BLEU, result(0, 23.456789, 0.5, metric_se=0.34567))
    page = text_of(render_report(record, {}))
    assert "23.46 ± 0.35" in page
    assert "23.456" not in page
    assert "BLEU against tuned parameters" in page
    assert "bleu 23.46 ± 0.35" in hover(record.results[0], record.info)


def test_without_a_standard_error_none_is_written() -> None:
    record = study(BLEU, result(0, 23.456789, 0.5, metric_se=None))
    assert "±" not in hover(record.results[0], record.info)
    page = text_of(render_report(record, {}))
    assert "23.46 best bleu, at 0.5 % tuned" in page
    assert "± –" not in page


# -- what was written --------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>"
WRITTEN = {"text": "a & b", "reference": "c", "prediction": HOSTILE}


def folder_with(root: Path, number: int, text: str) -> StudyFolder:
    folder = StudyFolder.at(root)
    path = folder.trial(number).samples_path
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return folder


def test_the_page_shows_what_the_frontiers_best_point_wrote_as_text(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 3, json.dumps([WRITTEN] * 9))
    write_report(LOSS, tmp_path / "report.html", {}, folder)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>") == 8
    assert page.count("<td>a &amp; b</td>") == 8
    assert HOSTILE not in page
    assert "as trial #3 answers them" in page


def test_a_page_without_written_texts_has_no_table_of_them(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, 2, json.dumps([WRITTEN]))
    assert samples_of_best(folder, LOSS) is None
    assert samples_of_best(folder, study(PERPLEXITY)) is None
    assert 'id="samples"' not in render_report(LOSS, {})


def test_texts_are_shown_by_the_trial_that_wrote_them() -> None:
    sample = Sample(text="t", reference="r", prediction="p")
    page = render_report(LOSS, {}, Samples(number=7, samples=(sample,)))
    assert "as trial #7 answers them" in page


@pytest.mark.parametrize("text", ["{", "[1]", '[{"text": "a"}]', '"text"', "\x00"])
def test_a_damaged_file_of_texts_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    folder = folder_with(tmp_path, 3, text)
    with pytest.raises(UsageError, match=r"samples.json: cannot be read \(.*delete it"):
        samples_of_best(folder, LOSS)
