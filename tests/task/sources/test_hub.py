"""Hub names, through the real `datasets` code: a local folder stands in for a repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from peftsearch.errors import DataError, MissingError, UsageError
from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec

CARD = """---
configs:
- config_name: plain
  data_files:
  - {{split: train, path: train.csv}}
  - {{split: validation, path: dev.csv}}
  - {{split: test, path: {test}.csv}}
  default: true
- config_name: only_train
  data_files:
  - {{split: train, path: train.csv}}
- config_name: named
  data_files:
  - {{split: train, path: some_hidden.csv}}
  - {{split: validation, path: dev.csv}}
- config_name: broken
  data_files:
  - {{split: train, path: ragged.csv}}
dataset_info:
- config_name: named
  features:
  - {{name: sentence, dtype: string}}
  - {{name: label, dtype: {{class_label: {{names: {{'0': bad, '1': good}}}}}}}}
---
"""


def rows(count: int, start: int = 0, label: int | None = None) -> str:
    lines = [
        f"sentence {i},{i % 2 if label is None else label}" for i in range(start, start + count)
    ]
    return "sentence,label\n" + "\n".join(lines) + "\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`owner/sentiment`, found from the working folder as the Hub's would be from anywhere."""
    folder = tmp_path / "owner" / "sentiment"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(test="test"))
    (folder / "train.csv").write_text(rows(60))
    (folder / "dev.csv").write_text(rows(20, 100))
    (folder / "test.csv").write_text(rows(10, 200))
    (folder / "some_hidden.csv").write_text(rows(60) + "undecided,-1\n")
    (folder / "ragged.csv").write_text("sentence,label\na,0\nb,1,2,3\n")
    (folder / "hidden.csv").write_text(rows(10, 200, label=-1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


def test_a_named_data_set_has_the_splits_of_its_repository(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:plain"))
    test = task.test()
    assert test is not None
    assert (len(task.train), len(task.validation), len(test)) == (60, 20, 10)
    assert task.labels == ("0", "1")
    assert task.name == "owner/sentiment:plain"


def test_a_missing_validation_split_is_made_from_training(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:only_train"))
    test = task.test()
    assert test is not None
    assert len(task.train) + len(task.validation) + len(test) == 60


def test_a_test_split_with_hidden_labels_is_none(repository: Path) -> None:
    (repository / "README.md").write_text(CARD.format(test="hidden"))
    assert load_task(TaskSpec(name="owner/sentiment:plain")).test() is None


def test_no_test_row_is_read_before_the_test_is_opened(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def recorded(self: Any, key: str) -> Any:
        read.append(key)
        return dict.__getitem__(self, key)

    monkeypatch.setattr("datasets.DatasetDict.__getitem__", recorded)
    task = load_task(TaskSpec(name="owner/sentiment:plain"))
    assert "train" in read
    assert "test" not in read
    task.test()
    assert "test" in read


def test_class_names_are_labels_and_undecided_rows_are_left_out(repository: Path) -> None:
    task = load_task(TaskSpec(name="owner/sentiment:named"))
    assert task.labels == ("bad", "good")
    assert (len(task.train), task.test()) == (60, None)
    assert any("1 row without a label (−1) left out" in note for note in task.notes)


def test_class_names_of_lists_are_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `go_emotions` has them, whose name is known."""
    names = "{'0': joy, '1': anger, '2': unseen}"
    feature = f"{{name: labels, sequence: {{class_label: {{names: {names}}}}}}}"
    card = [
        *("---", "configs:", "- config_name: simplified", "  data_files:"),
        *("  - {split: train, path: train.jsonl}", "  - {split: validation, path: dev.jsonl}"),
        *("  - {split: test, path: dev.jsonl}", "dataset_info:", "- config_name: simplified"),
        *("  features:", "  - {name: text, dtype: string}", f"  - {feature}", "---", ""),
    ]
    folder = tmp_path / "google-research-datasets" / "go_emotions"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("\n".join(card))
    rows = [{"text": f"text {i}", "labels": [[0], [0, 1], [], [1]][i % 4]} for i in range(40)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "dev.jsonl").write_text("\n".join(map(json.dumps, rows[:8])))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    task = load_task(TaskSpec(name="go_emotions"))
    assert (task.kind.name, task.metric.name) == ("multilabel", "f1_macro")
    assert task.labels == ("joy", "anger", "unseen")
    assert np.asarray(task.train.targets)[:4].tolist() == [[1, 0, 0], [1, 1, 0], [0] * 3, [0, 1, 0]]
    test = task.test()
    assert test is not None
    assert np.asarray(test.targets).sum(0).tolist() == [4, 4, 0]


Rows = list[dict[str, Any]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes `owner/dataset:config` with the splits given, beside those that are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def write(name: str, **splits: Rows) -> None:
        path, _, config = name.partition(":")
        folder = Path(path)
        folder.mkdir(parents=True)
        lines = ["---", "configs:", f"- config_name: {config or 'default'}", "  data_files:"]
        for split, rows in splits.items():
            content = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(content)
            lines.append(f"  - {{split: {split}, path: {split}.jsonl}}")
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))

    return write


def pairs(count: int, mark: str, label: int | None = None) -> Rows:
    return [
        {
            "premise": f"{mark} {i}",
            "hypothesis": f"so {mark} {i}",
            "label": i % 3 if label is None else label,
            "idx": i,
        }
        for i in range(count)
    ]


def test_mnli_is_evaluated_on_its_matched_pairs_and_has_no_test(hub: Callable[..., None]) -> None:
    hub(
        "nyu-mll/glue:mnli",
        train=pairs(60, "train"),
        validation_mismatched=pairs(9, "mismatched"),
        validation_matched=pairs(12, "matched"),
        test_matched=pairs(5, "test", label=-1),
    )
    task = load_task(TaskSpec(name="glue:mnli"))
    assert task.name == "glue:mnli"
    assert len(task.validation) == 12
    assert all(text.startswith("matched") for text in task.validation.texts)
    assert task.validation.pairs is not None
    assert task.test() is None
    assert not any("guessed" in note for note in task.notes)
    assert (
        "nyu-mll/glue:mnli is known: classification, premise + hypothesis → label; "
        "validation_matched as validation, no test (its labels are hidden)"
    ) in task.notes


def test_a_known_data_set_has_its_kind_and_its_metric(hub: Callable[..., None]) -> None:
    rows = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "label": i / 7} for i in range(40)]
    hidden = [{**row, "label": -1.0} for row in rows]
    hub("nyu-mll/glue:stsb", train=rows, validation=rows[:9], test=hidden)
    task = load_task(TaskSpec(name="nyu-mll/glue:stsb"))
    assert (task.kind.name, task.metric.name, task.test()) == ("regression", "pearson", None)
    assert load_task(TaskSpec(name="glue:stsb", metric="mse")).metric.name == "mse"


def translations(count: int) -> Rows:
    return [{"translation": {"ro": f"textul {i}", "en": f"text {i}"}} for i in range(count)]


def test_translation_goes_from_english_unless_romanian_is_named(hub: Callable[..., None]) -> None:
    hub(
        "wmt/wmt16:ro-en",
        train=translations(30),
        validation=translations(9),
        test=translations(8),
    )
    task = load_task(TaskSpec(name="wmt16:ro-en"))
    assert (task.kind.name, task.metric.name) == ("seq2seq", "bleu")
    assert (task.train.texts[3], task.train.targets[3]) == ("text 3", "textul 3")
    turned = load_task(TaskSpec(name="wmt/wmt16:ro-en", text=("translation.ro",)))
    assert (turned.train.texts[3], turned.train.targets[3]) == ("textul 3", "text 3")
    test = turned.test()
    assert test is not None
    assert test.targets[0] == "text 0"


def test_a_known_data_set_without_validation_has_it_made(hub: Callable[..., None]) -> None:
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(60)]
    others = [{"text": f"other {i}", "label": i % 2} for i in range(20)]
    hub("stanfordnlp/imdb", train=rows, test=others, unsupervised=[{"text": "x", "label": -1}])
    task = load_task(TaskSpec(name="imdb"))
    test = task.test()
    assert test is not None
    assert (len(task.train) + len(task.validation), len(test)) == (60, 20)


def test_a_known_data_set_that_has_changed_is_refused(hub: Callable[..., None]) -> None:
    rows = [{"document": f"text {i}", "summary": f"{i}"} for i in range(9)]
    hub("EdinburghNLP/xsum", train=rows, test=rows)
    with pytest.raises(DataError, match="'xsum' has no validation split; it has: train, test"):
        load_task(TaskSpec(name="xsum"))


def test_a_data_set_without_a_train_split_is_refused(hub: Callable[..., None]) -> None:
    hub("owner/texts", test=[{"text": "a", "label": 1}])
    with pytest.raises(DataError, match="'owner/texts' has no train split; it has: test"):
        load_task(TaskSpec(name="owner/texts"))


def test_tables_made_by_the_hub_stand_in_for_a_script(
    hub: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`EdinburghNLP/xsum` needs them: its tables lie in `default/SPLIT/`."""
    rows = [{"document": f"text {i}", "summary": f"{i}"} for i in range(30)]
    for split in ("train", "validation", "test"):
        folder = Path("converted", "default", split)
        folder.mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(folder / "0000.parquet")
    plain = datasets.load_dataset

    def scripted(path: str, name: str | None = None, **more: str) -> Any:
        if more.pop("revision", None) != "refs/convert/parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found xsum.py")
        assert path == "EdinburghNLP/xsum"
        return plain("converted", **more)

    monkeypatch.setattr("datasets.load_dataset", scripted)
    task = load_task(TaskSpec(name="xsum"))
    assert (len(task.train), len(task.validation), task.metric.name) == (30, 30, "rouge2")


def test_a_script_is_never_run(hub: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def scripted(*_: object, **__: object) -> Any:
        raise RuntimeError("Dataset scripts are no longer supported, but found xsum.py")

    monkeypatch.setattr("datasets.load_dataset", scripted)
    with pytest.raises(
        DataError, match="'owner/texts' needs its own loading script, which is never run"
    ):
        load_task(TaskSpec(name="owner/texts"))


def test_files_that_cannot_be_read_are_an_error_of_the_data(repository: Path) -> None:
    with pytest.raises(DataError, match=r"owner/sentiment:broken.*cannot be read"):
        load_task(TaskSpec(name="owner/sentiment:broken"))


def test_loading_prints_nothing(repository: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_task(TaskSpec(name="owner/sentiment:plain"))
    with pytest.raises(DataError):
        load_task(TaskSpec(name="owner/sentiment:broken"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["", ":", " :x"])
def test_a_name_without_a_data_set_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="owner/dataset"):
        load_task(TaskSpec(name=name))


@pytest.mark.parametrize(
    "name", ["glue:sst2", "a/b/c", "../nowhere at all", "no such/name", "xsum", "x" * 300]
)
def test_a_name_that_is_not_here_is_missing(name: str) -> None:
    with pytest.raises(MissingError, match="HF_HUB_OFFLINE"):
        load_task(TaskSpec(name=name))


def test_an_unknown_configuration_is_named(repository: Path) -> None:
    with pytest.raises(DataError, match="owner/sentiment:plian"):
        load_task(TaskSpec(name="owner/sentiment:plian"))


def test_splits_with_their_own_order_of_names_are_matched_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def split(names: list[str], labels: list[int]) -> datasets.Dataset:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        content = {"text": [f"{names[y]} {i}" for i, y in enumerate(labels)], "label": labels}
        return datasets.Dataset.from_dict(content, features=features)

    splits = {
        "train": split(["bad", "good"], [0, 1] * 10),
        "validation": split(["good", "bad"], [0, 1, -1]),
        "test": split(["awful", "good", "bad"], [1, 2]),
    }
    monkeypatch.setattr("datasets.load_dataset", lambda *_: datasets.DatasetDict(splits))
    task = load_task(TaskSpec(name="owner/opinions"))
    test = task.test()
    assert test is not None
    for data in (task.train, task.validation, test):
        called = [task.labels[int(label)] for label in data.targets]
        assert called == [text.split()[0] for text in data.texts]
    assert (len(task.validation), len(test)) == (2, 2)
