"""Costs of trials: in every derived file, unknown in studies recorded before them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from peftsearch.api.status import status_of
from peftsearch.design.methods import METHODS
from peftsearch.records.derive import frontier_document
from peftsearch.records.records import COSTS, StudyRecord, TrialResult
from peftsearch.records.serving import grouped_by_serving, serves_as
from peftsearch.records.trial_folder import TrialFolder
from peftsearch.records.trials_csv import derived_trials_csv
from support.reports import info, result

LATER = set(COSTS) - {"tuned_parameters", "trained_parameters", "wall_s", "cpu_s", "eval_s"}


def with_costs(number: int, method: str, **properties: object) -> TrialResult:
    found = result(number, 0.7 + number / 100, 0.1 + number)
    facts = {"configuration": METHODS[method].configuration().to_json(), "adapter_bytes": 12_288}
    return TrialResult.model_validate(found.model_dump() | facts | properties)


HEAD = with_costs(0, "head-only-mean", mergeable=True, plain_lora=False)
LORA = with_costs(1, "lora", mergeable=True, plain_lora=True, peak_rss_bytes=5 * 10**8)
DORA = with_costs(2, "dora", mergeable=True, plain_lora=False, peak_rss_bytes=7 * 10**8)
MAM = with_costs(3, "mam", mergeable=False, plain_lora=False)
OLD = result(4, 0.8, 9.0)
ALL = StudyRecord(info=info(), results=(HEAD, LORA, DORA, MAM, OLD))


def test_a_result_of_an_earlier_version_opens_with_costs_unknown(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, 4)
    known = {k: v for k, v in OLD.model_dump(mode="json").items() if k not in LATER}
    folder.result_path.write_text(json.dumps(known))
    found = folder.read_result()
    assert found == OLD
    assert {getattr(found, name) for name in LATER} == {None}
    assert serves_as(OLD) is None


def test_the_table_and_the_frontier_have_every_cost() -> None:
    rows = list(csv.DictReader(io.StringIO(derived_trials_csv(ALL))))
    points = {point["number"]: point for point in frontier_document(ALL)["points"]}
    for known in ALL.results:
        for name in COSTS:
            value = getattr(known, name)
            assert points[known.number][name] == value
            assert rows[known.number][name] == ("" if value is None else str(value))


def test_points_are_grouped_by_the_simplest_way_to_serve_them() -> None:
    assert grouped_by_serving(ALL.results) == (
        "the base model: #0; plain LoRA: #1; merged weights: #2; an adapter with its own code: #3"
    )
    assert grouped_by_serving([OLD]) == ""


def test_a_status_has_the_most_memory_of_a_worker() -> None:
    assert status_of(ALL, None)["peak_rss_bytes"] == 7 * 10**8
    assert status_of(StudyRecord(info=info(), results=(OLD,)), None)["peak_rss_bytes"] is None


@pytest.mark.parametrize(
    ("number", "shown"), [(1, "served as plain LoRA, 12.3 kB"), (4, "")], ids=["known", "old"]
)
def test_the_report_says_how_a_point_is_served(number: int, shown: str) -> None:
    from peftsearch.report.figures.text import hover
    from peftsearch.report.html import render_report

    assert ("served as" in hover(ALL.results[number], info())) == bool(shown)
    page = render_report(StudyRecord(info=info(), results=(ALL.results[number],)), {})
    assert shown in hover(ALL.results[number], info())
    assert ("· served as" in page) == bool(shown)
    assert shown in page
