"""Prompts of several columns, templates with columns in them, and columns that are not read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftsearch.errors import DataError, PeftsearchError
from peftsearch.task.prompts import columns_to_predict, joined_texts
from peftsearch.task.rows.files import read_rows
from peftsearch.task.rows.rows import Rows
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import ReadColumns, TaskSpec
from peftsearch.task.task import Task


def task(tmp_path: Path, row: dict[str, Any], **more: object) -> Task:
    """Of 20 rows like `row`, each `#` in it the row's number."""
    rows = [json.dumps(row).replace("#", str(i)) for i in range(20)]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(rows))
    return load_task(TaskSpec.model_validate({"train": str(path), **more}))


ALPACA = {"id": 1, "instruction": "do #", "input": "in #", "output": "out #", "text": "do # out #"}
GUESSED = [
    # a row, the text of the same row, its target, what is not read
    (ALPACA, "do #\n\nin #", "out #", "'id', 'text'"),
    (ALPACA | {"input": ""}, "do #", "out #", "'id', 'text'"),
    (ALPACA | {"input": None}, "do #", "out #", "'id', 'text'"),
    (ALPACA | {"input": ["a"]}, "do #", "out #", "'id', 'input', 'text'"),
    ({"Instruction": "do #", "Input": "in #", "Output": "out #"}, "do #\n\nin #", "out #", None),
    (
        {"instruction": "do #", "context": "of #", "response": "out #", "category": "c"},
        *("do #\n\nof #", "out #", "'category'"),
    ),
    (
        {"system_prompt": "be", "question": "q #", "response": "out #"},
        *("be\n\nq #", "out #", None),
    ),
    (
        {"title": "t", "context": "c #", "question": "q #", "answers": {"text": ["a #", "b"]}},
        *("q #\n\nc #", "a #", "'title'"),
    ),
    ({"prompt": "p #", "completion": "out #", "meta": {"a": 1}}, "p #", "out #", "'meta.a'"),
    ({"article": "a #", "summary": "s #", "type": "x"}, "a #", "s #", "'type'"),
]


@pytest.mark.parametrize(("row", "text", "target", "unread"), GUESSED)
def test_what_belongs_to_a_prompt_is_one_text_and_the_rest_is_named(
    row: dict[str, Any], text: str, target: str, unread: str | None, tmp_path: Path
) -> None:
    found = task(tmp_path, row)
    assert found.kind.output == "texts"
    numbers = [str(t).split()[-1] for t in found.train.targets]
    assert list(found.train.targets) == [target.replace("#", n) for n in numbers]
    assert list(found.train.texts) == [text.replace("#", n) for n in numbers]
    said = [note for note in found.notes if "not read" in note]
    assert said == ([] if unread is None else [f"d.jsonl: not read: {unread}"])


def test_an_answer_beside_a_label_is_no_target(tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"q {i}", "answer": "a", "label": i % 2}) for i in range(20)]
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    assert load_task(TaskSpec(train=str(tmp_path / "d.jsonl"))).labels == ("0", "1")


def test_studies_begun_before_read_what_they_read(tmp_path: Path) -> None:
    row = {"instruction": "do #", "input": "in #", "output": "out #"}
    found = task(tmp_path, row, guesses=1)
    assert {text.split()[0] + str(len(text.split())) for text in found.train.texts} == {"do2"}
    assert "d.jsonl: not read: 'input'" in found.notes
    assert TaskSpec.of_file({"train": "d.jsonl"}).guesses == 1
    assert TaskSpec.of_file(TaskSpec(train="d").to_file()) == TaskSpec(train="d")


def test_columns_guessed_by_older_rules_are_said_with_the_way_to_todays(tmp_path: Path) -> None:
    row = {"instruction": "do #", "input": "in #", "output": "out #"}
    said = "columns guessed by the rules of earlier versions"
    told = [note for note in task(tmp_path, row, guesses=1).notes if said in note]
    assert len(told) == 1
    assert "`guesses: 3`" in told[0]
    named = {"text": ("instruction",), "label": "output"}
    assert not any(said in note for note in task(tmp_path, row, guesses=1, **named).notes)
    assert not any(said in note for note in task(tmp_path, row).notes)


def test_a_template_that_names_its_text_column_has_no_part_of_its_own(tmp_path: Path) -> None:
    """`{text}` beside another column is the column that --text names."""
    row = {"instruction": "do #", "input": "in #", "output": "out #"}
    found = task(tmp_path, row, template="Q {text} C {input}", text=("instruction",))
    number = next(str(t).split()[1] for t in found.train.targets)
    assert f"do {number} C in {number}" in found.train.texts


TEMPLATES = [
    # template, text of row 3, the template around it
    ("Q: {instruction}\nC: {input}\nA:", "do 3\nC: in 3", "Q: {text}\nA:"),
    ("{instruction}\n", "do 3", "{text}\n"),
    ('{"a": 1} {instruction} {input}', "do 3 in 3", '{"a": 1} {text}'),
    ("{instruction} {instruction}", "do 3 do 3", "{text}"),
    ("Read {text}:", "do 3\n\nin 3", "Read {text}:"),
]


@pytest.mark.parametrize(("template", "text", "around"), TEMPLATES)
def test_a_template_may_name_columns(template: str, text: str, around: str, tmp_path: Path) -> None:
    row = {"instruction": "do #", "input": "in #", "output": "out #"}
    found = task(tmp_path, row, template=template)
    assert found.spec.template == around
    by_target = dict(zip(found.train.targets, found.train.texts, strict=True))
    number = next(str(t).split()[1] for t in found.train.targets)
    assert by_target[f"out {number}"] == text.replace("3", number)
    assert around.replace("{text}", text) == _filled(template, 3, text)


def _filled(template: str, number: int, text: str) -> str:
    cells = {"instruction": f"do {number}", "input": f"in {number}", "text": text}
    for name, cell in cells.items():
        template = template.replace(f"{{{name}}}", cell)
    return template


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"template": "{instrution} {input}"}, "no column 'instrution'; did you mean 'instruct"),
        ({"template": "{instruction} {output}"}, "column 'output' is the target"),
        (
            {"template": "{instruction}", "text": ("input",)},
            "leave out --text, or put {text} in",
        ),
        ({"text": ("instruction", "nothing")}, "no column 'nothing'"),
        ({"template": '{"q": 1}'}, "--template names no column: put one in braces, or {text}; col"),
        ({"template": "Q {text} C {input}"}, "{text} is ambiguous here: name its column with"),
        (
            {"template": "Q {text} C {input}", "text": ("instruction", "input")},
            "{text} is ambiguous here",
        ),
        ({"template": "{number} {input}"}, "data row 1, column 'number' is not text but int"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(
    more: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    row = {"instruction": "do #", "input": "in #", "output": "out #", "number": 1}
    with pytest.raises(PeftsearchError) as caught:
        task(tmp_path, row, **more)
    assert sentence in str(caught.value)


def test_texts_alone_are_learned_with_everything_in_the_template(tmp_path: Path) -> None:
    found = task(tmp_path, {"a": "x #", "b": "y #"}, kind="causal", template="<{a}|{b}>")
    assert set(found.train.texts) == {""}
    written = {f"<x {i}|y {i}>" for i in range(20)}
    assert set(map(str, found.train.targets)) < written
    assert found.spec.template is None


def test_named_columns_are_joined_and_so_are_those_of_other_splits(tmp_path: Path) -> None:
    lone = [{"instruction": f"alone {i}", "output": "x"} for i in range(4)]
    (tmp_path / "eval.jsonl").write_text("\n".join(map(json.dumps, lone)))
    row = {"instruction": "do #", "input": "in #", "output": "out #"}
    found = task(tmp_path, row, eval=str(tmp_path / "eval.jsonl"))
    assert sorted(found.validation.texts) == [f"alone {i}" for i in range(4)]
    with pytest.raises(DataError, match="no column 'input', which the training data have"):
        task(
            *(tmp_path, row),
            eval=str(tmp_path / "eval.jsonl"),
            text=("instruction", "input"),
            label="output",
        )


def test_an_export_reads_files_as_its_training_data_were_read(tmp_path: Path) -> None:
    found = task(tmp_path, ALPACA, template="Q {instruction} C {input} A")
    rows = read_rows(str(tmp_path / "d.jsonl"))
    names, within = columns_to_predict(rows, (), found.reading, True)
    assert joined_texts(rows, names, within)[3] == "do 3 C in 3"
    assert columns_to_predict(rows, ("id",), found.reading, True) == (("id",), None)
    assert columns_to_predict(rows, (), ReadColumns(), False) == (("text",), None)


def _rows(**columns: list[str]) -> Rows:
    import pandas as pd

    return Rows("d", pd.DataFrame(columns, dtype=object))


def test_a_file_to_predict_may_lack_what_an_instruction_is_about() -> None:
    joined = ReadColumns(text=("instruction", "input"))
    assert columns_to_predict(_rows(instruction=["a"]), (), joined, True)[0] == ("instruction",)
    with pytest.raises(DataError, match="no column 'instruction', which the model was trained on"):
        columns_to_predict(_rows(a=["a"], b=["b"]), (), joined, True)
    pairs = ReadColumns(text=("premise", "hypothesis"))
    with pytest.raises(DataError, match="no column 'premise'"):
        columns_to_predict(_rows(text=["a"]), (), pairs, False)
    two = _rows(sentence1=["a"], sentence2=["b"])
    assert columns_to_predict(two, (), pairs, False)[0] == ("sentence1", "sentence2")


def test_parts_of_the_data_are_said_beside_the_whole(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"t {i}", "label": i % 2}) for i in range(2000)]
    (tmp_path / "d.jsonl").write_text("\n".join(rows))
    (tmp_path / "e.jsonl").write_text("\n".join(rows[:1200]))
    spec = TaskSpec(train=str(tmp_path / "d.jsonl"), eval=str(tmp_path / "e.jsonl"))
    assert load_task(spec).sizes == "2,000 training and 1,200 validation examples"
    few = load_task(spec.model_copy(update={"train_examples": 50, "eval_examples": 1000}))
    assert few.sizes == "50 of 2,000 training and 1,000 of 1,200 validation examples"
    assert np.bincount(few.train.targets).sum() == 50
