"""Every kind of task from the command line: search, frontier, export, predict, train again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftsearch.cli.main import run
from peftsearch.export.native import load
from peftsearch.records.examples import read_examples
from peftsearch.records.folder import StudyFolder
from support.readme import readme_commands
from support.tiny import copying_rows, scored_rows, sentiment_rows, tagged_rows, write_csv
from support.worker_here import search_in_this_process

SPACE = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 12, rungs: [0.5, 1], rung_examples: 8}
places: {attn: {at: [query+value, heads]}}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated]}
head: {pooling: [first, mean]}
train: {lr: 0.01, batch_size: 8, label_smoothing: [0, 0.1], accumulation: 2}
seed_with: [head-only-mean, head-only-first, lora]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    search_in_this_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    write_csv(tmp_path / "labels.csv", sentiment_rows(60))
    write_csv(tmp_path / "scores.csv", scored_rows(60))
    write_csv(tmp_path / "answers.csv", copying_rows(60))
    tagged = tagged_rows(120)
    (tmp_path / "tags.jsonl").write_text("\n".join(map(json.dumps, tagged)))
    flags = [
        {"text": row["text"], **{tag: str(int(tag in row["tags"])) for tag in TAGS}}
        for row in tagged
    ]
    write_csv(tmp_path / "flags.csv", flags)
    joined = [{"text": row["text"], "tags": "|".join(row["tags"])} for row in tagged]
    write_csv(tmp_path / "joined.csv", joined)
    return tmp_path


TAGS = ("negative", "positive", "travel")

CASES = [
    # model, what is said of the data, kind, the metric by default
    ("tiny_llama", "--train labels.csv --text text --label label", "classification", "accuracy"),
    ("tiny_bart", "--train labels.csv --text text --metric matthews", "classification", "matthews"),
    ("tiny_bert", "--train scores.csv --kind regression --text text", "regression", "pearson"),
    ("tiny_llama", "--train scores.csv --kind regression --metric mse", "regression", "mse"),
    ("tiny_bart", "--train answers.csv --text source --target answer", "seq2seq", "exact_match"),
    ("tiny_bart", "--train answers.csv --metric chrf --beams 2 --max-target 6", "seq2seq", "chrf"),
    ("tiny_llama", "--train answers.csv --kind causal", "causal", "perplexity"),
    ("tiny_llama", "--train answers.csv --metric rougeL", "seq2seq", "rougeL"),
    ("tiny_bert", "--train tags.jsonl", "multilabel", "f1_micro"),
    (
        "tiny_llama",
        "--train flags.csv --label negative --label positive --label travel --metric f1_macro",
        "multilabel",
        "f1_macro",
    ),
    (
        "tiny_bart",
        "--train joined.csv --kind multilabel --label tags --metric bce",
        "multilabel",
        "bce",
    ),
    (
        "tiny_bert",
        "--train labels.csv --metric f1 --positive negative",
        "classification",
        "f1",
    ),
    ("tiny_llama", "--train labels.csv --kind causal --text text", "causal", "perplexity"),
]


@pytest.mark.slow
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
    for one in full:
        kept = read_examples(StudyFolder.open("s").trial(one["number"]).examples_path)
        assert (kept.metric, len(kept)) == (metric, study["eval_examples"])
        assert kept.value() == pytest.approx(one["metric"], rel=1e-12 if metric == "chrf" else 0)
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


@pytest.mark.slow
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
    assert "is an encoder and cannot generate text" in capsys.readouterr().err
    assert not (here / "studies").exists()


BAD = [
    ("--train scores.csv --kind regression --label text", "'text' cannot be used twice"),
    ("--train words.csv --kind regression", "data row 2, column 'score' is not a finite number"),
    ("--train constant.csv --kind regression", "every target is 3: there is nothing to predict"),
    ("--train scores.csv", "name the label column (--label) or the kind of task (--kind)"),
    ("--train hollow.csv --kind seq2seq", "every text in column 'answer' is empty"),
    ("--train answers.csv --metric accuracy", "metric 'accuracy' does not fit seq2seq"),
    ("--train answers.csv --kind seqseq", "kind of task 'seqseq' unknown; did you mean 'seq2seq'"),
    ("--train labels.csv --template x{text}", "--template applies only to tasks"),
    ("--train labels.csv --beams 4", "--beams applies only to tasks that generate text"),
    ("--train answers.csv --template none", "a template needs {text} once"),
    ("--train answers.csv --languages en", "--languages takes two codes"),
    ("--train answers.csv --languages en,ro", "has no language codes"),
    ("--train answers.csv --max-target 60 --max-length 4 --template x{text}yyyyyyyyy", "no room"),
    ("--train labels.csv --eval unseen.csv", "data row 2 has label 'great', unseen in training"),
]


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_commands_of_the_page_on_tasks_run(
    here: Path, tiny_bert: Path, tiny_bart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    mail = [{"body": row["text"], "topic": row["label"]} for row in sentiment_rows(60)]
    write_csv(here / "mail.csv", mail)
    news = [{"article": r["source"], "summary": r["answer"]} for r in copying_rows(40)]
    (here / "news.jsonl").write_text("\n".join(map(json.dumps, news)))
    films = [{"plot": row["text"], "genres": row["tags"]} for row in tagged_rows(60)]
    (here / "films.jsonl").write_text("\n".join(map(json.dumps, films)))
    judged = {"toxic": "negative", "insult": "positive", "threat": "travel"}
    comments = [
        {"comment": row["text"], **{c: str(int(t in row["tags"])) for c, t in judged.items()}}
        for row in tagged_rows(60)
    ]
    write_csv(here / "comments.csv", comments)
    commands = readme_commands(page)
    assert len(commands) >= 5
    for number, command in enumerate(commands):
        model = tiny_bart if "--target" in command.words else tiny_bert
        words = command.made_small(str(model), trials=1)
        few = ["--eval-examples", "20", "--train-examples", "40"]
        assert run([*words[1:], *few, "--study", f"s{number}"]) == 0, capsys.readouterr().err


@pytest.mark.slow
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


LEARNS = """schema: 1
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 120}
places: {attn: {at: [query+value]}}
choices: {attn: {form: [none, linear]}}
head: {pooling: mean}
train: {lr: 0.01, head_lr: 0.01, batch_size: 16}
seed_with: [full]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        "--train tags.jsonl",
        "--train flags.csv --label negative --label positive --label travel",
    ],
)
def test_sets_of_labels_are_learned_and_predicted_however_they_are_written(
    data: str, here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "space.yaml").write_text(LEARNS)
    options = ["--study", "s", "--trials", "1"]
    assert run(["search", "space.yaml", "--model", str(tiny_bert), *data.split(), *options]) == 0
    result = json.loads((here / "studies/s/trials/00000/result.json").read_text())
    study = json.loads((here / "studies/s/study.json").read_text())
    assert study["labels"] == list(TAGS)
    assert result["metric"] > 0.6 > study["metric"]["worst"]
    assert run(["export", "s", "--at", "#0", "--to", "native", "out"]) == 0
    texts = ["it was a bad city", "and the a there it was and a", "the good and sad water"]
    answers = load("out").predict(texts)
    capsys.readouterr()
    assert run(["predict", "out", *texts]) == 0
    assert capsys.readouterr().out.split("\n") == [*map(", ".join, answers), ""]
    assert run(["predict", "out", *texts, "--json"]) == 0
    detailed = json.loads(capsys.readouterr().out)["predictions"]
    assert [one["labels"] for one in detailed] == answers
    for one in detailed:
        shares = one["probabilities"]
        assert list(shares) == list(TAGS)
        assert [tag for tag in TAGS if shares[tag] > 0.5] == one["labels"]
    assert len({tuple(answer) for answer in answers}) > 1


@pytest.mark.slow
def test_f1_is_of_the_label_that_is_named(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = ["search", "space.yaml", "--model", str(tiny_bert), "--train", "labels.csv"]
    f1 = ["--metric", "f1", "--trials", "1"]
    assert run([*begin, *f1, "--study", "a"]) == 0
    assert "f1 is of label 'positive' (set it with --positive)" in capsys.readouterr().err
    assert run([*begin, *f1, "--positive", "negative", "--study", "b"]) == 0
    assert "f1 is of label" not in capsys.readouterr().err
    one, other = (json.loads((here / f"studies/{s}/study.json").read_text()) for s in "ab")
    assert one["metric"]["title"] == "F1 of 'positive'"
    assert other["metric"]["title"] == "F1 of 'negative'"
    # Always saying one of two equally frequent labels has F1 2/3 of it and 0 of the other.
    worst = [one["metric"]["worst"], other["metric"]["worst"]]
    assert sorted(worst) == pytest.approx([0, 2 / 3])
    assert (one["task"]["positive"], other["task"]["positive"]) == (None, "negative")


@pytest.mark.slow
def test_a_prompt_of_several_columns_goes_from_the_search_to_predictions(
    here: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": i, "instruction": row["source"], "input": "night" * (i % 2), "output": row["answer"]}
        for i, row in enumerate(copying_rows(60))
    ]
    (here / "alpaca.jsonl").write_text("\n".join(map(json.dumps, rows)))
    template = "Do {instruction} with {input} so:\n"
    words = ["search", "space.yaml", "--model", str(tiny_llama), "--train", "alpaca.jsonl"]
    words += ["--train-examples", "30", "--trials", "1", "--max-target", "4"]
    for study, more in (("joined", []), ("filled", ["--template", template])):
        assert run([*words, "--study", study, *more]) == 0
        printed = capsys.readouterr().err
        assert "alpaca.jsonl: not read: 'id'" in printed
        assert "30 of 48 training and 6 validation examples" in printed
        assert run(["export", study, "--to", "native", study]) == 0
        capsys.readouterr()
        assert run(["predict", study, "--file", "alpaca.jsonl", "--json"]) == 0
        predicted = json.loads(capsys.readouterr().out)["predictions"]
        texts = [
            f"{row['instruction']} with {row['input']}"
            if more
            else "\n\n".join(filter(None, (row["instruction"], row["input"])))
            for row in rows
        ]
        assert [one["text"] for one in predicted] == texts
        assert load(study).predict(texts) == [one["prediction"] for one in predicted]
        samples = json.loads((here / f"studies/{study}/trials/00000/samples.json").read_text())
        assert {sample["text"] for sample in samples} <= set(texts)
    package = json.loads((here / "filled/configuration.json").read_text())
    assert package["template"] == "Do {text} so:\n"


@pytest.mark.slow
def test_a_separator_is_remembered_by_study_recipe_and_export(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines as TREC's: a label, a space, a text."""
    lines = [f"{row['label']}:x {row['text']}\n" for row in sentiment_rows(60)]
    (here / "train.label").write_text("".join(lines))
    columns = ["--separator", "space", "--no-header", "--label", "1", "--text", "2"]
    words = ["search", "space.yaml", "--model", str(tiny_bert), "--study", "s"]
    assert run([*words, "--train", "train.label", "--trials", "1", *columns]) == 0
    assert run(["search", "--resume", "--study", "s", "--trials", "2"]) == 0
    assert run(["export", "s", "--at", "#0", "--to", "native", "out"]) == 0
    assert run(["export", "s", "--at", "#0", "--to", "recipe", "r.yaml"]) == 0
    assert run(["train", "r.yaml"]) == 0
    capsys.readouterr()
    assert run(["predict", "out", "--file", "train.label"]) == 0
    predicted = capsys.readouterr().out.splitlines()
    assert load("out").predict([line.split(" ", 1)[1].rstrip() for line in lines]) == predicted
    assert set(predicted) <= {"negative:x", "positive:x"}


@pytest.mark.slow
def test_what_a_file_inherits_from_training_is_said_and_can_be_undone(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain questions in a .txt, where training lines were a label, a space, a text."""
    lines = [f"{row['label']} {row['text']}\n" for row in sentiment_rows(60)]
    (here / "train.txt").write_text("".join(lines))
    columns = ["--separator", "space", "--no-header", "--label", "1", "--text", "2"]
    words = ["search", "space.yaml", "--model", str(tiny_bert), "--study", "s", "--trials", "1"]
    assert run([*words, "--train", "train.txt", *columns]) == 0
    assert run(["export", "s", "--at", "#0", "--to", "native", "out"]) == 0
    questions = ["who wrote it", "what a film"]
    (here / "plain.txt").write_text("".join(f"{line}\n" for line in questions))
    (here / "named.csv").write_text("text\n" + "".join(f"{line}\n" for line in questions))

    def texts(*words: str) -> tuple[list[str], str]:
        capsys.readouterr()
        assert run(["predict", "out", "--json", "--file", *words]) == 0
        told = capsys.readouterr()
        return [one["text"] for one in json.loads(told.out)["predictions"]], told.err

    inherited = (
        "plain.txt: read like the training file, without a header line (--header if it has one) "
        "and with columns separated by the first space (--separator none if not)"
    )
    assert texts("plain.txt") == (["wrote it", "a film"], f"{inherited}\n")
    found, told = texts("plain.txt", "--separator", "none")
    assert (found, "read like the training file" in told) == (questions, False)
    (here / "headed.txt").write_text("label text\nbad who wrote it\n")
    found, told = texts("headed.txt", "--header", "--text", "text")
    assert found == ["who wrote it"]
    assert "(--header if" not in told
    assert texts("named.csv")[0] == questions  # another extension: nothing is inherited
    assert texts("named.csv", "--no-header", "--text", "1")[0] == ["text", *questions]


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("--separator ;", "--separator"),
        ("--text q", "--text"),
        ("--no-header", "--no-header"),
        ("--header", "--header"),
    ],
)
def test_options_of_files_are_refused_beside_texts(
    words: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(tmp_path), "a text", *words.split()]) == 2
    assert f"{flag} applies only to files: give --file, or leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_sets_goes_on_with_its_own_labels_and_no_others(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--label", "negative", "--label", "travel"]
    begin = ["search", "space.yaml", "--model", str(tiny_bert), "--train", "flags.csv", *labels]
    assert run([*begin, "--study", "s", "--trials", "1"]) == 0
    again = ["search", "--study", "s", "--resume", "--trials", "1"]
    assert run([*again, *labels]) == 0
    capsys.readouterr()
    assert run([*again, "--label", "negative"]) == 2
    said = capsys.readouterr().err
    assert "was created with --label negative --label travel, not --label negative" in said
    assert run([*again, *labels, "--metric", "f1", "--positive", "travel"]) == 2
    assert "with no --positive, not --positive travel" in capsys.readouterr().err


def test_evaluation_data_without_any_label_are_refused_for_f1(
    here: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "none.jsonl").write_text('{"text": "good", "tags": []}\n{"text": "bad", "tags": []}')
    data = "--train tags.jsonl --eval none.jsonl --study s".split()
    assert run(["search", "space.yaml", "--model", str(tiny_bert), *data]) == 2
    assert "f1_micro is nan before anything is tuned" in capsys.readouterr().err
    assert not (here / "studies").exists()
