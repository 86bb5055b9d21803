"""Predicted seconds of random samples, as `show` prints them."""

from __future__ import annotations

import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.cli.main import run
from peftsearch.design.cost.trial import trial_cost
from peftsearch.space.file.document import Document
from peftsearch.space.predicted_time import predicted_time, typical_workload
from peftsearch.space.random_samples import draw_samples
from peftsearch.space.space import Space
from support.spaces import shipped

PROMPTS = """schema: 1
budgets: {tuned_pct: {log: [0.01, 1]}, max_steps: 50, rungs: [0.2, 0.5, 1], rung_examples: 300}
modifications: 1
places: {input: {at: embedding}, ffn: {at: out, layers: last}}
choices:
  input: {form: [none, prompt], composition: gated}
  ffn: {form: [none, relu]}
train: {batch_size: 16}
"""


def space_of(text: str) -> Space:
    return Space(Document("s.yaml", text))


@pytest.mark.slow
def test_half_and_nine_in_ten_of_the_samples_take_less() -> None:
    shapes, space = load_shapes("config:bert-base"), space_of(PROMPTS)
    drawn, load = draw_samples(space.on(shapes)), typical_workload(space)
    time = predicted_time(drawn, load, scale=1e-9)
    assert time is not None
    seconds = [1e-9 * trial_cost(c, shapes, load).total for c in drawn.configurations]
    for quantile, limit in ((0.5, time.median_s), (0.9, time.most_s)):  # there are ties
        assert sum(s <= limit for s in seconds) >= quantile * len(seconds) - 1
        assert sum(s < limit for s in seconds) <= quantile * len(seconds) + 1
    assert time.longest_s == max(seconds)
    assert time.longest.startswith("prompt@embedding")
    assert time.reason == "its prompt lengthens every text"


def test_a_space_in_which_nothing_fits_has_no_prediction() -> None:
    nothing = space_of(PROMPTS.replace("[0.01, 1]", "[1e-9, 1e-8]"))
    drawn = draw_samples(nothing.on(load_shapes("config:bert-base")))
    assert predicted_time(drawn, typical_workload(nothing)) is None


def test_a_workload_follows_the_space() -> None:
    load = typical_workload(space_of(PROMPTS))
    assert (load.steps, load.batch, load.evaluated) == (50, 16, 1000 + 2 * 300)
    demo = typical_workload(shipped("demo"))
    assert (demo.steps, demo.batch, demo.passes) == (126, 32, 126 * 32 / 2000)
    tokens = space_of(PROMPTS.replace("batch_size: 16", "batch_tokens: 640"))
    assert typical_workload(tokens).batch == 10


@pytest.mark.slow
def test_show_prints_them_with_the_longest_sample(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", "unified", "--model", "config:bert-base"]) == 0
    out = capsys.readouterr().out
    assert "modifications: 1 in 50 %, 2 in 30 %, 3 in 20 % of samples\n" in out
    assert "on one CPU core (189 steps of 32 texts of 64 tokens)\n" in out
    (longest,) = (line for line in out.splitlines() if line.startswith("longest sample: "))
    assert longest.endswith(": its prompt lengthens every text")
