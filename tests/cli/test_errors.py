"""What goes wrong on the command line ends in one sentence with the fix, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftsearch.cli.main import run

GOOD_SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.1, 10]}, max_steps: 8}
places: {attn: {at: [query+value, heads]}}
choices:
  attn:
    form: [linear, relu]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_sentiment_csv: Path) -> Path:
    """An empty folder with a data file, bad files of several kinds, and a good space."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_bytes(tiny_sentiment_csv.read_bytes())
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "one-class.csv").write_text("text,label\na b,x\nc d,x\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a", "label": 1}\n{"text": \n')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "data.xlsx").write_bytes(b"?")
    (tmp_path / "space.yaml").write_text(GOOD_SPACE)
    (tmp_path / "typo.yaml").write_text(GOOD_SPACE.replace("    form:", "    frm:"))
    (tmp_path / "model").mkdir()
    return tmp_path


SEARCH = "search {space} --model {model} --train {train} --text {text} --label {label} --study s"
GOOD = {
    "space": "space.yaml",
    "model": "TINY",
    "train": "good.csv",
    "text": "text",
    "label": "label",
}
WRONG = [
    ({"train": "god.csv"}, 2, "god.csv: no such file; did you mean 'good.csv'"),
    ({"train": "empty.csv"}, 2, "empty.csv: the file is empty"),
    ({"train": "model"}, 2, "model: a folder"),
    ({"train": "data.xlsx"}, 2, "unknown kind of file '.xlsx'"),
    ({"train": "broken.jsonl"}, 2, "broken.jsonl:2: not JSON"),
    ({"train": "broken.parquet"}, 2, "broken.parquet: not a readable parquet file"),
    ({"train": "one-class.csv"}, 2, "holds only 'x'; two labels are needed"),
    ({"text": "txt"}, 2, "no column 'txt'; did you mean 'text'?"),
    ({"label": "labl"}, 2, "no column 'labl'; did you mean 'label'?"),
    ({"label": "text"}, 2, "'text' cannot be used twice"),
    ({"model": "model"}, 3, "no model at 'model': a folder with a config.json is needed"),
    ({"model": "owner/name"}, 3, "neither a local folder nor available from the Hugging Face Hub"),
    ({"model": "demo:minilmm"}, 3, "did you mean 'demo:minilm'?"),
    ({"space": "typo.yaml"}, 2, "typo.yaml:6: choices.attn.frm: unknown key; did you mean 'form'?"),
    ({"space": "unifed"}, 2, "did you mean 'unified'?"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("changed", "code", "sentence"), WRONG)
def test_a_wrong_input_of_search_is_one_sentence_and_leaves_no_study(
    changed: dict[str, str],
    code: int,
    sentence: str,
    here: Path,
    tiny_bert: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = SEARCH.format(**GOOD | changed).replace("TINY", str(tiny_bert)).split()
    assert run(words) == code
    printed = capsys.readouterr()
    errors = [line for line in printed.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not (here / "studies").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("search space.yaml --model m --train good.csv --study ../x", 2, "study name '../x'"),
        ("search space.yaml --model m --train good.csv --study=", 2, "study name ''"),
        ("search --study= --resume", 2, "study name ''"),
        ("search space.yaml --train good.csv", 2, "no model: give --model"),
        ("search --model m --train a.csv --minutes 1 --hours 1", 2, "not both"),
        ("search --model m --train a.csv --device gpu9", 3, "device 'gpu9'"),
        ("search --model m --train a.csv --minutes nan", 2, "--minutes"),
        ("search --model m --train a.csv --hours inf", 2, "must be finite"),
        ("search --model m --train a.csv --workers 1000000000", 2, "workers"),
        ("search --model m --train a.csv --threads 1000000000", 2, "threads"),
        ("train recipe.yaml --threads 1000000000", 2, "threads"),
        (f"train recipe.yaml --seed {10**40}", 2, "seed"),
        (f"search --model m --train a.csv --seed {2**53}", 2, "seed"),
        ("search --model m --train a.csv --device meta", 3, "device 'meta'"),
        ("search --study nope --resume", 2, "no study 'nope'"),
        ("search --bogus", 2, "--bogus"),
        ("serch", 2, "did you mean 'search'"),
        ("frontier nope", 2, "no study 'nope'"),
        ("status ../../etc", 2, "study name '../../etc'"),
        ("report nope", 2, "no study 'nope'"),
        ("export nope OUT", 2, "no study 'nope'"),
        ("show nope", 2, "space 'nope'"),
        ("show nope#3", 2, "no study 'nope'"),
        ("check typo.yaml", 2, "typo.yaml:6"),
        ("predict model text", 3, "no export at 'model'"),
        ("predict model fine s\udcff", 2, r"text 2 is not UTF-8: 's\udcff'"),
        ("train nope.yaml", 2, "nope.yaml"),
        ("train space.yaml", 2, "space.yaml:"),
        ("ls everything", 2, "everything"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    words: str, code: int, sentence: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(here.rglob("*"))
    assert run(words.split()) == code
    error = capsys.readouterr().err
    assert sentence.lower() in error.lower()
    assert error.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_a_name_with_terminal_escapes_is_printed_without_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["frontier", "\x1b[31mred"]) == 2
    assert "\x1b[31m" not in capsys.readouterr().err
