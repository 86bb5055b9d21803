"""Tuned tensors of the body: what may be tuned, what is dead, and what a sparse change is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attach import Attachment, attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Sparse
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import perturb
from support.stock import SIZES, VOCABULARY, backbone, batch, outputs, stock, twin

pytestmark = pytest.mark.internals

WITHOUT_BIASES = tuple(
    "t5 t5-gated llama mistral qwen3 gemma gemma2 gemma3 modernbert phi3".split()
)
WITH_BIASES = [name for name in SIZES if name not in WITHOUT_BIASES]


def biases(name: str) -> dict[str, Tensor]:
    """Every bias of a stock model's body by its own name, the pooler's left out."""
    return {
        path: parameter
        for path, parameter in stock(name).named_parameters()
        if path.endswith("bias") and not path.startswith("pooler")
    }


def changed(ours: Backbone, name: str) -> dict[str, Tensor]:
    """Parameter → where it now differs from the stock model's."""
    frozen = dict(stock(name).named_parameters())
    now = dict(ours.model.named_parameters())
    return {path: tensor != frozen[path] for path, tensor in now.items()}


# -- biases ------------------------------------------------------------------------------------


def many(name: str) -> dict[str, Tensor]:
    """Texts enough that hardly a ReLU is off for all of them."""
    inputs = batch(name)
    generator = torch.Generator().manual_seed(5)
    return {
        key: t.repeat(8, 1)
        if key == "attention_mask"
        else torch.randint(5, VOCABULARY, (24, t.shape[1]), generator=generator)
        for key, t in inputs.items()
    }


IN_VAIN = {("deberta-c2p", "encoder.LayerNorm.bias")}
"""Tuned though it has no influence: the norm of the relative positions adds the same to each, so
that all keys' logits move alike where p2c is off. No released model has it off.
"""


@pytest.mark.parametrize("name", WITH_BIASES)
def test_what_bitfit_leaves_out_has_no_influence_and_what_it_tunes_has(name: str) -> None:
    """Under plain softmax attention, biases of the keys; under RoPE none of those that turn."""
    ours, inputs = backbone(name), many(name)
    with attach(ours, METHODS["bitfit"].configuration()) as attachment:
        perturb(attachment.tensors)
        outputs(ours.model, inputs)
        tuned = changed(ours, name)
        assert not any(t.any() for path, t in tuned.items() if path not in biases(name))
    model: Any = twin(name)
    parameters = dict(model.named_parameters())
    generator = torch.Generator().manual_seed(3)
    for path in biases(name):
        noise = torch.randn(parameters[path].shape, generator=generator, dtype=torch.float64)
        parameters[path] += noise * ~tuned[path]
    plain = outputs(stock(name), inputs)
    assert (outputs(model, inputs) - plain).abs().max() <= 1e-12 * plain.abs().max().clamp(min=1)

    live = {path: p.requires_grad_() for path, p in stock_parameters(name).items()}
    mask = torch.rand(plain.shape, generator=generator, dtype=torch.float64)
    states = _trainable(name)(**inputs).last_hidden_state
    real = mask if "decoder_input_ids" in inputs else mask * inputs["attention_mask"].unsqueeze(-1)
    (states * real).sum().backward()
    # Terms that cancel are as large as other gradients are.
    largest = max(float(p.grad.abs().max()) for p in live.values() if p.grad is not None)
    for path in biases(name):
        gradient = live[path].grad
        assert gradient is not None
        if (name, path) in IN_VAIN:
            assert (gradient.abs() <= 1e-12 * largest).all(), path
            continue
        idle = gradient.abs() <= 1e-9 * gradient.abs().max()
        # OPT's ReLU is off for a random unit or two, whatever the text
        allowed = 2 if name == "opt" and "fc1" in path else 0
        assert (idle & tuned[path]).sum() <= allowed, path
        assert (gradient[~tuned[path]].abs() <= 1e-12 * largest).all(), path


_TRAINABLE: dict[str, Any] = {}


def _trainable(name: str) -> Any:
    if name not in _TRAINABLE:
        _TRAINABLE[name] = twin(name)
    return _TRAINABLE[name]


def stock_parameters(name: str) -> dict[str, Tensor]:
    return dict(_trainable(name).named_parameters())


@pytest.mark.parametrize("name", WITH_BIASES)
def test_bitfit_of_every_bias_changes_every_bias_and_nothing_else(name: str) -> None:
    ours = backbone(name)
    with attach(ours, METHODS["bitfit-all"].configuration()) as attachment:
        perturb(attachment.tensors)
        tuned = changed(ours, name)
    for path, entries in tuned.items():
        assert entries.all() if path in biases(name) else not entries.any(), path


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_model_without_biases_has_none_to_tune(name: str) -> None:
    from peftsearch.errors import ConfigurationError

    assert biases(name) == {}
    with pytest.raises(ConfigurationError, match="biases"):
        attach(backbone(name), METHODS["bitfit"].configuration())


# -- norms and everything ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_norm_tuning_changes_every_norm_and_nothing_else(name: str) -> None:
    """A norm is what its module's name says, in every family."""
    ours = backbone(name)
    with attach(ours, METHODS["ln-tuning"].configuration()) as attachment:
        perturb(attachment.tensors)
        tuned = changed(ours, name)
    words = ("norm", "ln_")
    for path, entries in tuned.items():
        module = path.rsplit(".", 2)[-2].lower()
        assert entries.all() == any(w in module for w in words), path
        assert entries.all() == entries.any(), path


@pytest.mark.parametrize("name", SIZES)
def test_full_fine_tuning_is_the_model_with_those_weights(name: str) -> None:
    ours, inputs = backbone(name), batch(name)
    with attach(ours, METHODS["full"].configuration()) as attachment:
        with torch.no_grad():
            for parameter in attachment.tensors.values():
                parameter.mul_(0.9)
        tuned = outputs(ours.model, inputs)
        trained = {n.split("/")[1]: p.detach() for n, p in attachment.tensors.items()}
    model: Any = twin(name)
    for path, parameter in model.named_parameters():
        if not path.startswith("pooler") and path in trained:
            parameter.copy_(trained[path])
    assert sum(t.numel() for t in trained.values()) == ours.shapes.body_parameters
    # Gemma 2's own attention computes its softmax in single precision
    tolerance = 1e-5 if name == "gemma2" else 1e-12
    assert (tuned - outputs(model, inputs)).abs().max() <= tolerance


# -- diff-pruning ------------------------------------------------------------------------------

K = 137


def sparse(ours: Backbone, k: int = K) -> Configuration:
    return Configuration((Modification(Sparse(), Place(("weights",)), width=k),))


def moved(attachment: Attachment) -> Tensor:
    """δ = z ⊙ w without noise, once w and log α are anywhere: z in closed form."""
    generator = torch.Generator().manual_seed(7)
    w, log_alpha = (attachment.tensors[f"0/sparse/{n}"] for n in ("w", "log_alpha"))
    with torch.no_grad():
        w.normal_(generator=generator)
        log_alpha.uniform_(-4, 4, generator=generator)
        z = (torch.sigmoid(log_alpha) * (1.1 - -0.1) + -0.1).clamp(0, 1)
        return z * w


@pytest.mark.parametrize("name", ["bert", "bart", "t5", "gpt2", "llama"])
def test_a_sparse_change_is_the_k_largest_entries_and_no_other(name: str) -> None:
    ours, inputs = backbone(name), batch(name)
    with attach(ours, sparse(ours)) as attachment:
        delta = moved(attachment)
        tuned = outputs(ours.model, inputs)
        differs = changed(ours, name)
        stored = attachment.stored()
        now = {p: t.detach().clone() for p, t in ours.model.named_parameters()}
    # each tied tensor once, as named_parameters lists them
    names = [t.name for t in ours.shapes.tensors]
    frozen = dict(stock(name).named_parameters())
    assert delta.numel() == sum(frozen[n].numel() for n in names)
    assert sum(int(differs[n].sum()) for n in names) == K

    threshold = delta.abs().sort(descending=True).values[K - 1]
    expected = torch.where(delta.abs() >= threshold, delta, 0.0)
    assert int((expected != 0).sum()) == K
    pieces = dict(zip(names, expected.split([frozen[n].numel() for n in names]), strict=True))
    model: Any = twin(name)
    for path, parameter in model.named_parameters():
        if path in pieces:
            parameter += pieces[path].view_as(parameter)
            assert torch.equal(parameter, now[path])
    assert (outputs(model, inputs) - tuned).abs().max() <= 1e-12
    assert (tuned - outputs(stock(name), inputs)).abs().max() > 1e-3

    values, indices = stored["0/shared/values"], stored["0/shared/indices"]
    assert set(stored) == {"0/shared/values", "0/shared/indices"}
    assert values.numel() == indices.numel() == K
    assert torch.equal(values, expected[indices])


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_a_stored_sparse_change_counts_k_and_gives_the_same_model(name: str) -> None:
    ours, inputs = backbone(name), batch(name)
    configuration = sparse(ours)
    assert configuration.tuned_parameters(ours.shapes) == K
    plain = outputs(ours.model, inputs)
    with attach(ours, configuration) as attachment:
        moved(attachment)
        tuned = outputs(ours.model, inputs)
        stored = attachment.stored()
    assert torch.equal(outputs(ours.model, inputs), plain)
    with attach(ours, configuration, finished=True) as attachment, torch.no_grad():
        for key, tensor in (attachment.tensors | attachment.indices).items():
            tensor.copy_(stored[key])
        assert sum(p.numel() for p in attachment.tensors.values()) == K
        assert torch.equal(outputs(ours.model, inputs), tuned)
    assert torch.equal(outputs(ours.model, inputs), plain)


def test_a_closed_gate_keeps_an_entry_out_however_large_it_is() -> None:
    ours = backbone("bert")
    with attach(ours, sparse(ours, 1)) as attachment, torch.no_grad():
        w, log_alpha = (attachment.tensors[f"0/sparse/{n}"] for n in ("w", "log_alpha"))
        w[5], w[8] = 100.0, 0.5
        log_alpha[5] = -10.0
        stored = attachment.stored()
    assert stored["0/shared/indices"].tolist() == [8]
    z = min(1.0, 1.2 * float(torch.sigmoid(torch.tensor(5.0))) - 0.1)
    assert abs(float(stored["0/shared/values"]) - z * 0.5) <= 1e-12
