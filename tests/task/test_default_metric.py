"""The metric of a text task that names none: one that its targets can score above 0 in.

The oracle is rouge-score itself: a target's ROUGE-2 with a perfect prediction, the target.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from peftsearch.task.sources.load import load_task
from peftsearch.task.spec import TaskSpec
from peftsearch.task.task import Task

WORDS = ["sonata", "opera", "fugue", "waltz", "aria"]
TARGETS = {
    "one word": (WORDS, "exact_match"),
    "one word and a full stop": ([f"{word}." for word in WORDS], "exact_match"),
    "numbers": (["7", "42", "1999", "3", "12"], "exact_match"),
    "two words": ([f"a {word}" for word in WORDS], "rouge2"),
    "mostly one word": ([*WORDS[:3], "the waltz of flowers", "an aria"], "exact_match"),
    "mostly sentences": (["It is a sonata.", "It is an opera.", "A fugue.", *WORDS[:2]], "rouge2"),
    "Russian sentences": (["Это соната.", "Это опера.", "Это фуга.", "Вальс.", "Ария."], "chrf"),
    "Chinese sentences": (["今天天气很好", "我们去公园", "他喜欢读书", "你好", "谢谢"], "chrf"),
}


def task(folder: Path, targets: list[str], **fields: object) -> Task:
    rows = [
        json.dumps({"instruction": "Repeat the word.", "input": f"{i}", "output": targets[i % 5]})
        for i in range(60)
    ]
    (folder / "d.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return load_task(TaskSpec.model_validate({"train": str(folder / "d.jsonl"), **fields}))


def best_rouge2(targets: list[str]) -> list[float]:
    scorer = RougeScorer(["rouge2"], use_stemmer=True)
    return [scorer.score(target, target)["rouge2"].fmeasure for target in targets]


@pytest.mark.parametrize(("targets", "metric"), TARGETS.values(), ids=TARGETS)
def test_the_default_can_be_scored_above_0_by_most_targets(
    targets: list[str], metric: str, tmp_path: Path
) -> None:
    found = task(tmp_path, targets)
    assert found.kind.name == "seq2seq"
    assert found.metric.name == metric
    zeros = best_rouge2(targets).count(0.0)
    assert (found.metric.name == "rouge2") == (zeros <= len(targets) / 2)
    if found.metric.name != "rouge2":
        each = [found.metric.value([target], [target]) for target in targets]
        assert each == [found.metric.best] * len(targets)


def test_another_default_than_the_usual_one_is_said(tmp_path: Path) -> None:
    (note,) = [n for n in task(tmp_path, WORDS).notes if n.startswith("metric")]
    assert note == (
        "metric: exact_match, as most targets are one word: rouge2 would be 0 (set it with "
        "--metric)"
    )
    sentences = [f"It is a {word}." for word in WORDS]
    assert not [n for n in task(tmp_path, sentences).notes if n.startswith("metric")]


def test_a_metric_that_is_named_stays(tmp_path: Path) -> None:
    found = task(tmp_path, WORDS, metric="rouge2")
    assert found.metric.name == "rouge2"
    assert not [n for n in found.notes if n.startswith("metric")]


@pytest.mark.parametrize("version", [1, 2])
def test_recorded_studies_keep_the_metric_that_they_began_with(
    version: int, tmp_path: Path
) -> None:
    """study.json has the version of the rules; one without it is of version 1."""
    found = task(tmp_path, WORDS, guesses=version, text=("input",), label="output", kind="seq2seq")
    assert found.metric.name == "rouge2"
    stored = {"train": "d.jsonl", "guesses": version}
    assert TaskSpec.of_file(stored).guesses == version


def test_a_prompts_perplexity_stays_the_default_of_causal_tasks(tmp_path: Path) -> None:
    assert task(tmp_path, WORDS, kind="causal").metric.name == "perplexity"
