"""Tiny language models of `support.families` with a tokenizer each, and a task of texts for them.

The words are w5 … w62, and the token id of each is its number: a table of tokens reads as text.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from peftsearch.backbone.loading.language import prepare_language_model
from peftsearch.backbone.loading.load import Backbone, shapes_of, wrap
from peftsearch.design.budget import TrainingBudget
from peftsearch.design.composition import Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Linear
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.task.spec import Generation, TaskSpec
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing, encode_texts
from peftsearch.training.loop import TrainingRun
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.base import Indices
from peftsearch.training.objectives.texts import Texts
from peftsearch.training.writing import writing_of
from support.families import EOS, TINY, tiny_config, tiny_lm

__all__ = [
    "BOS",
    "NEWLINE",
    "PAD",
    "TRAINING",
    "after",
    "encoded",
    "furthest",
    "gradients",
    "lora",
    "objective",
    "run_of",
    "tokenizer",
    "trained",
    "tuned",
    "twin",
    "untuned",
    "words",
    "writer",
    "writing",
]

PAD, BOS, NEWLINE, WORDS = 0, 2, 4, range(5, EOS)
TRAINING = Training(lr=(("linear", 0.02),), batch_size=8)
"""Ten steps of it learn something."""


def words(*numbers: int) -> str:
    """The text whose token ids are these numbers."""
    return " ".join(f"w{number}" for number in numbers)


@cache
def tokenizer(decoder: bool, pads: bool = True) -> Any:
    """Puts `<s>` before what a decoder reads, and `</s>` after what an encoder does."""
    own = {"<pad>": PAD, "<unk>": 1, "<s>": BOS, "<sep>": 3, "\n": NEWLINE, "</s>": EOS}
    inner = Tokenizer(models.WordLevel(own | {f"w{n}": n for n in WORDS}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(" +"), "removed")]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A" if decoder else "$A </s>",
        special_tokens=[("<s>", BOS), ("</s>", EOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>" if pads else None,
        model_max_length=128,
    )


@cache
def writer(family: str, dtype: torch.dtype = torch.float64, pads: bool = True) -> Backbone:
    """A tiny language model that reads and writes; shared, so tests must detach from it."""
    lm, own = tiny_lm(family, dtype), tokenizer(TINY[family].kind == "decoder", pads)
    backbone = wrap(lm.base_model, family, own)
    prepare_language_model(lm, None, own)
    return replace(backbone, lm=lm, target_tokenizer=own, shapes=shapes_of(lm.config))


def twin(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    """The same weights in a model just as transformers makes it, with `changes` to its config."""
    model = tiny_lm(family, dtype)
    config = tiny_config(family)
    for key, value in changes.items():
        setattr(config, key, value)
    other = type(model)(config)
    other.load_state_dict(model.state_dict())
    return other.to(dtype)


def writing(backbone: Backbone, template: str | None = None) -> Writing:
    """How it reads and writes, as a search finds it out."""
    return writing_of(backbone, TaskSpec(template=template))


def objective(
    backbone: Backbone, generation: Generation | None = None, max_tokens: int = 8
) -> Texts:
    return Texts(backbone, writing(backbone), generation or Generation(), max_tokens)


@cache
def _pairs(count: int) -> Split:
    """Sources of 1 to 12 words; a target of 1 to 6 words tells what its source begins with."""
    draw = random.Random(0)
    sources = [draw.choices(WORDS, k=draw.randint(1, 12)) for _ in range(count)]
    targets = [[source[0], *draw.choices(WORDS, k=draw.randint(0, 5))] for source in sources]
    return Split([words(*s) for s in sources], None, [words(*t) for t in targets])


def encoded(
    backbone: Backbone, count: int = 24, max_length: int = 16, max_target: int = 8
) -> Encoded:
    """`count` examples of different lengths."""
    return encode_texts(_pairs(count), writing(backbone), max_length, max_target)


def lora(training: Training | None = None, rank: int = 4) -> Configuration:
    """On queries and values of every attention, with s = 2."""
    modification = Modification(
        Linear(), Place.parse("attn.query+value"), composition=Scaled(2), width=rank
    )
    return Configuration((modification,), Head("none"), training or Training())


def run_of(
    backbone: Backbone,
    training: Training,
    steps: int = 10,
    seed: int = 0,
    examples: int = 24,
) -> TrainingRun:
    """A LoRA about to be trained; as a context manager it detaches."""
    budget = TrainingBudget(max_steps=steps, rungs=(1.0,))
    return TrainingRun(
        *(backbone, encoded(backbone, examples), objective(backbone), lora(training)),
        budget=budget,
        seed=seed,
    )


def untuned(backbone: Backbone, training: Training | None = None) -> TunedModel:
    """The language model with nothing attached."""
    return TunedModel(backbone, Configuration((), Head("none"), training or Training()), 0)


def trained(run: TrainingRun, steps: int) -> list[float]:
    """The loss of each of the next steps, mean over the batch's target tokens."""
    inner, sums = run.objective.loss, dict.fromkeys(range(run.step, run.step + steps), 0.0)

    def noted(model: TunedModel, data: Encoded, indices: Indices) -> Tensor:
        loss = inner(model, data, indices)
        sums[run.step] += loss.item()
        return loss

    run.objective.loss = noted  # type: ignore[method-assign]
    run.train_to(run.step + steps)
    run.objective.loss = inner  # type: ignore[method-assign]
    weights = [run.objective.weight(run.train_set, run.order.batch(step)) for step in sums]
    return [loss / weight for loss, weight in zip(sums.values(), weights, strict=True)]


def after(
    backbone: Backbone, training: Training, steps: int = 10
) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of some steps, and what is tuned after them."""
    with run_of(backbone, training, steps) as run:
        losses = trained(run, steps)
        return losses, tuned(run)


def tuned(run: TrainingRun) -> dict[str, Tensor]:
    """Copies of what is tuned, and of its averages."""
    own = {name: p.detach().clone() for name, p in run.model.parameters.items()}
    return own | {f"average/{name}": value.clone() for name, value in run.average.values.items()}


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between tensors of one name."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def gradients(run: TrainingRun) -> dict[str, Tensor]:
    """What the optimiser is given in the next step."""
    given: dict[str, Tensor] = {}

    def noted(*_: Any) -> None:
        given.update({n: p.grad.clone() for n, p in run.model.parameters.items()})

    assert run.optimiser is not None
    hook = run.optimiser.register_step_pre_hook(noted)
    run.train_to(run.step + 1)
    hook.remove()
    return given
