"""Every text of the user's that a report can hold is shown as text, also by plotly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from peftsearch.records.records import PublishedValue, StudyInfo, StudyRecord, TrialResult
from peftsearch.report.html import render_report
from peftsearch.report.samples import Sample, Samples
from support.reports import info, result

HOSTILE = (
    "\"'></script><script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:x'>y</a>"
    "<!--{{7*7}}{%endif%}"
)
TEXTS = [
    name
    for name, field in StudyInfo.model_fields.items()
    if field.annotation in (str, str | None) and name not in ("name", "kind")
]


class Parsed(HTMLParser):
    """Every element with its attributes, the text outside of scripts, and data for plotly."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.figures = "", {}
        self._stack: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._stack.append((tag, dict(attrs)))
        self.elements.append(self._stack[-1])

    def handle_data(self, data: str) -> None:
        tag, attributes = self._stack[-1] if self._stack else ("", {})
        if tag != "script":
            self.text += data
        elif attributes.get("type") == "application/json":
            self.figures[attributes["id"]] = json.loads(data)

    def handle_endtag(self, tag: str) -> None:
        self._stack.append(("", {}))


def texts_in(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from texts_in(value)


def report(**changes: Any) -> str:
    """A report without plotly's own code, some field of the record replaced."""
    study, results = info(), [result(0, 0.7, 0.1), result(1, 0.75, 1.5), result(2, None, 0.2)]
    for key, value in changes.items():
        if key in StudyInfo.model_fields:
            study = study.model_copy(update={key: value})
        elif key in TrialResult.model_fields:
            results = [r.model_copy(update={key: value}) for r in results]
    return render_report(
        StudyRecord(info=study, results=tuple(results)),
        changes.get("environment", {}),
        changes.get("samples"),
        plotly_from=changes.get("plotly_from", "plotly.js"),
    )


PLAIN = Parsed(report())


def check(page: str, shown: bool = True) -> None:
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.elements] == [tag for tag, _ in PLAIN.elements]
    assert not any(key.startswith("on") for _, attributes in parsed.elements for key in attributes)
    assert parsed.figures.keys() == PLAIN.figures.keys()
    for text in texts_in(parsed.figures):
        # plotly knows a few tags of its own: ours are these two, all else must be escaped.
        rest = re.sub(r"</?b>|<br>|<extra></extra>", "", text)
        assert "<" not in rest, text
    if shown:
        in_figures = " ".join(texts_in(parsed.figures)).replace("&lt;", "<").replace("&gt;", ">")
        everywhere = re.sub(r"\s|<br>", "", parsed.text + in_figures)
        assert "<script>alert(1)</script>" in everywhere


@pytest.mark.slow
@pytest.mark.parametrize("field", TEXTS)
def test_a_text_of_study_json_is_text(field: str) -> None:
    used = {"space", "model", "model_fingerprint", "task_name", "data_fingerprint", "created_at"}
    check(report(**{field: HOSTILE}), shown=field in used)


@pytest.mark.parametrize("field", ["description", "method", "cause"])
def test_a_text_of_a_trial_is_text(field: str) -> None:
    more = {"state": "failed"} if field == "cause" else {}
    plain = Parsed(report(**more, **{field: "plain"}))
    page = Parsed(report(**more, **{field: HOSTILE}))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert HOSTILE in page.text
    for text in texts_in(page.figures):
        assert "<" not in re.sub(r"</?b>|<br>|<extra></extra>", "", text), text


@pytest.mark.parametrize("field", ["name", "title"])
def test_the_metrics_name_and_title_are_text(field: str) -> None:
    check(report(metric=info().metric.model_copy(update={field: HOSTILE})))


def test_labels_are_text() -> None:
    check(report(labels=(HOSTILE, "b")), shown=False)


@pytest.mark.parametrize("field", ["name", "source"])
def test_what_a_paper_reports_is_text(field: str) -> None:
    values = {"name": "lora", "metric": "accuracy", "value": 0.8, "tuned_pct": 0.5, "source": "He"}
    plain = Parsed(report(published=(PublishedValue.model_validate(values),)))
    page = Parsed(report(published=(PublishedValue.model_validate(values | {field: HOSTILE}),)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    for text in texts_in(page.figures):
        assert "<" not in re.sub(r"</?b>|<br>|<extra></extra>", "", text), text


def test_the_environment_is_text() -> None:
    check_like = Parsed(report(environment={"python": "3"}))
    page = Parsed(report(environment={"python": HOSTILE, HOSTILE: "3"}))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in check_like.elements]
    assert HOSTILE in page.text


def test_samples_are_text() -> None:
    def samples(text: str) -> Samples:
        return Samples(number=1, samples=(Sample(text=text, reference=text, prediction=text),))

    page, plain = Parsed(report(samples=samples(HOSTILE))), Parsed(report(samples=samples("x")))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.text.count(HOSTILE) == 3


def test_the_address_of_plotly_stays_in_its_attribute() -> None:
    page = Parsed(report(plotly_from=HOSTILE))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in PLAIN.elements]
    sources = [a["src"] for tag, a in page.elements if tag == "script" and "src" in a]
    assert sources == [HOSTILE]
