"""Writing and loading the native format. A loaded model's logits equal the searched one's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peftsearch.atomic import write_atomic
from peftsearch.backbone.load import Backbone, load_backbone
from peftsearch.design.configuration import Configuration
from peftsearch.errors import DataError, MissingError, UsageError
from peftsearch.export.card import model_card
from peftsearch.export.package import ADAPTER, CONFIGURATION, Package
from peftsearch.export.place import CARD, clear
from peftsearch.search.workbench import dtype_of, writing_of
from peftsearch.task.encode import encode
from peftsearch.task.encode_texts import encode_texts
from peftsearch.task.text import Split
from peftsearch.training.checkpoint import load_tensors
from peftsearch.training.generation import generate
from peftsearch.training.model import TunedModel
from peftsearch.training.objectives.heads import outputs_of

__all__ = ["LoadedModel", "backbone_of", "load", "write_native"]


def write_native(folder: Path, package: Package, adapter: bytes) -> None:
    """Write an export; configuration.json comes last, so half an export is never one."""
    clear(folder)
    write_atomic(folder / ADAPTER, adapter)
    write_atomic(folder / CARD, model_card(package))
    write_atomic(folder / CONFIGURATION, package.model_dump_json(indent=2) + "\n")


class LoadedModel:
    """An exported configuration on its backbone, ready to predict."""

    def __init__(self, package: Package, model: TunedModel) -> None:
        self.package, self.model = package, model

    @property
    def labels(self) -> tuple[str, ...]:
        return self.package.labels

    def outputs(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """The head's outputs (n, outputs), in the order of `texts` (and of their second texts, for
        pairs): logits, or a number. UsageError for a model that writes texts.
        """
        if self.package.output == "texts":
            raise UsageError("this model writes texts and has no logits: use predict")
        if not texts:
            return torch.empty(0, self.package.outputs)
        split = Split(tuple(texts), tuple(pairs) if pairs else None, np.zeros(len(texts), np.int64))
        encoded = encode(split, self.model.backbone.tokenizer, self.package.max_length)
        self.model.backbone.refuse_unknown_tokens(*encoded.tokens)
        outputs = outputs_of(self.model, encoded)
        if self.package.value_scale is None:
            return outputs
        mean, spread = self.package.value_scale
        return outputs * spread + mean

    logits = outputs

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[str] | list[float]:
        """Of each text the most likely label, its number, or the text that is written from it."""
        if self.package.output == "texts":
            return self._written(texts, pairs)
        outputs = self.outputs(texts, pairs)
        if self.package.output == "values":
            return [float(value) for value in outputs[:, 0]]
        return [self.labels[i] for i in outputs.argmax(-1).tolist()]

    def _written(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
        if pairs:
            raise UsageError("this model writes from one text, not from pairs")
        if not texts:
            return []
        writing = writing_of(self.model.backbone, self.package.spec)
        longest = self.package.max_target or self.package.max_length
        split = Split(tuple(texts), None, ("",) * len(texts))
        encoded = encode_texts(split, writing, self.package.max_length, longest)
        return generate(
            *(self.model.backbone.lm, encoded, writing, self.package.generation, longest),
            positions=self.model.positions,
        )


def backbone_of(package: Package, device: str = "cpu", model: str | None = None) -> Backbone:
    """The backbone that an export was trained on; MissingError if it is another one now."""
    backbone = load_backbone(
        *(model or package.model, device, dtype_of(package.precision)),
        package.output == "texts",
        package.tokenizers,
    )
    if backbone.fingerprint != package.model_fingerprint:
        raise MissingError(
            f"'{model or package.model}' is not the backbone this export was trained on "
            f"(fingerprint {backbone.fingerprint}, not {package.model_fingerprint})"
        )
    return backbone


def load(path: str | Path, device: str = "cpu", model: str | None = None) -> LoadedModel:
    """Load an export made by `peftsearch export --to native`.

    `model` overrides where the backbone comes from (a moved folder); it must be the same weights,
    else MissingError.
    """
    folder = Path(path)
    package = Package.read(folder)
    tensors, _ = load_tensors(folder / ADAPTER)
    backbone = backbone_of(package, device, model)
    configuration = Configuration.from_json(package.configuration)
    if configuration.hash != package.configuration_hash:
        raise DataError(
            f"{folder}: configuration.json was edited: it is not the configuration that these "
            "tensors were trained with"
        )
    tuned = TunedModel(backbone, configuration, package.outputs, finished=True)
    tuned.load(tensors)
    return LoadedModel(package, tuned)
