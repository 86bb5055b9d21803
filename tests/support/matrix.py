"""Every family × every method: the checks behind a ✓ in docs/families.md.

A check is a function of a family and a point (a method, or an option that no method has) that
raises AssertionError. Tests run all of them, and so does the generator of the page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.errors import ConfigurationError
from support.families import TINY, backbone_of, generating
from support.perturbed import (
    attached,
    backward,
    base,
    base_logits,
    checkpointing_on,
    counted_backward,
    distance,
    fill,
    generated,
    gradient,
    live_and_dead,
    norm,
    outputs,
    untouched,
)
from support.points import POINT_NAMES, point

__all__ = ["CHECKS", "failures", "refusal"]

Check = Callable[[str, str], None]

_EXACT = 1e-10
"""Of fp64 values near one: rounding, and nothing else."""


@cache
def refusal(family: str, method: str) -> str | None:
    """Why a family cannot take a method, in the words a user reads; None if it can."""
    backbone = backbone_of(family)
    try:
        attach(backbone, point(method, backbone.shapes)).detach()
    except ConfigurationError as error:
        return str(error)
    return None


def failures(family: str, check: str) -> list[str]:
    """`method: what is wrong` for every method that the family can take and that fails."""
    found = []
    for method in POINT_NAMES:
        if refusal(family, method) is None:
            try:
                CHECKS[check](family, method)
            except AssertionError as error:
                found.append(f"{method}: {error}")
    return found


# -- the checks --------------------------------------------------------------------------------


def identity(family: str, method: str) -> None:
    """Untrained, it changes the outputs if and only if it does not declare itself an identity."""
    backbone = untouched(family)
    declared = all(m.identity_at_init for m in point(method, backbone.shapes).modifications)
    with attached(backbone, method, noise=0):
        change = distance(outputs(family, backbone), base(family))
    if declared:
        assert change <= _EXACT, f"declared an identity, it changes outputs by {change:.1e}"
    else:
        assert change > 1e-4, f"not declared an identity, it changes outputs by {change:.1e} only"


def gradients(family: str, method: str) -> None:
    """Trained, every tuned tensor gets a gradient, dead entries and frozen tensors get none."""
    backbone = untouched(family)
    frozen = dict(backbone.model.named_parameters())
    with attached(backbone, method) as attachment:
        backward(family, backbone, attachment)
        tuned = attachment.tensors
        norms = {name: norm(gradient(name, p)) for name, p in tuned.items()}
        largest = max(norms.values())
        for name, parameter in tuned.items():
            live, dead = live_and_dead(name, gradient(name, parameter), backbone.shapes)
            assert live is None or norm(live) > 1e-6 * largest, f"{name} gets no gradient"
            assert norm(dead) < 1e-9 * largest, f"{name} is not as dead as it is said to be"
        trained = {id(p) for p in tuned.values()}
        leaves = {n: p for n, p in backbone.model.named_parameters() if p.is_leaf}
        unfrozen = [n for n, p in leaves.items() if p.requires_grad and id(p) not in trained]
    unfrozen += [n for n, p in frozen.items() if p.requires_grad or p.grad is not None]
    assert not unfrozen, f"{unfrozen[0]} of the backbone is trained too"


def effect(family: str, method: str) -> None:
    """Trained, it changes the states of the tokens."""
    backbone = untouched(family)
    with attached(backbone, method):
        changed = (outputs(family, backbone) - base(family)).norm(dim=-1)
    assert changed.isfinite().all(), "outputs are not finite"
    touched = (changed > 1e-6).double().mean().item()
    # Where attention is local, a prompt before the padding is out of the shortest text's reach.
    assert touched > 0.8, f"inert at {1 - touched:.0%} of the tokens"


def counts(family: str, method: str) -> None:
    """The stored tensors have as many entries as were counted from shapes."""
    backbone = untouched(family)
    counted = point(method, backbone.shapes).within(backbone.shapes).tuned_parameters
    with attached(backbone, method) as attachment:
        stored = sum(t.numel() for t in attachment.stored().values() if t.is_floating_point())
    assert stored == counted(backbone.shapes), (
        f"{stored} stored, {counted(backbone.shapes)} counted"
    )


def save_and_load(family: str, method: str) -> None:
    """The stored tensors, read back and attached as finished, give the same outputs."""
    backbone = untouched(family)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "adapter.safetensors"
        with attached(backbone, method) as attachment:
            before = outputs(family, backbone)
            save_file(attachment.stored(), path)
        stored = load_file(path)
    with attach(backbone, point(method, backbone.shapes), seed=9, finished=True) as attachment:
        places: dict[str, Tensor] = {**attachment.tensors, **attachment.indices}
        assert places.keys() == stored.keys(), f"other tensors: {places.keys() ^ stored.keys()}"
        fill(places, stored)
        change = distance(outputs(family, backbone), before)
    assert change <= 1e-12, f"outputs differ by {change:.1e} after loading"


def detaching(family: str, method: str) -> None:
    """After training and detaching, outputs are bit-identical to before, and so are weights."""
    backbone = untouched(family)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    with attached(backbone, method) as attachment:
        backward(family, backbone, attachment)
    after = dict(backbone.model.named_parameters())
    assert before.keys() == after.keys(), "parameters of the backbone are missing"
    written = [name for name, p in after.items() if not torch.equal(p, before[name])]
    assert not written, f"{written[0]} of the backbone was written"
    assert torch.equal(outputs(family, backbone), base(family)), "a trace is left in the outputs"


def generation(family: str, method: str) -> None:
    """Trained, greedy and beam search find the same sequences and scores with and without a cache,
    other than those of the language model alone (decoders and encoder-decoders).
    """
    if TINY[family].kind == "encoder":
        return
    backbone, base = generating(family), base_logits(family)
    with attached(backbone, method):
        for beams in (1, 2):
            cached, plain = (generated(family, beams, cache) for cache in (True, False))
            what = "beam search" if beams > 1 else "greedy search"
            assert torch.equal(cached[0], plain[0]), f"{what} finds other tokens with a cache"
            change = distance(cached[1], plain[1])
            assert change < 1e-9, f"{what} scores otherwise with a cache, by {change:.1e}"
            if beams == 1:
                assert not torch.allclose(plain[1], base, atol=1e-6), "inert"


def checkpointing(family: str, method: str) -> None:
    """Trained under gradient checkpointing, it gets the same gradients."""
    backbone = untouched(family)
    with attached(backbone, method) as attachment:
        plain, forwards = counted_backward(family, backbone, attachment)
        with checkpointing_on(backbone.model):
            again, with_recomputed = counted_backward(family, backbone, attachment)
    assert with_recomputed > forwards, "nothing was recomputed: the check checks nothing"
    for name, expected in plain.items():
        change = distance(again[name], expected) / max(1.0, expected.abs().max().item())
        assert change <= _EXACT, f"{name} gets another gradient, by {change:.1e}"


def bf16(family: str, method: str) -> None:
    """On a backbone in bf16 tuned tensors and their gradients are finite fp32, outputs are near
    those in fp64, and far from those of the backbone alone.
    """
    exact, half = untouched(family), backbone_of(family, torch.bfloat16)
    with attached(exact, method, noise=0.1) as attachment:
        values = {name: p.detach().clone() for name, p in attachment.tensors.items()}
        expected = outputs(family, exact)
    with attach(half, point(method, half.shapes)) as attachment:
        kinds = {p.dtype for p in attachment.tensors.values()}
        assert kinds == {torch.float32}, f"tuned tensors are {kinds}"
        fill(attachment.tensors, values)
        found = outputs(family, half).double()
        backward(family, half, attachment)
        for name, parameter in attachment.tensors.items():
            assert gradient(name, parameter).isfinite().all(), f"{name}: gradient not finite"
    error, change = (norm(found - other) for other in (expected, base(family)))
    assert error < 0.1 * norm(expected), f"{error / norm(expected):.0%} off the outputs in fp64"
    assert error < change, "rounding is as large as the change"


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        identity,
        gradients,
        effect,
        counts,
        save_and_load,
        detaching,
        generation,
        checkpointing,
        bf16,
    )
}
