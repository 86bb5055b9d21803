"""What can be refused without model and data is refused before torch is even imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peftsearch.cli import watch
from peftsearch.cli.main import run
from peftsearch.errors import DataError, UsageError
from peftsearch.task import early_checks
from peftsearch.task.early_checks import refuse_early
from peftsearch.task.spec import TaskSpec

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 2, rungs: [1]}
places: {attn: {at: query+value}}
choices: {attn: {form: linear}}
"""
RECIPE = """schema: 1
model: %s
task: {train: "%s", text: [text], label: label%s}
max_steps: 2
configuration: {modifications: []}
"""

SEARCH = "search space.yaml --model m --train data.csv"
REFUSED = [
    (f"{SEARCH} --metric f2", 2, "metric 'f2' unknown; known: accuracy"),
    (f"{SEARCH} --metric pearson", 2, "metric 'pearson' does not fit classification"),
    (f"{SEARCH} --kind regression --metric f1", 2, "metric 'f1' does not fit regression"),
    (f"{SEARCH} --kind sorting", 2, "kind of task 'sorting' unknown"),
    (f"{SEARCH} --label labl", 2, "data.csv: no column 'labl'; did you mean 'label'?"),
    (f"{SEARCH} --text txt", 2, "data.csv: no column 'txt'"),
    (f"{SEARCH} --eval evl.csv", 2, "evl.csv: no such file; did you mean 'eval.csv'?"),
    (f"{SEARCH} --test tst.csv", 2, "tst.csv: no such file"),
    (f"{SEARCH} --test nothing.en,nothing.ro", 2, "nothing.en: no such file"),
    (f"{SEARCH} --eval bad.csv", 2, "bad.csv: no column 'text'"),
    (f"{SEARCH} --beams 4", 2, "--beams applies only to tasks that generate text"),
    (f"{SEARCH} --device gpu", 3, "device 'gpu' cannot be used here"),
    (f"{SEARCH} --without nothing", 2, "optimisation 'nothing' unknown"),
    (f"{SEARCH} --low-rungs int9", 2, "low precision 'int9' unknown"),
    (f"{SEARCH} --sampler nsga", 2, "sampler 'nsga' unknown; did you mean 'nsga2'?"),
    (f"{SEARCH} --landmarks al", 2, "landmarks 'al' unknown; did you mean 'all'?"),
    (f"{SEARCH} --tokenizer ./nothing", 3, "no tokenizer at './nothing'"),
    (f"{SEARCH} --target-tokenizer m", 2, "--target-tokenizer applies only to tasks"),
    (f"{SEARCH} --artifacts kept", 2, "give --storage, too"),
    (f"{SEARCH} --study s", 2, "study 's' already exists"),
    (f"{SEARCH} --task demo:bbc", 2, "not both"),
    ("search space.yaml --model nothing/here --train data.csv", 3, "neither a local folder nor"),
    ("search space.yaml --model ./nothing --train data.csv", 3, "no model at './nothing'"),
    ("search space.yaml --model pickled --train data.csv", 3, "no safetensors weights"),
    ("search space.yaml --model config:gpt2 --train data.csv", 3, "has no weights"),
    ("search space.yaml --model m --task demo:bcc", 2, "did you mean 'demo:bbc'?"),
    (f"{SEARCH} --dry-run --label labl", 2, "no column 'labl'"),
    (f"{SEARCH} --dry-run --train nothing.csv", 2, "nothing.csv: no such file"),
    ("search demo --study s --resume", 2, "study 's' was not created with space 'demo'"),
    ("search --study s --resume --seed 3", 2, "created with --seed 0, not --seed 3"),
    ("search --study s --resume --sampler tpo", 2, "sampler 'tpo' unknown; did you mean 'tpe'?"),
    ("search --study moved --resume", 2, "gone.csv: no such file"),
    ("worker moved", 2, "gone.csv: no such file"),
    ("worker s --device tpu", 3, "device 'tpu' cannot be used here"),
    ("train no-data.yaml", 2, "gone.csv: no such file"),
    ("train no-model.yaml", 3, "no model at './gone'"),
    ("train metric.yaml", 2, "metric 'mse' does not fit classification"),
    ("train good.yaml --to taken", 2, "'taken' is a folder with other files in it"),
    ("train good.yaml --device tpu", 3, "device 'tpu' cannot be used here"),
    ("train with-eval.yaml --test", 2, "no labelled test split"),
    ("train hidden.yaml --test", 2, "no labelled test split: leave out --test"),
    (f"{SEARCH} --train rows.json --no-header", 2, "--no-header is for csv, tsv and txt"),
    (f"{SEARCH} --train rows.json --separator ;", 2, "--separator is for csv, tsv and txt"),
    (f"{SEARCH} --kind seq2seq --template {{}}", 2, "--template: a template needs {text} once"),
    (f'{SEARCH} --kind seq2seq --template {{"q":1}}', 2, "--template names no column"),
    ("predict out text --separator ;", 2, "--separator applies only to files: give --file"),
    ("show s#0 --model m", 2, "--model is for spaces and methods"),
    ("export s taken", 2, "'taken' is a folder with other files in it"),
    ("export s new --at #7", 1, "the frontier is empty"),
    ("export s taken --to recipe", 2, "'taken' is a folder"),
]


@pytest.fixture
def home(
    tmp_path: Path, tiny_bert: Path, tiny_sentiment_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with good and bad files, a study `s`, and a copy `moved` whose data are gone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").symlink_to(tiny_bert)
    (tmp_path / "space.yaml").write_text(SPACE)
    for name in ("data.csv", "eval.csv"):
        (tmp_path / name).write_bytes(tiny_sentiment_csv.read_bytes())
    (tmp_path / "bad.csv").write_text("body,label\na,positive\n")
    (tmp_path / "hidden.csv").write_text("text,label\na,-1\nb,-1\n")
    (tmp_path / "rows.json").write_text('[{"text": "a", "label": "b"}]')
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"?")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("?")
    monkeypatch.setattr(watch, "watch_local", lambda *_: None)
    assert run([*SEARCH.split(), "--study", "s"]) == 0
    study = json.loads((tmp_path / "studies/s/study.json").read_text())
    moved = tmp_path / "studies" / "moved"
    moved.mkdir()
    task = study["task"] | {"train": str(tmp_path / "gone.csv")}
    (moved / "study.json").write_text(json.dumps(study | {"name": "moved", "task": task}))
    (moved / "space.yaml").write_text(SPACE)
    for name, model, train, more in (
        ("good", "./m", "data.csv", ""),
        ("with-eval", "./m", "data.csv", ", eval: eval.csv"),
        ("hidden", "./m", "data.csv", ", test: hidden.csv"),
        ("no-data", "./m", "gone.csv", ""),
        ("no-model", "./gone", "data.csv", ""),
        ("metric", "./m", "data.csv", ", metric: mse"),
    ):
        (tmp_path / f"{name}.yaml").write_text(RECIPE % (model, train, more))
    return tmp_path


@pytest.mark.slow
def test_what_can_be_refused_early_imports_neither_torch_nor_transformers(home: Path) -> None:
    before = sorted(home.rglob("*"))
    commands = [line.split() for line, _, _ in REFUSED]
    program = (
        "import sys, json, io, contextlib\n"
        "from peftsearch.cli.main import run\n"
        f"for words in {commands!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as told:\n"
        "        code = run(words)\n"
        "    heavy = [m for m in ('torch', 'transformers', 'datasets') if m in sys.modules]\n"
        "    print(json.dumps([code, told.getvalue(), heavy]))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=home
    ).stdout
    told = [json.loads(line) for line in printed.splitlines()]
    assert len(told) == len(REFUSED)
    for (line, code, sentence), (found, error, heavy) in zip(REFUSED, told, strict=True):
        assert (found, heavy) == (code, []), (line, error)
        assert sentence in error, line
        assert error.count("\n") == 1, line
    assert sorted(home.rglob("*")) == before


@pytest.mark.slow
def test_an_unknown_option_imports_not_even_pandas(home: Path) -> None:
    lines = [
        f"{SEARCH} --device gpu",
        f"{SEARCH} --without nothing",
        "search space.yaml --model ./nothing --train data.csv",
        "search --study s --resume --seed 3",
        "search demo --study s --resume",
        "export s taken",
    ]
    program = (
        "import sys\nfrom peftsearch.cli.main import run\n"
        f"assert 0 not in [run(line.split()) for line in {lines!r}]\n"
        "print([m for m in ('pandas', 'optuna') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=home
    ).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table that counts as large, whose rows cannot be read: only its header is looked at."""
    monkeypatch.setattr(early_checks, "_LARGE", 1)
    path = tmp_path / "large.csv"
    path.write_bytes(b'\xef\xbb\xbf"the text",label\n"never closed\n')
    return path


def test_of_a_large_table_the_header_is_enough_to_refuse_a_column(large: Path) -> None:
    refuse_early(TaskSpec(train=str(large), text=("the text",), label="label"))
    with pytest.raises(DataError, match=r"large.csv: no column 'labl'; did you mean 'label'\?"):
        refuse_early(TaskSpec(train=str(large), label="labl"))
    with pytest.raises(DataError, match="no column 'text'"):
        refuse_early(TaskSpec(train=str(large), text=("text",)))


def test_of_a_large_table_the_header_is_enough_to_refuse_a_template(large: Path) -> None:
    def refuse(template: str, **more: Any) -> None:
        refuse_early(TaskSpec(train=str(large), template=template, **more))

    refuse("Q {the text}:")
    refuse("Q {text}:")
    refuse("Q {text}:", text=("the text",))
    with pytest.raises(DataError, match=r"--template: no column 'the txt'; did you mean 'the te"):
        refuse("Q {the txt}:")
    with pytest.raises(DataError, match="--template names no column"):
        refuse('{"q": 1}')
    with pytest.raises(DataError, match="column 'label' is the target"):
        refuse("{label}", label="label")


@pytest.mark.parametrize("content", ["one;two\n1;2\n", "a,a\n1,2\n", "{}\n"])
def test_a_header_that_is_not_understood_refuses_nothing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_checks, "_LARGE", 1)
    (tmp_path / "x.csv").write_text(content)
    refuse_early(TaskSpec(train=str(tmp_path / "x.csv"), text=("text",)))
    refuse_early(TaskSpec(train=str(tmp_path / "x.csv"), text=("1",), header=False))


def test_a_metric_that_no_kind_has_is_refused_whatever_the_kind() -> None:
    with pytest.raises(UsageError, match="metric 'bleau' unknown; did you mean 'bleu'"):
        refuse_early(TaskSpec(name="owner/dataset", metric="bleau"))
    refuse_early(TaskSpec(name="owner/dataset", metric="bleu"))
