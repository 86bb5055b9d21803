"""Every kind of task from the command line: search, frontier, export, predict, train again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peftsearch.cli.main import run
from peftsearch.export.native import load
from peftsearch.search import run as search_run
from peftsearch.search.events import Event
from peftsearch.search.limits import Limits, Means
from peftsearch.search.worker import Worker
from support.readme import MINUTES, readme_commands
from support.tiny import copying_rows, scored_rows, sentiment_rows, write_csv

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 12, rungs: [0.5, 1], rung_examples: 8}
places: {attn: {at: [query+value, heads]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
head: {pooling: [first, mean]}
train: {lr: 0.01, batch_size: 8, label_smoothing: [0, 0.1], accumulation: 2}
seed_with: [head-only-mean, head-only-first, lora]
"""


class WorkerHere:
    """A worker in this process: starting one takes longer than these searches do."""

    def __init__(self, root: str, count: int, limits: Limits, means: Means) -> None:
        self.arguments = (root, 0, limits, time.monotonic, means)

    def run(self, on_death: Callable[[int], None]) -> Iterator[Event]:
        events: list[Event] = []
        Worker(*self.arguments, events.append, lambda: False).run()
        yield from events


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(search_run, "LocalWorkers", WorkerHere)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    write_csv(tmp_path / "labels.csv", sentiment_rows(60))
    write_csv(tmp_path / "scores.csv", scored_rows(60))
    write_csv(tmp_path / "answers.csv", copying_rows(60))
    return tmp_path


CASES = [
    # model, what is said of the data, kind, the metric by default
    ("tiny_llama", "--train labels.csv --text text --label label", "classification", "accuracy"),
    ("tiny_bart", "--train labels.csv --text text --metric matthews", "classification", "matthews"),
    ("tiny_bert", "--train scores.csv --kind regression --text text", "regression", "pearson"),
    ("tiny_llama", "--train scores.csv --kind regression --metric mse", "regression", "mse"),
    ("tiny_bart", "--train answers.csv --text source --target answer", "seq2seq", "rouge2"),
    ("tiny_bart", "--train answers.csv --metric chrf --beams 2 --max-target 6", "seq2seq", "chrf"),
    ("tiny_llama", "--train answers.csv --kind causal", "causal", "perplexity"),
    ("tiny_llama", "--train answers.csv --metric exact_match", "seq2seq", "exact_match"),
    ("tiny_llama", "--train labels.csv --kind causal --text text", "causal", "perplexity"),
]


@pytest.mark.parametrize(("model", "data", "kind", "metric"), CASES)
def test_a_search_of_every_kind_ends_with_a_point_that_can_be_used(
    model: str,
    data: str,
    kind: str,
    metric: str,
    here: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = request.getfixturevalue(model)
    options = ["--study", "s", "--trials", "3", "--eval-limit", "6"]
    assert run(["search", "space.yaml", "--model", str(folder), *data.split(), *options]) == 0
    capsys.readouterr()
    study = json.loads((here / "studies/s/study.json").read_text())
    assert (study["kind"], study["metric"]["name"]) == (kind, metric)
    assert run(["frontier", "s", "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert points
    results = [json.loads(p.read_text()) for p in here.glob("studies/s/trials/*/result.json")]
    full = [r for r in results if r["state"] == "full"]
    assert all(0 <= r["eval_s"] <= r["wall_s"] for r in full)
    rungs = [value for r in results for value in r["curve"] if value["fraction"] < 1]
    assert {value["examples"] for value in rungs} <= {6}
    best = max(full, key=lambda r: r["tuned_pct"])["number"]
    assert run(["export", "s", "--at", f"#{best}", "--to", "native", "out"]) == 0
    capsys.readouterr()
    assert run(["predict", "out", "good night", "a bad film", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2
    assert run(["export", "s", "--at", f"#{best}", "--to", "recipe", "r.yaml"]) == 0
    capsys.readouterr()
    assert run(["train", "r.yaml", "--json", "--test"]) == 0
    again = json.loads(capsys.readouterr().out)[f"validation_{metric}"]
    assert again == next(r["metric"] for r in full if r["number"] == best)
    assert run(["status", "s"]) == 0
    assert "evaluation" in capsys.readouterr().out


def test_texts_are_written_with_nothing_trained_beside_the_modifications(
    here: Path, tiny_bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "--train answers.csv --study s --trials 3".split()
    assert run(["search", "space.yaml", "--model", str(tiny_bart), *data]) == 0
    results = [json.loads(p.read_text()) for p in here.glob("studies/s/trials/*/result.json")]
    untuned = [r for r in results if r["method"] == "untuned"]
    assert [r["trained_parameters"] for r in untuned] == [0]
    assert all(r["trained_parameters"] == r["tuned_parameters"] for r in results)
    samples = json.loads((here / "studies/s/trials/00000/samples.json").read_text())
    assert {"text", "reference", "prediction"} == set(samples[0])


def test_an_encoder_cannot_write(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(
        [
            "search",
            "space.yaml",
            "--model",
            str(tiny_bert),
            "--train",
            "answers.csv",
            "--study",
            "s",
        ]
    )
    assert code == 2
    assert "is an encoder and cannot write text" in capsys.readouterr().err
    assert not (here / "studies").exists()


BAD = [
    ("--train scores.csv --kind regression --label text", "'text' cannot be used twice"),
    ("--train words.csv --kind regression", "data row 2, column 'score' is not a finite number"),
    ("--train constant.csv --kind regression", "every target is 3: there is nothing to predict"),
    ("--train scores.csv", "name the label column (--label) or the kind of task (--kind)"),
    ("--train hollow.csv --kind seq2seq", "every text in column 'answer' is empty"),
    ("--train answers.csv --metric accuracy", "metric 'accuracy' is none of seq2seq"),
    ("--train answers.csv --kind seqseq", "kind of task 'seqseq' unknown; did you mean 'seq2seq'"),
    ("--train labels.csv --template x{text}", "--template is about texts to be written"),
    ("--train labels.csv --beams 4", "--beams is about texts to be written"),
    ("--train answers.csv --template none", "a template needs {text} once"),
    ("--train answers.csv --languages en", "--languages wants two codes"),
    ("--train answers.csv --languages en,ro", "takes no languages"),
    ("--train answers.csv --max-target 60 --max-length 4 --template x{text}yyyyyyyyy", "no room"),
    ("--train labels.csv --eval unseen.csv", "data row 2 has label 'great', unseen in training"),
]


@pytest.mark.parametrize(("said", "sentence"), BAD)
def test_what_cannot_be_is_said_in_one_sentence_and_nothing_is_written(
    said: str,
    sentence: str,
    here: Path,
    tiny_llama: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "words.csv").write_text("text,score\nfine,1.5\nbad,none\n")
    (here / "constant.csv").write_text("text,score\nfine,3\nbad,3\nso so,3\n")
    (here / "hollow.csv").write_text("source,answer\nfine,\nbad, \n")
    (here / "unseen.csv").write_text("text,label\ngood,positive\ngood,great\n")
    code = run(["search", "space.yaml", "--model", str(tiny_llama), *said.split(), "--study", "s"])
    printed = capsys.readouterr().err
    assert code == 2, printed
    assert sentence in printed
    assert "Traceback" not in printed
    assert not (here / "studies").exists()


def test_odd_texts_are_left_out_or_cut_and_counted(
    here: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = copying_rows(30)
    rows[3]["source"] = " "
    rows[4]["answer"] = ""
    rows[5]["source"] = "night " * 300
    rows[6]["answer"] = "night " * 300
    write_csv(here / "odd.csv", rows)
    text = (here / "odd.csv").read_bytes()
    (here / "odd.csv").write_bytes(text.replace(b"night night", b"night \xff", 1))
    data = "--train odd.csv --kind causal --study s --trials 1 --max-target 8".split()
    assert run(["search", "space.yaml", "--model", str(tiny_llama), *data]) == 0
    printed = capsys.readouterr().err
    assert "odd.csv: 1 invalid UTF-8 sequences replaced" in printed
    assert "odd.csv: 2 rows with an empty text left out" in printed
    assert "cut)" in printed
    assert "(0 cut)" not in printed


def test_fewer_examples_than_a_batch_are_one_batch(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "--train labels.csv --train-examples 5 --study s --trials 1".split()
    assert run(["search", "space.yaml", "--model", str(tiny_bert), *data]) == 0
    assert "fewer training examples than a batch of 8" in capsys.readouterr().err


def test_the_commands_of_the_page_on_tasks_run(
    here: Path, tiny_bert: Path, tiny_bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    mail = [{"body": row["text"], "topic": row["label"]} for row in sentiment_rows(60)]
    write_csv(here / "mail.csv", mail)
    news = [{"article": r["source"], "summary": r["answer"]} for r in copying_rows(40)]
    (here / "news.jsonl").write_text("\n".join(map(json.dumps, news)))
    commands = readme_commands(page)
    assert len(commands) == 3
    for number, command in enumerate(commands):
        model = tiny_bart if "--target" in command.words else tiny_bert
        words = [SMALLER.get(word, word) for word in command.made_small(str(model))]
        few = ["--eval-examples", "20", "--train-examples", "40"]
        assert run([*words[1:], *few, "--study", f"s{number}"]) == 0, capsys.readouterr().err


SMALLER = {"--minutes": "--trials", MINUTES: "1"}


def test_what_is_exported_predicts_what_was_evaluated_whatever_the_training_was(
    here: Path, tiny_bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In both precisions of one space, cut to two lengths, on both schedules."""
    train = "{precision: [fp32, bf16], schedule: [constant, linear], max_length: [0, 12], lr: 0.01}"
    space = SPACE[: SPACE.index("train:")] + f"train: {train}\nseed_with: [head-only-mean]\n"
    (here / "mixed.yaml").write_text(space)
    data = "--train answers.csv --metric chrf --study s --trials 6".split()
    assert run(["search", "mixed.yaml", "--model", str(tiny_bart), *data]) == 0
    full = [json.loads(p.read_text()) for p in here.glob("studies/s/trials/*/result.json")]
    full = [result for result in full if result["state"] == "full"]
    assert {result["dtype"] for result in full} == {"float32", "bfloat16"}
    for number in (result["number"] for result in full):
        out = f"out{number}"
        assert run(["export", "s", "--at", f"#{number}", "--to", "native", out]) == 0
        samples = json.loads((here / f"studies/s/trials/{number:05d}/samples.json").read_text())
        written = load(out).predict([sample["text"] for sample in samples])
        assert written == [sample["prediction"] for sample in samples]
