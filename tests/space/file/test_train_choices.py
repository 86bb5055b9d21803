"""Every training setting can be fixed or searched in a space file, and is read back exactly."""

from __future__ import annotations

from dataclasses import fields

import optuna
import pytest

from peftsearch.backbone.loading.load import load_shapes
from peftsearch.design.training import Training
from peftsearch.errors import SpaceError
from peftsearch.space.decode import decode
from peftsearch.space.encode import Replay, encode
from peftsearch.space.file.document import Document
from peftsearch.space.file.train_choices import TrainChoices
from peftsearch.space.space import Space

SPACE = """schema: 1
budgets: {{tuned_pct: {{log: [0.01, 5]}}, max_steps: 8}}
places: {{attn: {{at: [query+value, heads]}}}}
choices: {{attn: {{form: [none, linear, prefix], composition: [add, gated]}}}}
train: {train}
"""
SEARCHED = """
  lr: {log: [1e-4, 1e-2]}
  head_lr: {log: [1e-4, 1e-2]}
  batch_size: [16, 32]
  weight_decay: {range: [0, 0.1]}
  warmup: [0, 0.06]
  max_grad_norm: [0.1, 1]
  up_lr_ratio: [1, 16]
  schedule: [constant, linear]
  label_smoothing: {range: [0, 0.2]}
  accumulation: [1, 4]
  batch_tokens: [0, 4096]
  precision: [fp32, bf16]
  checkpointing: [true, false]
  dropout: [0, 0.1]
  max_length: {range: [32, 128]}"""


def space(train: str) -> Space:
    return Space(Document("a.yaml", SPACE.format(train=train)))


def test_every_setting_is_a_key_of_the_space_file() -> None:
    assert set(TrainChoices.model_fields) == {field.name for field in fields(Training)}


def test_what_is_searched_takes_its_values_and_is_read_back_exactly() -> None:
    shapes = load_shapes("config:bert-base")
    searched = space(SEARCHED)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[object]] = {field.name: set() for field in fields(Training)}
    for _ in range(60):
        configuration = decode(searched.on(shapes), study.ask()).configuration
        if configuration is None or not configuration.modifications:
            continue
        for name, values in seen.items():
            values.add(getattr(configuration.training, name))
        again = decode(searched.on(shapes), Replay(encode(searched.on(shapes), configuration)))
        assert again.configuration == configuration
    assert all(len(values) > 1 for values in seen.values()), seen
    assert seen["max_length"] <= set(range(32, 129))


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ("{schedule: cosine}", "schedule 'cosine' unknown"),
        ("{precision: fp8}", "precision 'fp8' unknown"),
        ("{label_smoothing: 1}", "label_smoothing 1 is not between 0 and 1"),
        ("{dropout: {range: [0, 2]}}", "dropout 2"),
        ("{accumulation: 0}", "accumulation 0 is not a whole number between 1"),
        ("{accumulation: 1.5}", "accumulation 1.5 is not a whole number"),
        ("{checkpointing: sometimes}", "expected true, false"),
        ("{batch_tokens: -1}", "batch_tokens -1 is not a whole number"),
        ("{max_lenght: 8}", "did you mean 'max_length'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(train: str, sentence: str) -> None:
    with pytest.raises(SpaceError, match=r"^a\.yaml:5: ") as caught:
        space(train)
    assert sentence in str(caught.value)


def test_settings_at_their_defaults_leave_the_hash_of_a_space_as_it_is() -> None:
    plain = space("{lr: 1e-3}")
    assert space("{lr: 1e-3, dropout: 0, schedule: constant}").hash == plain.hash
    assert space("{lr: 1e-3, dropout: 0.1}").hash != plain.hash
    assert Space(Document("b.yaml", plain.to_yaml())).hash == plain.hash
