"""Lengths of texts: room for a prompt among the model's positions, and never none for the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.methods import METHODS
from peftsearch.design.training import Training
from peftsearch.errors import ConfigurationError
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.training.bench import Workbench
from peftsearch.training.text_lengths import max_text_tokens
from support.backbones import backbone_at
from support.tiny import copying_rows, sentiment_rows, write_csv


def limits(backbone: Backbone, tokenizer: int, positions: int, prompt: int) -> Backbone:
    shapes = replace(backbone.shapes, longest_prompt=prompt)
    most = min(tokenizer, positions)
    return replace(backbone, shapes=shapes, positions=positions, max_length=most)


@pytest.mark.parametrize(
    ("tokenizer", "positions", "prompt", "room"),
    [
        (512, 512, 128, 384),  # BERT
        (256, 512, 128, 256),  # MiniLM of sentence-transformers
        (128, 512, 128, 128),  # others of them
        (100, 512, 128, 100),
        (512, 10**9, 300, 512),  # T5
        (10**9, 10**9, 300, 10**9 - 300),
        (450, 512, 128, 384),
    ],
)
def test_a_prompt_takes_positions_of_the_model_not_of_the_tokenizers_limit(
    tokenizer: int, positions: int, prompt: int, room: int, tiny_bert: Path
) -> None:
    backbone = limits(backbone_at(tiny_bert), tokenizer, positions, prompt)
    assert max_text_tokens(backbone, with_prompts=True) == room
    assert max_text_tokens(backbone, with_prompts=False) == min(tokenizer, positions)


def with_limit(model: Path, folder: Path, limit: int) -> str:
    """The model with another limit of its tokenizer's."""
    backbone = load_backbone(str(model))
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.model_max_length = limit
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("limit", [8, 16, 18])
def test_texts_keep_their_length_where_the_tokenizers_limit_is_short(
    limit: int, tiny_bert: Path, tmp_path: Path
) -> None:
    """Of 66 positions the longest prompt takes 16."""
    rows = write_csv(tmp_path / "r.csv", sentiment_rows(40))
    model = with_limit(tiny_bert, tmp_path / "m", limit)
    bench = Workbench.prepare(model, TaskSpec(train=str(rows)), with_prompts=True)
    assert bench.lengths.text == min(limit, 16)
    assert bench.backbone.positions == 66
    longest = METHODS["prompt"].modifications[0].with_width(16)
    ids = torch.tensor([bench.train.inputs.row(0).tolist()])
    with attach(bench.backbone, Configuration((longest,))):
        bench.backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize(("limit", "asked"), [(2, None), (1, None), (64, 2), (64, 1), (2, 40)])
def test_texts_of_special_tokens_alone_are_refused(
    limit: int, asked: int | None, tiny_bert: Path, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", sentiment_rows(40))
    model = with_limit(tiny_bert, tmp_path / "m", limit)
    with pytest.raises(
        ConfigurationError, match=r"no room for a word: .* take 2; raise --max-length"
    ):
        Workbench.prepare(model, TaskSpec(train=str(rows)), max_length=asked, with_prompts=True)


def test_a_pair_has_more_special_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [row | {"other": "good"} for row in sentiment_rows(40)]
    spec = TaskSpec(train=str(write_csv(tmp_path / "r.csv", rows)), text=("text", "other"))
    with pytest.raises(ConfigurationError, match=r"no room for a word: .* take 3"):
        Workbench.prepare(str(tiny_bert), spec, max_length=3)
    assert Workbench.prepare(str(tiny_bert), spec, max_length=5).lengths.text == 5


def writing_spec(folder: Path, **options: int) -> TaskSpec:
    rows = write_csv(folder / "w.csv", copying_rows(40))
    names = {"text": ("source",), "label": "answer", "kind": "seq2seq"}
    return TaskSpec.model_validate({"train": str(rows), **names, **options})


@pytest.mark.parametrize(("model", "around"), [("tiny_bart", 2), ("tiny_llama", 2)])
def test_what_is_read_is_never_special_tokens_and_template_alone(
    model: str, around: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """BART's `<s> </s>`, Llama's `<s>` and the line break after a prompt."""
    name, spec = str(request.getfixturevalue(model)), writing_spec(tmp_path)
    with pytest.raises(ConfigurationError, match=rf"no room for a word: .* take {around}"):
        Workbench.prepare(name, spec, max_length=around)
    assert Workbench.prepare(name, spec, max_length=around + 1).lengths.text == around + 1


def test_what_is_written_is_never_special_tokens_alone(tiny_bart: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="raise --max-target to 3 or more"):
        Workbench.prepare(str(tiny_bart), writing_spec(tmp_path, max_target=2))


def test_a_prompt_takes_nothing_of_what_an_encoder_decoder_writes(
    tiny_bart: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    """64 tokens by the tokenizer, 66 positions, 16 of them the prompt's."""
    spec = writing_spec(tmp_path, max_target=60)
    bench = Workbench.prepare(str(tiny_bart), spec, with_prompts=True)
    assert bench.lengths.target == 60
    bench = Workbench.prepare(
        str(tiny_llama), writing_spec(tmp_path, max_target=30), with_prompts=True
    )
    assert bench.lengths.text + bench.lengths.target + 16 <= 66


@pytest.mark.parametrize("model", ["tiny_bart", "tiny_llama"])
def test_texts_leave_room_for_all_tokens_that_may_be_written(
    model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """More of them than targets have: of 66 positions."""
    name = str(request.getfixturevalue(model))

    def text(tokens: int) -> int:
        asked = Generation(max_tokens=tokens)
        spec = writing_spec(tmp_path).model_copy(update={"generation": asked})
        return Workbench.prepare(name, spec, max_length=40).lengths.text

    assert text(20) == 40
    assert text(30) == (36 if model == "tiny_llama" else 40)
    with pytest.raises(ConfigurationError, match=r"66 positions .* lower max_tokens"):
        text(67)


def test_a_training_that_cuts_texts_to_nothing_is_refused_as_well(
    tiny_bert: Path, tmp_path: Path
) -> None:
    rows = write_csv(tmp_path / "r.csv", sentiment_rows(40))
    bench = Workbench.prepare(str(tiny_bert), TaskSpec(train=str(rows)))
    assert bench.for_training(Training(max_length=3)).lengths.text == 3
    with pytest.raises(ConfigurationError, match=r"no room for a word: .* raise max_length"):
        bench.for_training(Training(max_length=2))
