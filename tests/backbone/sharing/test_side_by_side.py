"""Members computed side by side: each gets what it would get alone, whatever the others are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from transformers.pytorch_utils import Conv1D

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.attach.attachment import Attachment
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.sharing.added_bias import AddedBias, can_add
from peftsearch.backbone.sharing.plan import Plan, of_like_width
from peftsearch.backbone.sharing.shares import Owner
from peftsearch.backbone.sharing.slices import Slices
from peftsearch.design.composition import (
    Add,
    Composition,
    Gated,
    RankStabilised,
    Scaled,
    SigmoidGate,
    TanhGate,
)
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import (
    Bottleneck,
    Constant,
    Form,
    Gelu,
    Linear,
    Prefix,
    Relu,
    Rescale,
    Silu,
    Swiglu,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError
from support.families import backbone_of, inputs, states
from support.perturbed import distance, norm

COMPOSITIONS: list[Composition] = [
    *(Add(), Scaled(0.5), Scaled(3.0), Scaled("learned"), RankStabilised(4.0)),
    *(SigmoidGate(), TanhGate()),
]
BOTTLENECKS: list[type[Bottleneck]] = [Linear, Linear, Relu, Gelu, Silu, Swiglu]
BOTTLENECK_PLACES = (
    *("attn.query+value", "attn.query", "attn.out", "attn.heads", "ffn.hidden", "ffn.out"),
    *("residual.ffn", "residual.attn"),
)
OTHERS: list[tuple[Form, str, Insertion, Composition, int | None]] = [
    (Constant(), "biases", Parallel(), Add(), None),
    (Constant(), "norm", Parallel(), Add(), None),
    (Constant(), "attn.out", Parallel(), Add(), None),
    (Rescale(), "attn.key+value", Sequential(), Add(), None),
    (Rescale(), "ffn.activated", Sequential(), Add(), None),
    (Prefix(), "attn.heads", Parallel(), Gated(), 2),
    (Prefix(), "attn.heads", Parallel(), Gated(), 3),
    (Prefix(), "attn.heads", Parallel(), SigmoidGate(), 2),
]


def drawn(numbers: random.Random, backbone: Backbone) -> Configuration:
    """One or two modifications that the backbone can take."""
    while True:
        try:
            several = tuple(one_drawn(numbers) for _ in range(numbers.choice((1, 1, 2))))
            with attach(backbone, Configuration(several)):
                return Configuration(several)
        except ConfigurationError:
            continue  # choices that do not go together, or a place that the family lacks


def one_drawn(numbers: random.Random) -> Modification:
    if numbers.random() < 0.25:
        form, place, insertion, composition, width = numbers.choice(OTHERS)
        return Modification(form, Place.parse(place), insertion, composition, width)
    kind = numbers.choice(BOTTLENECKS)
    composition = numbers.choice(COMPOSITIONS)
    init = "pissa" if kind is Linear and numbers.random() < 0.2 else "lora"
    if isinstance(composition, TanhGate):  # closed at first, and so never opened from Δh = 0
        init = "bert"
    return Modification(
        kind(init=init, bias=numbers.random() < 0.3),
        Place.parse(numbers.choice(BOTTLENECK_PLACES)),
        numbers.choice((Parallel(), Parallel("projection_input"), Sequential())),
        composition,
        numbers.randint(1, 6),
    )


def moved(attachment: Attachment, seed: int) -> None:
    """Every tuned tensor off its beginning, as training would move it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in attachment.tensors.values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.2 * noise)


def loss_of(output: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return (output * weights).sum()


def gradients(loss: Tensor, attachment: Attachment) -> list[Tensor]:
    tuned = list(attachment.tensors.values())
    found = torch.autograd.grad(loss, tuned, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(tuned, found, strict=True)]


def alone(family: str, one: Configuration, seed: int) -> tuple[Tensor, list[Tensor]]:
    """States (tokens, d) and gradients."""
    with attach(backbone_of(family), one) as attachment:
        moved(attachment, seed)
        output = states(family, backbone_of(family), inputs(family))
        return output.detach(), gradients(loss_of(output), attachment)


@pytest.mark.parametrize(
    ("family", "seed"),
    [
        *[("bert", 0), ("bert", 1)],
        *(
            pytest.param(family, seed, marks=pytest.mark.slow)
            for seed, family in enumerate(("bert", "bert", "gpt2", "llama", "bart", "opt"), 2)
        ),
    ],
)
def test_random_members_get_what_they_would_get_alone(family: str, seed: int) -> None:
    """Modifications of any form, place, width, scale and composition, some of one kind."""
    numbers, backbone = random.Random(seed), backbone_of(family)
    members = [drawn(numbers, backbone) for _ in range(10)]
    expected = [alone(family, one, index) for index, one in enumerate(members)]
    slices = Slices()
    owners = [slices.member() for _ in members]
    batch = {key: torch.cat([value] * len(members)) for key, value in inputs(family).items()}
    with ExitStack() as held:
        attachments = []
        for index, (owner, one) in enumerate(zip(owners, members, strict=True)):
            attachments.append(held.enter_context(attach(replace(backbone, hooks=owner), one)))
            moved(attachments[-1], index)
        held.enter_context(slices.sharing([(owner, 3) for owner in owners]))
        parts = states(family, backbone, batch).chunk(len(members))
        found = [gradients(loss_of(own), one) for own, one in zip(parts, attachments, strict=True)]
    for one, own, got, (output, wanted) in zip(members, parts, found, expected, strict=True):
        assert distance(own.detach(), output) < 1e-10, one.describe()
        off = max(distance(g, w) for g, w in zip(got, wanted, strict=True))
        assert off < 1e-7 * max(1, *(norm(w) for w in wanted)), one.describe()


# -- costs ---------------------------------------------------------------------------------------

MIXED = ("lora", "mam", "houlsby", "bitfit", "prefix", "scaled-parallel-adapter", "ia3", "lora-all")


def nodes(methods: Sequence[str]) -> Counter[str]:
    """Nodes of the autograd graph of one shared forward, by name; of members' tensors none."""
    backbone, slices = backbone_of("bert"), Slices()
    owners = [slices.member() for _ in methods]
    batch = {key: torch.cat([value] * len(methods)) for key, value in inputs("bert").items()}
    with ExitStack() as held:
        for owner, name in zip(owners, methods, strict=True):
            one = METHODS[name].configuration()
            held.enter_context(attach(replace(backbone, hooks=owner), one))
        held.enter_context(slices.sharing([(owner, 3) for owner in owners]))
        waiting = [states("bert", backbone, batch).grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        assert node is not None
        more = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= more
        waiting += more
    return Counter(type(node).__name__ for node in seen if not hasattr(node, "variable"))


def test_rows_are_split_once_a_tensor_and_never_sliced() -> None:
    """The backward of a slice writes zeros for all other members' rows."""
    found = nodes(MIXED)
    assert found["SliceBackward0"] == 0
    # Inputs and outputs of six linear layers and two norms, a captured input, and queries, keys and
    # values; and the model's output.
    assert 0 < found["SplitWithSizesBackward0"] <= 20 * backbone_of("bert").shapes.layers + 1


def test_members_of_kinds_that_are_there_already_add_no_operations() -> None:
    """Twice of each method, and four times of each."""
    twice, four_times = ([name for name in MIXED for _ in range(count)] for count in (2, 4))
    assert nodes(twice) == nodes(four_times)


# -- widths --------------------------------------------------------------------------------------


def test_widths_are_padded_to_at_most_twice_unless_they_are_narrow() -> None:
    widths = [64, 1, 33, 31, 16, 8, 100]
    keys = of_like_width(["relu"] * len(widths), widths)
    classes = {frozenset(w for w, k in zip(widths, keys, strict=True) if k == key) for key in keys}
    assert classes == {frozenset({100, 64}), frozenset({33, 31}), frozenset({16, 8, 1})}
    assert of_like_width([None, "a", "b"], [0, 4, 4])[0] is None
    assert len(set(of_like_width(["a", "b"], [4, 4]))) == 2


def test_a_plan_joins_neighbours_and_gathers_others() -> None:
    owners = [Owner() for _ in range(6)]
    spans = [(owner, slice(2 * i, 2 * i + 2)) for i, owner in enumerate(owners)]
    plan = Plan.of(spans, ["a", "a", None, None, "b", "a"])
    assert plan.sizes == [4, 4, 2, 2]
    assert [(group.owners, group.parts) for group in plan.groups] == [
        ([owners[0], owners[1], owners[5]], [0, 3]),
        ([owners[4]], [2]),
    ]
    rows = torch.arange(12.0)[:, None]
    parts = list(rows.split(plan.sizes))
    first = plan.groups[0]
    first.put(parts, first.gathered(parts) + 100)
    assert torch.cat(parts).flatten().tolist() == [100, 101, 102, 103, *range(4, 10), 110, 111]


# -- replaced biases -----------------------------------------------------------------------------


@pytest.mark.parametrize("module", [nn.Linear(4, 5), Conv1D(5, 4), nn.LayerNorm(4)])
def test_an_added_bias_is_a_replaced_one(module: nn.Module) -> None:
    module = module.double()
    x = torch.randn(6, 3, 4, dtype=torch.float64)
    frozen = module.bias
    assert isinstance(frozen, Tensor)
    owns = [torch.randn_like(frozen) for _ in range(2)]
    hooks = [AddedBias(frozen, {"bias": own}) for own in owns]
    beside = AddedBias.together(hooks, None, module(x))
    by_itself = hooks[0](module, (x[:3],), module(x[:3]))
    expected = []
    for own in owns:
        module._parameters["bias"] = nn.Parameter(own)
        expected.append(module(x[3 * len(expected) :][:3]))
    assert torch.allclose(beside, torch.cat(expected), atol=1e-12)
    assert torch.allclose(by_itself, expected[0], atol=1e-12)


def test_what_is_no_addition_is_computed_with_the_members_own_tensors() -> None:
    assert can_add(nn.Linear(2, 2), ["bias"])
    assert not can_add(nn.Linear(2, 2), ["weight"])
    assert not can_add(nn.LayerNorm(2), ["weight", "bias"])
    assert not can_add(nn.Linear(2, 2, bias=False), ["bias"])
    assert not can_add(nn.Linear(2, 2).bfloat16(), ["bias"]), "it would round once more"
    assert not can_add(nn.Bilinear(2, 2, 2), ["bias"])


def test_forms_that_differ_in_a_field_of_an_extension_are_not_one_function() -> None:
    @dataclass(frozen=True)
    class Leaky(Relu):
        slope: float = 0.1

        def nonlinearity(self, hidden: Tensor) -> Tensor:
            return leaky_relu(hidden, self.slope)

    assert Leaky(slope=0.1).function != Leaky(slope=0.2).function
    assert Leaky("bert").function == Leaky("lora").function, "initial values are no part of it"
    assert Linear("pissa").function != Linear("lora").function
