"""Learning rates are part of what is said of a configuration."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Linear, Prefix
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.records.derive import frontier_document
from peftsearch.records.rates import Rates
from peftsearch.records.records import StudyRecord
from peftsearch.records.trials_csv import derived_trials_csv
from support.reports import info, result

LORA = Modification(Linear(), Place.parse("attn.query+value"), width=2)
PREFIX = Modification(Prefix(), Place.parse("attn.heads"), width=4)


def rates(*modifications: Modification, head: str = "mean", **training: object) -> Rates:
    made = Configuration(modifications, Head(head), Training(**training))  # type: ignore[arg-type]
    return Rates.of(made.to_json())


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (rates(LORA, lr=(("linear", 0.00261),), head_lr=0.005), "lr 2.6e-3, head 5e-3"),
        (
            rates(LORA, PREFIX, lr=(("linear", 3e-4), ("prefix", 0.03)), head_lr=1e-3),
            "lr linear 3e-4, prefix 3e-2, head 1e-3",
        ),
        (rates(LORA, PREFIX, lr=(("linear", 0.01), ("prefix", 0.01))), "lr 1e-2, head 1e-3"),
        (rates(head_lr=0.5), "lr head 5e-1"),
        (rates(LORA, head="none", lr=(("linear", 2.0),)), "lr 2e0"),
        (
            rates(LORA, lr=(("linear", 1e-4),), up_lr_ratio=16),
            "lr 1e-4 (up-projections ×16), head 1e-3",
        ),
        (rates(head="none"), ""),
        (Rates.of(None), ""),
    ],
)
def test_rates_are_short_and_name_forms_where_they_differ(found: Rates, text: str) -> None:
    assert str(found) == text


def test_a_result_written_before_there_was_lora_plus_has_rates_too() -> None:
    old = {"modifications": [], "head": {"pooling": "mean"}, "training": {"lr": {}, "head_lr": 0.1}}
    assert Rates.of(old) == Rates({}, 0.1, 1.0)


@pytest.fixture
def record() -> StudyRecord:
    two = Configuration((LORA, PREFIX), Head(), Training((("linear", 0.1 + 0.2), ("prefix", 1e-3))))
    one = Configuration((LORA,), Head(), Training((("linear", 0.1 + 0.2),), head_lr=0.7))
    made = [
        result(number, 0.7 + number / 10, 0.1 + number).model_copy(
            update={"configuration": configuration.to_json()}
        )
        for number, configuration in enumerate((one, two))
    ]
    return StudyRecord(info=info(), results=tuple(made))


def test_the_table_of_trials_has_them_exactly(record: StudyRecord) -> None:
    one, two = csv.DictReader(io.StringIO(derived_trials_csv(record)))
    assert (float(one["lr"]), float(one["head_lr"])) == (0.1 + 0.2, 0.7)
    assert two["lr"] == "linear=0.30000000000000004 prefix=0.001"


def test_the_frontiers_document_has_them_by_form(record: StudyRecord) -> None:
    one, two = frontier_document(record)["points"]
    assert (one["lr"], one["head_lr"], one["up_lr_ratio"]) == ({"linear": 0.1 + 0.2}, 0.7, 1.0)
    assert two["lr"] == {"linear": 0.1 + 0.2, "prefix": 1e-3}


def test_every_form_of_the_report_says_them(record: StudyRecord, tmp_path: Path) -> None:
    from peftsearch.report.figures.text import hover
    from peftsearch.report.html import render_report

    page = render_report(record, {})
    assert "lr linear 3e-1, prefix 1e-3, head 1e-3" in hover(record.results[1], record.info)
    row = page[page.index('<table id="trials">') :]
    assert "<span>linear 3e-1,</span> <span>prefix 1e-3,</span> <span>head 1e-3</span>" in row
    front = page[: page.index('<table id="trials">')]
    assert "lr <span>3e-1,</span> <span>head 7e-1</span>" in front
