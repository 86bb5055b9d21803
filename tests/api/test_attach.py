"""`peftsearch.attach`: methods on models of the user's own, in loops of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

import peftsearch
from support.families import TINY, tiny_body, tiny_lm

CLASSIFIERS = ("bert", "roberta", "distilbert", "gpt2", "llama")
EXPRESSIBLE = ("lora", "mam", "prefix-mlp", "houlsby", "prompt", "ia3", "full", "diff-pruning")


def classifier(model_type: str) -> nn.Module:
    """A tiny model with transformers' own classifier, in fp64."""
    torch.manual_seed(0)
    config = tiny_body(model_type).config
    config.num_labels, config.pad_token_id = 3, 0
    model = AutoModelForSequenceClassification.from_config(config)
    return model.to(torch.float64).eval()


def ids() -> Tensor:
    """(2, 7) token ids, none of them padding or an end."""
    return torch.arange(3, 17).view(2, 7)


def perturb(attached: peftsearch.Attached) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in attached.parameters.values():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.add_(0.3 * noise)


@pytest.mark.parametrize("name", EXPRESSIBLE)
@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_a_method_changes_a_classifier_and_detaching_gives_it_back_bit_for_bit(
    model_type: str, name: str
) -> None:
    model = classifier(model_type)
    before = model(ids()).logits
    names = [key for key, _ in model.named_parameters()]
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    attached = peftsearch.attach(model, name)
    perturb(attached)
    changed = model(ids()).logits
    assert not torch.equal(changed, before)
    changed.square().sum().backward()
    assert all(p.grad is not None for p in attached.parameters.values())
    attached.detach()
    assert torch.equal(model(ids()).logits, before)
    assert [key for key, _ in model.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_only_what_is_tuned_and_the_classifier_are_trained() -> None:
    model = classifier("bert")
    with peftsearch.attach(model, "lora") as attached:
        trained = {id(p) for p in model.parameters() if p.requires_grad}
        tuned = {id(p) for p in attached.parameters.values()}
        assert trained == tuned | {id(p) for p in model.classifier.parameters()}


@pytest.mark.parametrize(
    "model_type", [name for name, tiny in TINY.items() if tiny.kind != "encoder"]
)
def test_a_language_models_head_is_frozen_like_its_body(model_type: str) -> None:
    model = tiny_lm(model_type)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with peftsearch.attach(model, "lora") as attached:
        trained = {id(p) for p in model.parameters() if p.requires_grad}
        assert trained == {id(p) for p in attached.parameters.values()}
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_the_counts_are_those_that_frontiers_are_drawn_over(tiny_bert: Path) -> None:
    model = AutoModel.from_pretrained(tiny_bert)
    with peftsearch.attach(model, "lora") as attached:
        # Two layers, queries and values, rank 8: 2 · 2 · 8 · (32 + 32).
        assert attached.tuned_parameters == 2048
    with peftsearch.attach(model, "prefix-mlp") as attached:
        # What is stored of a re-parametrised prefix: 16 keys and values a layer of width 32.
        assert attached.tuned_parameters == 2 * 2 * 16 * 32


@pytest.mark.parametrize("name", ["lora", "prefix-mlp", "diff-pruning", "mam"])
def test_what_was_stored_gives_the_same_outputs_again(name: str) -> None:
    model = classifier("bert")
    with peftsearch.attach(model, name) as attached:
        perturb(attached)
        stored = {key: value.clone() for key, value in attached.state_dict().items()}
        with torch.no_grad():
            wanted = model(ids()).logits
    with torch.no_grad(), peftsearch.attach(model, name, tensors=stored):
        found = model(ids()).logits
    if name == "diff-pruning":  # in training its mask is random, what is stored is what it keeps
        assert found.shape == wanted.shape
    else:
        assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_tensors_of_another_configuration_are_refused_and_leave_nothing_behind() -> None:
    model = classifier("bert")
    with peftsearch.attach(model, "lora") as attached:
        stored = attached.state_dict()
    with pytest.raises(peftsearch.ConfigurationError, match="do not belong"):
        peftsearch.attach(model, "mam", tensors=stored)
    before = model(ids()).logits
    with peftsearch.attach(model, "lora"):
        pass
    assert torch.equal(model(ids()).logits, before)


def test_one_configuration_at_a_time() -> None:
    model = classifier("bert")
    with (
        peftsearch.attach(model, "lora"),
        pytest.raises(peftsearch.ConfigurationError, match="attached to this model already"),
    ):
        peftsearch.attach(model, "mam")
    with peftsearch.attach(model, "mam"):
        pass


def test_what_is_no_transformers_model_is_refused_in_a_sentence() -> None:
    with pytest.raises(peftsearch.ConfigurationError, match="Linear is no transformers model"):
        peftsearch.attach(nn.Linear(2, 2), "lora")


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(peftsearch.ConfigurationError, match="did you mean 'lora'"):
        peftsearch.attach(classifier("bert"), "lorra")


def test_a_decoder_writes_with_a_prefix(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    prompt, options = ids(), {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(prompt, **options)
    with peftsearch.attach(model, "prefix") as attached:
        perturb(attached)
        cached = model.generate(prompt, **options)
        anew = model.generate(prompt, use_cache=False, **options)
        assert torch.equal(cached, anew)
    assert torch.equal(model.generate(prompt, **options), plain)


def test_an_encoder_decoder_learns_in_a_plain_loop(tiny_bart: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_bart)
    with peftsearch.attach(model, "mam") as attached:
        optimiser = torch.optim.AdamW(attached.parameters.values(), lr=1e-2)
        losses = []
        for _ in range(8):
            loss = model(input_ids=ids(), labels=ids()).loss
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_trainer_trains_what_is_tuned_and_nothing_else(tmp_path: Path, tiny_bert: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    frozen = {key: value.clone() for key, value in model.base_model.state_dict().items()}
    attached = peftsearch.attach(model, "lora")
    first = {key: value.detach().clone() for key, value in attached.parameters.items()}
    rows = [
        {"input_ids": row.tolist(), "attention_mask": [1] * 7, "labels": i}
        for i, row in enumerate(ids())
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows).train()
    moved = [k for k, v in attached.parameters.items() if not torch.equal(v, first[k])]
    assert sorted(moved) == sorted(first)
    attached.detach()
    own = model.base_model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in frozen.items())
