"""Diff-pruning: what is trained, what is kept, and that the body itself is never written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Sparse
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from support.backbones import backbone_at, states

pytestmark = pytest.mark.internals

K = 50


@pytest.fixture(scope="module")
def backbone(tiny_bert: Path) -> Backbone:
    return backbone_at(tiny_bert)


def pruned(k: int = K) -> Configuration:
    return Configuration((Modification(Sparse(), Place.parse("weights"), width=k),))


def shaken(tensors: dict[str, torch.nn.Parameter]) -> Tensor:
    """Random changes, all gates open: δ is then w itself."""
    generator = torch.Generator().manual_seed(0)
    w = tensors["0/sparse/w"]
    with torch.no_grad():
        w.normal_(generator=generator)
        tensors["0/sparse/log_alpha"].fill_(50.0)
    return w.detach()


def test_the_k_largest_changes_are_kept_and_counted(backbone: Backbone) -> None:
    frozen = torch.cat([p.flatten() for p in backbone.model.parameters()])
    assert pruned().tuned_parameters(backbone.shapes) == K
    with torch.no_grad(), attach(backbone, pruned()) as attachment:
        w = shaken(attachment.tensors)
        states(backbone)
        inside = torch.cat([p.flatten() for p in backbone.model.parameters()])
        stored = attachment.stored()
    changed = (inside != frozen).nonzero().flatten()
    assert len(changed) == K
    assert set(changed.tolist()) == set(w.abs().topk(K).indices.tolist())
    assert torch.equal(stored["0/shared/indices"], changed)
    assert torch.allclose(inside[changed] - frozen[changed], stored["0/shared/values"])


def test_of_some_layers_only_their_tensors_are_changed(backbone: Backbone) -> None:
    upper = Configuration((pruned().modifications[0].on((1,)),))
    own = sum(p.numel() for n, p in backbone.model.named_parameters() if ".layer.1." in n)
    frozen = {name: p.clone() for name, p in backbone.model.named_parameters()}
    with torch.no_grad(), attach(backbone, upper) as attachment:
        assert len(shaken(attachment.tensors)) == own
        states(backbone)
        changed = {
            name for module, name in frozen_names(backbone) if (module != frozen[name]).any()
        }
        stored = {name: t.clone() for name, t in attachment.stored().items()}
        expected = states(backbone)
    assert changed
    assert all(".layer.1." in name for name in changed)
    with torch.no_grad(), attach(backbone, upper, finished=True) as attachment:
        attachment.tensors["0/shared/values"].copy_(stored["0/shared/values"])
        attachment.indices["0/shared/indices"].copy_(stored["0/shared/indices"])
        assert torch.equal(states(backbone), expected)


def frozen_names(backbone: Backbone) -> list[tuple[Tensor, str]]:
    """What stands in the place of each tensor of the body, with its name."""
    return [
        (tensor, f"{path}.{key}" if path else key)
        for path, module in backbone.model.named_modules()
        for key, tensor in module._parameters.items()
        if tensor is not None
    ]


def test_noise_is_a_function_of_seed_and_step(backbone: Backbone) -> None:
    def outputs(seed: int, step: int) -> Tensor:
        with attach(backbone, pruned(), seed) as attachment:
            with torch.no_grad():
                attachment.tensors["0/sparse/w"].fill_(0.1)
                attachment.tensors["0/sparse/log_alpha"].zero_()
            attachment.begin_step(step)
            return states(backbone).detach()

    assert torch.equal(outputs(0, 3), outputs(0, 3))
    assert not torch.equal(outputs(0, 3), outputs(0, 4))
    assert not torch.equal(outputs(0, 3), outputs(1, 3))


def test_the_penalty_is_the_expected_number_of_open_gates(backbone: Backbone) -> None:
    """Against the share of open gates among many draws."""
    with attach(backbone, pruned()) as attachment:
        log_alpha = attachment.tensors["0/sparse/log_alpha"]
        with torch.no_grad():
            log_alpha.fill_(-0.5)
            attachment.tensors["0/sparse/w"].fill_(1.0)
        (sparse,) = attachment.sparse
        open_share = (sparse.sampled() > 0).double().mean()
        penalty = attachment.penalty()
        assert penalty is not None
        assert float(penalty.detach()) == pytest.approx(
            1.25e-7 * float(open_share) * len(log_alpha), rel=0.02
        )


def test_a_penalty_closes_gates_in_training(backbone: Backbone) -> None:
    with attach(backbone, pruned()) as attachment:
        penalty = attachment.penalty()
        assert penalty is not None
        penalty.backward()  # type: ignore[no-untyped-call]
        gradient = attachment.tensors["0/sparse/log_alpha"].grad
        assert gradient is not None
        assert (gradient > 0).all()


def test_nothing_is_recomputed_without_gradients_until_something_changes(
    backbone: Backbone,
) -> None:
    with torch.no_grad(), attach(backbone, pruned()) as attachment:
        shaken(attachment.tensors)
        states(backbone)
        standing = next(backbone.model.parameters())
        states(backbone)
        assert next(backbone.model.parameters()) is standing
        attachment.tensors["0/sparse/w"].mul_(2)
        states(backbone)
        assert next(backbone.model.parameters()) is not standing
