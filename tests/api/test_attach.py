"""`peftsearch.attach`: methods on models of the user's own, in loops of the user's own."""

from __future__ import annotations

import copy
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
from peftsearch.design.methods import METHODS
from support.families import TINY, tiny_body, tiny_lm

CLASSIFIERS = ("bert", "roberta", "distilbert", "gpt2", "llama")
EXPRESSIBLE = ("lora", "mam", "prefix-mlp", "houlsby", "prompt", "ia3", "full", "diff-pruning")


def classifier(model_type: str) -> nn.Module:
    """A tiny model with transformers' own classifier, in fp64."""
    config = tiny_body(model_type).config
    config.num_labels, config.pad_token_id = 3, 0
    torch.manual_seed(0)
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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", METHODS)
def test_tuned_parameters_of_one_sort_have_a_name_each_in_a_module(name: str) -> None:
    """As a loaded export registers them, too, so that checkpoints of both name them alike."""
    model = classifier("bert")
    with peftsearch.attach(model, name) as attached:
        registered = dict(model.get_submodule("peftsearch").named_parameters())
        wanted = {key.replace(".", "/"): p for key, p in attached.parameters.items()}
        assert registered.keys() == wanted.keys()
        assert len(wanted) == len(attached.parameters)
        assert all(registered[key] is p for key, p in wanted.items())


@pytest.mark.slow
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
    with pytest.raises(peftsearch.ConfigurationError, match="Linear is not a transformers model"):
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


def test_a_folder_is_loaded_as_the_class_it_was_saved_from(tmp_path: Path) -> None:
    """And a body alone as one; the parameters made are those on the loaded model."""
    model = classifier("bert")
    model.save_pretrained(tmp_path)
    before = model(ids()).logits
    with peftsearch.attach(tmp_path, "lora") as attached:
        assert type(attached.model) is type(model)
        tuned = {id(p) for p in attached.parameters.values()}
        assert tuned < {id(p) for p in attached.model.parameters() if p.requires_grad}
    found = attached.model.to(torch.float64).eval()(ids()).logits
    torch.testing.assert_close(found, before, rtol=0, atol=1e-12)
    with peftsearch.attach(str(tmp_path), "lora", seed=1) as other:
        keys = [key for key, p in other.parameters.items() if p.abs().sum() > 0]
        assert any(not torch.equal(other.parameters[k], attached.parameters[k]) for k in keys)


def test_a_folder_without_a_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(peftsearch.MissingError, match=r"a folder with a config\.json is needed"):
        peftsearch.attach(tmp_path, "lora")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(peftsearch.MissingError, match="safetensors"):
        peftsearch.attach(tmp_path, "lora")


def test_accelerate_prepares_and_trains_what_is_tuned_and_nothing_else(tiny_bert: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2)
    frozen = {key: value.clone() for key, value in model.base_model.state_dict().items()}
    attached = peftsearch.attach(model, "lora")
    first = {key: value.detach().clone() for key, value in attached.parameters.items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimiser = accelerator.prepare(model, torch.optim.AdamW(trained, lr=1e-2))
    for _ in range(2):
        accelerator.backward(prepared(ids(), labels=torch.tensor([0, 1])).loss)
        optimiser.step()
        optimiser.zero_grad()
    assert all(not torch.equal(p, first[key]) for key, p in attached.parameters.items())
    assert accelerator.unwrap_model(prepared) is model
    attached.detach()
    own = model.base_model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in frozen.items())


# -- moved and cast ----------------------------------------------------------------------------


def single(dtype: torch.dtype = torch.float32) -> nn.Module:
    return classifier("bert").to(dtype)


def logits_of(model: nn.Module) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(ids()).logits
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_cast_model_is_the_configuration_attached_to_the_cast_model(name: str) -> None:
    """fp64 is exact beyond fp32, so that what was fp32 must give the same numbers both ways."""
    model = single()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    attached = peftsearch.attach(model, name)
    perturb(attached)
    held = dict(attached.parameters)
    other = single().double()
    on_double = peftsearch.attach(other, name)
    with torch.no_grad():
        for key, parameter in on_double.parameters.items():
            parameter.copy_(held[key])
    wanted = logits_of(other)
    assert model.double() is model
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(attached.parameters[key] is parameter for key, parameter in held.items())
    torch.testing.assert_close(logits_of(model), wanted, rtol=1e-12, atol=1e-12)
    model(ids()).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in held.values())
    attached.detach()
    state = model.state_dict()
    assert all(torch.equal(state[key], value.double()) for key, value in weights.items())
    assert "_apply" not in vars(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mam", "full", "diff-pruning"])
@pytest.mark.parametrize("model_type", ["bart", "t5", "llama", "gpt2"])
def test_so_is_a_language_model_whose_head_shares_a_tensor(model_type: str, name: str) -> None:
    """A tensor of the body that another module shares is moved once, whatever stands in for it."""
    configuration = METHODS[name].configuration()
    model, other = (copy.deepcopy(tiny_lm(model_type)).float() for _ in range(2))
    batch = {"input_ids": ids(), "labels": ids()}
    attached = peftsearch.attach(model, configuration)
    perturb(attached)
    on_double = peftsearch.attach(other.double(), configuration)
    with torch.no_grad():
        for key, parameter in on_double.parameters.items():
            parameter.copy_(attached.parameters[key])
        model.double()
        found, wanted = model(**batch).logits, other(**batch).logits
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    attached.detach()
    on_double.detach()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, other(**batch).logits)


def test_stored_indices_move_with_the_model() -> None:
    model = single()
    with peftsearch.attach(model, "diff-pruning") as attached:
        perturb(attached)
        stored = {key: value.clone() for key, value in attached.state_dict().items()}
    wanted = single().double()
    peftsearch.attach(wanted, "diff-pruning", tensors=stored)
    moved = peftsearch.attach(model, "diff-pruning", tensors=stored)
    model.double()
    found = moved.state_dict()
    assert all(torch.equal(found[key], value.to(found[key].dtype)) for key, value in stored.items())
    torch.testing.assert_close(logits_of(model), logits_of(wanted), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["full", "lora", "vera", "mam", "bitfit", "diff-pruning"])
def test_beside_a_body_in_half_precision_what_is_tuned_stays_fp32(name: str) -> None:
    model, other = single(), single(torch.bfloat16)
    attached = peftsearch.attach(model, name)
    optimiser = torch.optim.SGD(attached.parameters.values(), lr=0.1)
    model.bfloat16()
    with peftsearch.attach(other, name):
        assert torch.equal(logits_of(model), logits_of(other))
    assert {p.dtype for p in attached.parameters.values()} == {torch.float32}
    before = {key: p.detach().clone() for key, p in attached.parameters.items()}
    (model(ids()).logits.float().square().sum() + (attached.penalty() or 0)).backward()
    optimiser.step()
    assert any(not torch.equal(p, before[key]) for key, p in attached.parameters.items())


def test_a_model_inside_another_is_moved_with_it() -> None:
    model = single()
    with peftsearch.attach(model, "pissa") as attached:
        perturb(attached)
        before = logits_of(model)
        nn.ModuleList([model]).to(torch.float64)
        assert logits_of(model).dtype == torch.float64
        torch.testing.assert_close(logits_of(model), before.double(), rtol=1e-3, atol=1e-3)


def test_moving_to_where_it_is_keeps_everything_in_place() -> None:
    model = single()
    with peftsearch.attach(model, "bitfit") as attached:
        held = list(attached.parameters.values())
        assert model.to("cpu") is model
        assert all(a is b for a, b in zip(held, attached.parameters.values(), strict=True))


@pytest.mark.parametrize("name", ["vera", "mam", "full", "bitfit"])
def test_a_model_is_moved_to_another_device_with_what_is_attached(name: str) -> None:
    """The meta device refuses to compute with tensors that were left on the CPU."""
    model = single()
    attached = peftsearch.attach(model, name)
    model.to("meta")
    assert {tensor.device.type for tensor in attached.state_dict().values()} == {"meta"}
    assert model(ids().to("meta")).logits.device.type == "meta"
