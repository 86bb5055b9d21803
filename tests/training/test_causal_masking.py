"""A decoder's loss, token by token: of the response and its end, never of prompts or padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.encode_texts import Writing, encode_texts
from peftsearch.task.tokens.ragged import Ragged
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.model_inputs import ModelInputs
from peftsearch.training.objectives.texts import prompts_with_responses, target_logits
from peftsearch.training.optimisations import Optimisations
from support.families import EOS
from support.points import point
from support.texts import BOS, NEWLINE, PAD, objective, tokenizer, twin, untuned, words, writer
from support.texts import writing as writing_of

DECODERS = (
    "llama gpt2 opt qwen2 gpt_neox gemma mistral qwen3 gemma3_text phi3 falcon falcon-40b falcon-rw"
).split()
"""Not Gemma 2: as it comes, its attention is fp32, and not a number where all is padding."""
TEXTS = Split([words(20, 21), words(22), ""], None, [words(30, 31), words(32), words(33, 34, 35)])
ALL = np.arange(3)


def data(split: Split = TEXTS, template: str | None = None, **lengths: int) -> Encoded:
    writing = writing_of(writer("llama"), template)
    return encode_texts(split, writing, lengths.get("text", 16), lengths.get("target", 8))


# The three examples; `|` stands where the prompt ends. Token ids are the numbers of the words.
#
#   place            0    1    2    3    4    5    6
#   first          <s>   20   21   \n | 30   31  </s>
#   second         <s>   22   \n | 32  </s>  pad  pad
#   third          <s> | 33   34   35  </s>  pad  pad
IDS = [
    [BOS, 20, 21, NEWLINE, 30, 31, EOS],
    [BOS, 22, NEWLINE, 32, EOS, PAD, PAD],
    [BOS, 33, 34, 35, EOS, PAD, PAD],
]
READ = [
    [1, 1, 1, 1, 1, 1, 1],
    [1, 1, 1, 1, 1, 0, 0],
    [1, 1, 1, 1, 1, 0, 0],
]
WEIGHTS = [
    [0, 0, 0, 0, 1, 1, 1],
    [0, 0, 0, 1, 1, 0, 0],
    [0, 1, 1, 1, 1, 0, 0],
]
# At each place but the last the next token is wanted, where it has a weight.
WANTED = [
    [-100, -100, -100, 30, 31, EOS],
    [-100, -100, 32, EOS, -100, -100],
    [33, 34, 35, EOS, -100, -100],
]


def test_prompts_and_padding_weigh_nothing_responses_and_their_end_one() -> None:
    examples = data()
    assert examples.written is not None
    ids, mask, is_response = prompts_with_responses(examples.inputs, examples.written, ALL, PAD)
    assert ids.tolist() == IDS
    assert mask.int().tolist() == READ
    assert is_response.int().tolist() == WEIGHTS
    assert objective(writer("llama")).weight(examples, ALL) == np.sum(WEIGHTS)


def grid(inputs: ModelInputs) -> list[list[int]]:
    """The target of each place of each text, as in `WANTED`."""
    ids = inputs.tensors["input_ids"]
    rows = torch.full((len(ids), ids.shape[1] - 1), -100)
    assert inputs.predicting is not None
    rows[*inputs.predicting] = inputs.targets
    return rows.tolist()


def test_each_label_is_the_next_token() -> None:
    with untuned(writer("llama")) as model, torch.no_grad():
        logits, inputs = target_logits(model, data(), ALL, is_decoder=True)
    assert grid(inputs) == WANTED
    assert logits.shape == (9, 64)


def test_logits_are_made_only_where_a_response_is_predicted() -> None:
    with untuned(writer("llama")) as model, torch.no_grad():
        logits, inputs = target_logits(model, data(), ALL, is_decoder=True)
        whole = model.backbone.lm(**inputs.tensors, use_cache=False).logits
    wanted = torch.tensor(WANTED) >= 0
    assert torch.allclose(logits, whole[:, :-1][wanted], rtol=0, atol=1e-12)


def log_probabilities(family: str, prompt: list[int], response: list[int]) -> list[float]:
    """Of each token of a response, read alone and without padding by the model as it comes."""
    ids = torch.tensor([prompt + response])
    with torch.no_grad():
        logits = twin(family).eval()(input_ids=ids, use_cache=False).logits[0]
    places = range(max(len(prompt), 1), ids.shape[1])
    return [float(logits[p - 1].log_softmax(-1)[ids[0, p]]) for p in places]


def by_hand(family: str, examples: Encoded) -> list[float]:
    """The loss of each example: minus the sum of its response's log-probabilities."""
    assert examples.written is not None
    prompts, responses = (
        [rows.row(i).tolist() for i in range(len(examples))]
        for rows in (examples.inputs, examples.written)
    )
    pairs = zip(prompts, responses, strict=True)
    return [-sum(log_probabilities(family, *pair)) for pair in pairs]


@pytest.mark.parametrize("family", DECODERS)
def test_the_loss_is_the_sum_of_log_probabilities_written_by_hand(family: str) -> None:
    examples, own = data(), objective(writer(family))
    expected = by_hand(family, examples)
    with untuned(writer(family)) as model:
        with torch.no_grad():
            loss = float(own.loss(model, examples, ALL))
        evaluation = own.evaluate(model, examples, predict=False)
    assert loss == pytest.approx(sum(expected), rel=1e-10)
    assert evaluation.losses.tolist() == pytest.approx(expected, rel=1e-10)
    assert evaluation.weights.tolist() == [3, 2, 4]


@pytest.mark.parametrize("family", DECODERS)
def test_padding_on_the_left_gives_the_same_loss(family: str) -> None:
    """The same examples padded on the other side, by hand, in the model as it comes."""
    rows = [
        [token for token, read in zip(*both, strict=True) if read]
        for both in zip(IDS, READ, strict=True)
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    weights = [sum(row) for row in WEIGHTS]
    with torch.no_grad():
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = (
            twin(family)
            .eval()(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
            .logits
        )
    found = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    theirs = -sum(float(row[-count:].sum()) for row, count in zip(found, weights, strict=True))
    with untuned(writer(family)) as model, torch.no_grad():
        ours = float(objective(writer(family)).loss(model, data(), ALL))
    assert ours == pytest.approx(theirs, rel=1e-10)


def test_prompts_alone_are_padded_on_either_side() -> None:
    right = data().batch(ALL)
    left = data().batch(ALL, left=True)
    assert right["input_ids"].tolist() == [
        [BOS, 20, 21, NEWLINE],
        [BOS, 22, NEWLINE, PAD],
        [BOS, PAD, PAD, PAD],
    ]
    assert left["input_ids"].tolist() == [
        [BOS, 20, 21, NEWLINE],
        [PAD, BOS, 22, NEWLINE],
        [PAD, PAD, PAD, BOS],
    ]
    assert left["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize("method", ["lora", "prefix", "prompt", "houlsby"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_what_is_attached_does_not_let_padding_into_the_loss(family: str, method: str) -> None:
    backbone, own = writer(family), objective(writer(family))
    configuration = replace(point(method, backbone.shapes), head=Head("none"))
    with TunedModel(backbone, configuration, 0) as model, torch.no_grad():
        for parameter in model.parameters.values():
            parameter.add_(0.2)
        together = float(own.loss(model, data(), ALL))
        alone = [float(own.loss(model, data(), ALL[i : i + 1])) for i in range(3)]
    assert together == pytest.approx(sum(alone), rel=1e-10)
    assert together != pytest.approx(sum(by_hand(family, data())), rel=1e-3)


def gradient(examples: Encoded, chosen: Any, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """What the language model's logits were, of every token, and the gradient of the loss by them,
    [texts, tokens − 1, vocabulary] each.
    """
    backbone, kept = writer("llama"), []
    everywhere = Optimisations().without("logits")

    def as_leaf(_module: Any, _args: Any, output: Any) -> Any:
        output.logits = output.logits.detach().requires_grad_()
        kept.append(output.logits)
        return output

    handle = backbone.lm.register_forward_hook(as_leaf)
    try:
        one = Configuration((), Head("none"), Training(label_smoothing=smoothing))
        with TunedModel(backbone, one, 0, optimisations=everywhere) as model:
            objective(backbone).loss(model, examples, chosen).backward()
    finally:
        handle.remove()
    (logits,) = kept
    assert logits.grad is not None
    shape = (len(chosen), -1, logits.shape[-1])
    return logits.detach().view(shape), logits.grad.view(shape)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_by_logits_are_exactly_zero_wherever_no_response_is_predicted(
    smoothing: float,
) -> None:
    _, found = gradient(data(), ALL, smoothing)
    asked = torch.tensor(WANTED) >= 0
    assert (found[~asked] == 0).all()
    assert (found[asked].abs().sum(-1) > 0.1).all()


def test_gradients_by_logits_are_the_probabilities_less_one_for_the_token_wanted() -> None:
    logits, found = gradient(data(), ALL)
    expected = torch.zeros_like(logits)
    for row, wanted in enumerate(WANTED):
        for place, token in enumerate(wanted):
            if token >= 0:
                expected[row, place] = logits[row, place].softmax(-1)
                expected[row, place, token] -= 1
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_a_long_prompt_is_cut_in_its_text_and_the_response_is_kept() -> None:
    """What is cut is the end of the text, 24 … 28: the template's own words and the response stay.

    place   0    1    2    3    4    5    6    7    8
          <s>   10   20   21   22   11   12 | 30  </s>
    """
    long = Split([words(*range(20, 29))], None, [words(30)])
    examples = data(long, "w10 {text} w11 w12", text=7)
    assert examples.written is not None
    ids, _, is_response = prompts_with_responses(examples.inputs, examples.written, ALL[:1], PAD)
    assert ids.tolist() == [[BOS, 10, 20, 21, 22, 11, 12, 30, EOS]]
    assert is_response.int().tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 1]]
    assert examples.truncated == 1
    with untuned(writer("llama")) as model, torch.no_grad():
        loss = float(objective(writer("llama")).loss(model, examples, ALL[:1]))
    assert loss == pytest.approx(by_hand("llama", examples)[0], rel=1e-10)


def test_a_response_that_is_cut_does_not_teach_the_model_to_stop_there() -> None:
    examples = data(Split([words(20)], None, [words(30, 31, 32, 33)]), target=3)
    assert examples.written is not None
    assert examples.written.row(0).tolist() == [30, 31, 32]


def test_a_tokenizer_that_closes_texts_closes_no_prompt_and_a_response_once() -> None:
    closing = tokenizer(decoder=False)
    writing = Writing(closing, closing, is_decoder=True, end_id=EOS)
    examples = encode_texts(TEXTS, writing, 16, 8)
    assert examples.written is not None
    assert examples.inputs.row(0).tolist() == [20, 21, NEWLINE]
    assert examples.written.row(0).tolist() == [30, 31, EOS]


def test_the_end_of_text_counts_where_it_is_the_padding_token_too() -> None:
    own = objective(writer("llama"))
    with untuned(writer("llama")) as model, torch.no_grad():
        expected = float(own.loss(model, data(), ALL))
        found = float(own.loss(model, replace(data(), pad_id=EOS), ALL))
        _, inputs = target_logits(model, replace(data(), pad_id=EOS), ALL, is_decoder=True)
    assert grid(inputs) == WANTED
    assert found == pytest.approx(expected, rel=1e-12)


def test_without_a_padding_token_the_loss_is_the_same() -> None:
    bare = writer("llama", pads=False)
    assert bare.tokenizer.pad_token_id is None
    examples = encode_texts(TEXTS, writing_of(bare), 16, 8)
    with untuned(bare) as model, torch.no_grad():
        loss = float(objective(bare).loss(model, examples, ALL))
    assert loss == pytest.approx(sum(by_hand("llama", data())), rel=1e-10)


def test_the_side_on_which_a_tokenizer_pads_does_not_matter() -> None:
    own = tokenizer(decoder=True)
    for side in ("left", "right"):
        own.padding_side = side
        examples = data()
        assert examples.written is not None
        assert (
            prompts_with_responses(examples.inputs, examples.written, ALL, PAD)[0].tolist() == IDS
        )


def test_nothing_is_read_before_the_first_token_of_a_text_without_a_prompt() -> None:
    """It is not predicted then, and not counted; the other example has a prompt of one token.

    place       0    1    2
    first      30   31  </s>     weights  0  1  1
    second     20 | 32  </s>              0  1  1
    """
    examples = Encoded(
        inputs=Ragged.of([[], [20]]),
        types=None,
        labels=torch.zeros(2),
        pad_id=PAD,
        written=Ragged.of([[30, 31, EOS], [32, EOS]]),
    )
    own = objective(writer("llama"))
    with untuned(writer("llama")) as model, torch.no_grad():
        loss = float(own.loss(model, examples, ALL[:2]))
        _, inputs = target_logits(model, examples, ALL[:2], is_decoder=True)
        evaluation = own.evaluate(model, examples, predict=False)
    assert grid(inputs) == [[31, EOS], [32, EOS]]
    assert own.weight(examples, ALL[:2]) == 4
    assert evaluation.weights.tolist() == [2, 2]
    assert loss == pytest.approx(sum(by_hand("llama", examples)), rel=1e-10)
