"""Heads in peft's format, if transformers' classification model has the same head."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from peftsearch.backbone.families import Family
from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.export.package import Package
from peftsearch.export.peft.parts import PREFIX, Adapter

__all__ = ["has_own_head", "with_head"]


def has_own_head(package: Package, configuration: Configuration, family: Family) -> bool:
    """Whether `AutoModelForSequenceClassification` computes the same logits from the body's states:
    a pooler with tanh over the first token, and a linear layer. peft prepends a prompt's tokens to
    those that it pools, and in half precision the head would be too.
    """
    head, prompts = (
        configuration.head,
        any(m.form.name == "prompt" for m in configuration.modifications),
    )
    alike = head.pooling == "first" and head.pooler == "trained"
    whole = package.precision != "bf16"
    return family.classifier is not None and alike and not prompts and whole


def with_head(adapter: Adapter, head: Mapping[str, Tensor], backbone: Backbone) -> Adapter:
    """An adapter of the body as one of the whole classification model, with copies of its head."""
    names, body = backbone.family.classifier, backbone.model.base_model_prefix
    assert names is not None
    tensors = {
        f"{PREFIX}{body}.{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name: tensor
        for name, tensor in adapter.tensors.items()
    }
    for own, path in (("pooler", names.pooler), ("classifier", names.classifier)):
        whole = path.format(body=body)
        for key in ("weight", "bias"):
            tensors[f"{PREFIX}{whole}.{key}"] = head[f"{own}.{key}"]
    return Adapter({**adapter.config, "modules_to_save": list(names.saved)}, tensors)
