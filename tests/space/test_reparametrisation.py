"""No two structures are one set of functions under two names (rules 3 to 6 of the design space).

For each pair: can one, with tensors of its choice, reproduce the other at a random point? The fit
is Levenberg and Marquardt's, in fp64, on the last layer of a tiny BERT. Only pairs whose sets of
functions have one dimension (the rank of the Jacobian) can be the same. Scales and beginnings are
left out: they change how a configuration trains, not what it can be.

The test has found one rule that nobody had written: after the ffn's first layer, sequential is
parallel (the layer absorbs the down-projection, and what a norm leaves absorbs its bias).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TypeVar

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone, wrap
from peftsearch.design.composition import Add, Composition, Gated, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Form, Gelu, Linear, Prefix, PrefixRelu, Relu, Rescale
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.validity import minimum_width, why_invalid

INSERTIONS: tuple[Insertion, ...] = (Parallel(), Parallel("projection_input"), Sequential())
FORMS: tuple[Form, ...] = (Linear(), Relu(), Gelu(), Prefix(), PrefixRelu(), Constant(), Rescale())
PLACES = (
    *("attn.query", "attn.key", "attn.value", "attn.query+value", "attn.heads", "attn.out"),
    *("ffn.hidden", "ffn.activated", "ffn.out", "residual.attn", "residual.ffn"),
)
T = TypeVar("T")
SAME = 1e-7
"""Relative residual below which one has reproduced the other."""


@lru_cache
def backbone() -> Backbone:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=32,
        hidden_size=6,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    model = BertModel(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return wrap(model)


@lru_cache
def beneath() -> Tensor:
    """What the last layer reads of fixed texts: nothing below it is modified."""
    ids = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: Tensor = backbone().model(ids, output_hidden_states=True).hidden_states[1]
        return found.clone()


def structures() -> list[Modification]:
    """Every valid one in the last layer, at its least width."""
    found = []
    for form in FORMS:
        for place in PLACES:
            for insertion in INSERTIONS:
                for composition in (Add(), Gated()):
                    at = Place.parse(place, (1,))
                    if why_invalid(form, at, insertion, composition) is None:
                        width = minimum_width(form, composition) if form.width_symbol else None
                        found.append(Modification(form, at, insertion, composition, width))
    return found


@dataclass
class Functions:
    """The functions that one modification can be: parameters → outputs on fixed inputs."""

    modification: Modification

    def on(self, act: Callable[[Outputs, Tensor], T]) -> T:
        """`act(outputs, beginning)` with the modification attached."""
        with torch.no_grad(), attach(backbone(), Configuration((self.modification,))) as attached:
            parameters = list(attached.tensors.values())
            return act(Outputs(parameters), torch.nn.utils.parameters_to_vector(parameters))


@dataclass
class Outputs:
    """The last layer's output for fixed texts, [texts · tokens · d], as parameters make it."""

    parameters: list[Tensor]

    def __call__(self, vector: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(vector, self.parameters)
        output: Tensor = backbone().model.encoder.layer[1](beneath())
        return output.flatten()

    def jacobian(self, at: Tensor) -> Tensor:
        """[outputs, parameters], by one backward pass for all outputs."""
        with torch.enable_grad():
            outputs = self(at)
            each = torch.autograd.grad(
                outputs,
                self.parameters,
                torch.eye(len(outputs), dtype=at.dtype),
                is_grads_batched=True,
                allow_unused=True,
                materialize_grads=True,
            )
        return torch.cat([gradient.flatten(1) for gradient in each], 1)


def point(length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, generator=generator, dtype=torch.float64)


def generic(modification: Modification) -> tuple[int, Tensor]:
    """The dimension of its set of functions, and its outputs at a random point."""
    facts: list[int] = []

    def act(outputs: Outputs, beginning: Tensor) -> Tensor:
        at = point(len(beginning), 5)
        values = torch.linalg.svdvals(outputs.jacobian(at))
        facts.append(int((values > 1e-6 * values[0]).sum()))
        return outputs(at)

    target = Functions(modification).on(act)
    return facts[0], target


def residual(modification: Modification, target: Tensor, seed: int) -> Tensor:
    """The least relative distance to `target` that a fit from a random start reaches."""

    def act(outputs: Outputs, beginning: Tensor) -> Tensor:
        at, damping = point(len(beginning), seed), 1e-2
        error = outputs(at) - target
        stuck = 0
        for _ in range(40):
            j = outputs.jacobian(at)
            normal = j.T @ j
            if not normal.any():  # a rectifier that no input opens
                break
            while damping < 1e8:
                scale = damping * (normal.diagonal().mean() + 1e-9)
                eye = scale * torch.eye(len(at), dtype=at.dtype)
                move = torch.linalg.solve(normal + eye, j.T @ error)
                trial = outputs(at - move) - target
                if trial.norm() < error.norm():
                    break
                damping *= 4
            else:
                break
            stuck = stuck + 1 if trial.norm() > 0.97 * error.norm() else 0
            at, error, damping = at - move, trial, damping / 3
            if stuck == 4 or error.norm() < 0.1 * SAME * target.norm():
                break
        return error.norm() / target.norm()

    return Functions(modification).on(act)


def reproduces(modification: Modification, target: Tensor, starts: int = 3) -> bool:
    return any(float(residual(modification, target, seed)) < SAME for seed in range(starts))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "place", "composition"),
    [(Linear(), "attn.query", Scaled(4)), (Relu(), "ffn.out", Scaled(4))],
)
def test_the_fit_finds_a_reparametrisation_where_there_is_one(
    form: Form, place: str, composition: Composition
) -> None:
    """A fixed scale is absorbed by the up-projection: both ways."""
    plain = Modification(form, Place.parse(place, (1,)), width=1)
    scaled = Modification(form, Place.parse(place, (1,)), composition=composition, width=1)
    dimension, target = generic(plain)
    other_dimension, other = generic(scaled)
    assert dimension == other_dimension
    assert reproduces(scaled, target, starts=8)
    assert reproduces(plain, other, starts=8)


@pytest.mark.slow
@pytest.mark.begins_first
def test_no_two_structures_are_one_set_of_functions() -> None:
    found = structures()
    assert len(found) >= 40
    facts = {m: generic(m) for m in found}
    alike = [(a, b) for a, b in combinations(found, 2) if facts[a][0] == facts[b][0]]
    assert len(alike) >= 40
    same = [
        (first.describe(), second.describe())
        for first, second in alike
        if reproduces(first, facts[second][1]) and reproduces(second, facts[first][1])
    ]
    assert same == []
