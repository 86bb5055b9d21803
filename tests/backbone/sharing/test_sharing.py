"""One backbone for many configurations: none leaves anything behind, however it ends."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.composition import Gated, Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Prefix, Relu
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError
from support.backbones import backbone_at, perturb, states

NAMES = ["mam", "bitfit", "full", "pfeiffer", "lora-ffn"]
EVERY_MECHANISM = Configuration(
    (
        Modification(Prefix(), Place.parse("attn.heads"), composition=Gated(), width=2),
        Modification(Relu(init="bert"), Place.parse("ffn.out"), composition=Scaled(), width=2),
        Modification(Constant(), Place.parse("biases")),
    )
)


def facts(backbone: Backbone) -> dict[str, object]:
    """Everything that attaching touches."""
    return {
        "hooks": sum(
            len(m._forward_hooks) + len(m._forward_pre_hooks) for m in backbone.model.modules()
        ),
        "prefixes": sum(m in attention._ATTACHED for m in backbone.model.modules()),
        "tensors": [(n, id(p), p.requires_grad) for n, p in backbone.model.named_parameters()],
        "training": [m for m in backbone.model.modules() if m.training],
    }


def trained_states(backbone: Backbone, name: str) -> tuple[Tensor, list[Tensor]]:
    """Outputs after three AdamW steps, and the tuned tensors."""
    with attach(backbone, METHODS[name].configuration(), seed=3) as attachment:
        perturb(attachment.tensors)
        optimiser = torch.optim.AdamW(attachment.tensors.values(), lr=1e-2)
        for _ in range(3):
            states(backbone).pow(2).mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            return states(backbone), [p.detach().clone() for p in attachment.tensors.values()]


@pytest.mark.slow
def test_what_was_attached_before_does_not_matter(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    alone = {name: trained_states(backbone, name) for name in NAMES}
    for first, second in permutations(NAMES, 2):
        trained_states(backbone, first)
        output, tensors = trained_states(backbone, second)
        assert torch.equal(output, alone[second][0])
        assert all(torch.equal(a, b) for a, b in zip(tensors, alone[second][1], strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_optimiser_steps_leave_the_backbones_own_tensors_bit_identical(
    name: str, tiny_roberta: Path
) -> None:
    backbone = backbone_at(tiny_roberta)
    if not METHODS[name].modifications:
        return
    before = {n: p.detach().clone() for n, p in backbone.model.named_parameters()}
    known = facts(backbone)
    _, tensors = trained_states(backbone, name)
    assert tensors
    assert all(torch.equal(before[n], p) for n, p in backbone.model.named_parameters())
    assert facts(backbone) == known


def test_an_attachment_that_fails_half_way_leaves_no_trace(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_at(tiny_bert)
    known = facts(backbone)
    register = torch.nn.Module.register_forward_hook
    failed = 0
    for limit in range(2):  # both layers' ffn.out
        calls = iter(range(100))

        def fail(self: torch.nn.Module, *a: object, n: int = limit, c: object = calls) -> object:
            if next(c) == n:  # type: ignore[call-overload]
                raise MemoryError
            return register(self, *a)  # type: ignore[arg-type]

        monkeypatch.setattr(torch.nn.Module, "register_forward_hook", fail)
        with pytest.raises(MemoryError):
            attach(backbone, EVERY_MECHANISM)
        failed += 1
        assert facts(backbone) == known
    assert failed == 2


def test_widths_for_too_many_layers_leave_no_trace(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    known = facts(backbone)
    wide = Modification(Relu(), Place.parse("ffn.out"), width=(2, 3, 4))
    prefix = Modification(Prefix(), Place.parse("attn.heads"), composition=Gated(), width=2)
    with pytest.raises(ConfigurationError, match="3 widths for 2 layers"):
        attach(backbone, Configuration((prefix, wide)))
    assert facts(backbone) == known


def test_an_error_inside_the_context_detaches(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    known = facts(backbone)

    def interrupted() -> None:
        with attach(backbone, EVERY_MECHANISM):
            assert facts(backbone) != known
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert facts(backbone) == known


def test_detaching_twice_is_harmless(tiny_bert: Path) -> None:
    backbone = backbone_at(tiny_bert)
    known = facts(backbone)
    attachment = attach(backbone, EVERY_MECHANISM)
    attachment.detach()
    attachment.detach()
    assert facts(backbone) == known


def test_two_modifications_of_one_sublayer_read_the_same_input(tiny_bert: Path) -> None:
    """A second modification at a place sees h with the first in it, but the same x."""
    backbone = backbone_at(tiny_bert)
    relu = Modification(Relu(), Place(("ffn.out",), (1,)), width=3)
    constant = Modification(Constant(), Place(("ffn.out",), (1,)))
    seen: dict[str, Tensor] = {}
    hook = (
        backbone.layer(1)
        .get_submodule("output.LayerNorm")
        .register_forward_pre_hook(lambda m, a: seen.__setitem__("t", a[0]))
    )
    outputs = []
    for modifications in ((), (relu,), (constant,), (relu, constant)):
        with torch.no_grad(), attach(backbone, Configuration(modifications)) as attachment:
            for name, parameter in attachment.tensors.items():
                perturb({name: parameter}, seed=len(name.rsplit("/", 1)[1]))
            states(backbone)
        outputs.append(seen["t"])
    hook.remove()
    plain, with_relu, with_constant, with_both = outputs
    assert (with_relu - plain).abs().max() > 1e-3
    assert (with_both - (with_relu + with_constant - plain)).abs().max() < 1e-12
