"""`peftsearch.Study`: a recorded study as frames, points, a figure and a notebook's page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

import peftsearch
from peftsearch.records.examples import Examples, write_examples
from peftsearch.records.folder import StudyFolder
from support.reports import info, result

RECORDED = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def recorded() -> peftsearch.Study:
    return peftsearch.open_study("sst2-minilm", RECORDED)


def results(study: peftsearch.Study) -> list[dict[str, object]]:
    paths = sorted(study.path.glob("trials/*/result.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_the_frontier_is_the_full_trials_that_none_beats(recorded: peftsearch.Study) -> None:
    full = [r for r in results(recorded) if r["state"] == "full"]
    front = [
        r
        for r in full
        if not any(
            (o["metric"] > r["metric"] and o["tuned_pct"] <= r["tuned_pct"])  # type: ignore[operator]
            or (o["metric"] >= r["metric"] and o["tuned_pct"] < r["tuned_pct"])  # type: ignore[operator]
            for o in full
        )
    ]
    frame = recorded.frontier()
    assert sorted(frame.index) == sorted(r["number"] for r in front)
    assert list(frame["tuned_pct"]) == sorted(frame["tuned_pct"])
    assert list(frame.columns) == [
        *("tuned_pct", "tuned_parameters", "metric", "metric_se", "method", "configuration"),
    ]


def test_trials_are_one_row_each(recorded: peftsearch.Study) -> None:
    found = results(recorded)
    frame = recorded.trials()
    assert list(frame.index) == [r["number"] for r in found]
    assert list(frame["state"]) == [r["state"] for r in found]
    for metric, one in zip(frame["metric"], found, strict=True):
        assert math.isnan(metric) if one["metric"] is None else metric == one["metric"]


def test_best_by_metric_by_size_and_by_number(recorded: peftsearch.Study) -> None:
    frame = recorded.frontier()
    best = recorded.best()
    assert best.metric == frame["metric"].max()
    assert recorded.best(f"#{best.trial}") == best
    limit = float(frame["tuned_pct"].iloc[1])
    assert recorded.best(at=limit).trial == frame.index[1]
    assert best.configuration.hash in {r["configuration_hash"] for r in results(recorded)}
    assert str(best).startswith(f"#{best.trial}, ")


def test_within_a_margin_the_smallest_point_is_chosen(recorded: peftsearch.Study) -> None:
    frame = recorded.frontier()
    assert recorded.best(within=0).trial == recorded.best().trial
    assert recorded.best(within=1e9).trial == frame.index[0]
    margin = 0.02
    fits = frame[frame["metric"] >= frame["metric"].max() - margin]
    assert recorded.best(within=margin).trial == fits.index[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"within": -0.1}, "`within` must be 0 or more, in the metric's units, not -0.1"),
        ({"within": float("nan")}, "`within` must be 0 or more"),
        ({"at": 0.5, "within": 0.1}, "not both"),
        ({"at": "#99999"}, "not a trial of the frontier"),
        ({"at": "lora"}, "names no point"),
    ],
)
def test_what_names_no_point_is_a_sentence(
    recorded: peftsearch.Study, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(peftsearch.UsageError, match=message):
        recorded.best(**arguments)  # type: ignore[arg-type]


def test_plot_is_a_plotly_figure_with_every_full_trial_and_the_frontier(
    recorded: peftsearch.Study,
) -> None:
    figure = recorded.plot()
    assert isinstance(figure, go.Figure)
    drawn = [{trace.y[i] for i in range(len(trace.y))} for trace in figure.data]
    assert any(set(recorded.frontier()["metric"]) == values for values in drawn)
    full = {r["metric"] for r in results(recorded) if r["state"] == "full"}
    assert full <= set().union(*drawn)


def test_a_notebook_shows_the_picture_and_the_frontier(recorded: peftsearch.Study) -> None:
    page = recorded._repr_html_()
    assert "plotly" in page
    table = page[page.index("<table") :]
    assert table.count("<tr") >= 1 + len(recorded.frontier())
    assert all(f"<th>{trial}</th>" in table for trial in recorded.frontier().index)
    assert "sst2-minilm" in repr(recorded)


def test_the_report_goes_where_it_is_told(recorded: peftsearch.Study, tmp_path: Path) -> None:
    path = recorded.report(tmp_path / "r.html")
    assert path.read_text(encoding="utf-8").startswith("<!")
    with pytest.raises(peftsearch.UsageError, match="is a folder"):
        recorded.report(tmp_path)


def test_a_recipe_is_exported(recorded: peftsearch.Study, tmp_path: Path) -> None:
    out = recorded.export(tmp_path / "best.yaml", to="recipe")
    assert "configuration:" in out.read_text(encoding="utf-8")
    with pytest.raises(peftsearch.UsageError, match="to='onnx' unknown"):
        recorded.export(tmp_path / "x", to="onnx")  # type: ignore[arg-type]


def test_status_counts_what_ended(recorded: peftsearch.Study) -> None:
    status = recorded.status()
    assert status["counts"]["full"] == sum(r["state"] == "full" for r in results(recorded))
    assert status["searched_by"] is None


def test_an_unknown_study_names_the_nearest() -> None:
    with pytest.raises(peftsearch.UsageError, match="did you mean 'sst2-minilm'"):
        peftsearch.open_study("sst2-minilmm", RECORDED)


def test_a_study_without_a_full_trial_says_so(tmp_path: Path) -> None:
    folder = StudyFolder.create(info(), "", {}, tmp_path, "")
    study = peftsearch.open_study(folder.name, tmp_path)
    assert study.frontier().empty
    assert "no configuration at full length yet" in study._repr_html_()
    for ask in (study.best, study.plot, lambda: study.best(within=1.0)):
        with pytest.raises(peftsearch.NothingFeasible):
            ask()


def test_names_of_the_users_are_escaped_in_a_notebook(tmp_path: Path) -> None:
    folder = StudyFolder.create(info(task="<b>t</b>"), "", {}, tmp_path, "")
    folder.trial(0).write_result(result(0, 0.7, 0.1, description="<i>x</i>"))
    page = peftsearch.open_study(folder.name, tmp_path)._repr_html_()
    assert "<b>t" not in page
    assert "<i>x" not in page


def with_examples(folder: StudyFolder, examples: Examples) -> peftsearch.Study:
    """A study whose trial 0 has examples, 1 has none, 2 repeats 0, and 3 was stopped."""
    for one in (
        result(0, 0.8, 1.0),
        result(1, 0.7, 0.5),
        result(2, 0.8, 1.0, state="duplicate", same_as=0),
        result(3, 0.6, 2.0, state="stopped"),
    ):
        folder.trial(one.number).write_result(one)
    write_examples(folder.trial(0).examples_path, examples)
    return peftsearch.open_study(folder.name, folder.root.parent)


def test_examples_are_a_frame_with_a_score_each(tmp_path: Path) -> None:
    right = np.array([True, False, True, True])
    folder = StudyFolder.create(info(), "", {}, tmp_path, "")
    study = with_examples(folder, Examples("accuracy", {"score": right}))
    frame = study.examples(0)
    assert frame.index.name == "example"
    assert frame["score"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert study.examples(2).equals(frame)  # a duplicate's are those of the trial that was trained


def test_statistics_of_several_columns_are_several_columns(tmp_path: Path) -> None:
    sets = np.array([[True, False], [False, False], [True, True]])
    folder = StudyFolder.create(info(), "", {}, tmp_path, "")
    study = with_examples(folder, Examples("f1_macro", {"reference": sets, "predicted": ~sets}))
    frame = study.examples(0)
    assert list(frame.columns) == ["reference_0", "reference_1", "predicted_0", "predicted_1"]
    assert frame["predicted_1"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (1, "trial 1 was recorded by version 0.2.0 or earlier"),
        (3, r"trial 3 did not reach full length \(stopped\)"),
        (9, "trial 9 has no result"),
    ],
)
def test_a_trial_without_examples_is_named_with_the_reason(
    number: int, reason: str, tmp_path: Path
) -> None:
    folder = StudyFolder.create(info(), "", {}, tmp_path, "")
    study = with_examples(folder, Examples("accuracy", {"score": np.ones(3, bool)}))
    with pytest.raises(peftsearch.UsageError, match=reason):
        study.examples(number)


def test_a_study_of_an_earlier_version_says_that_it_has_none(recorded: peftsearch.Study) -> None:
    with pytest.raises(peftsearch.UsageError, match=r"examples\.npz is missing: .* or earlier"):
        recorded.examples(recorded.best().trial)
