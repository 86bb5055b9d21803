"""Writing and loading the native format; a loaded model reproduces the trial's logits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone, load_backbone
from peftsearch.backbone.loading.source import absolute_source
from peftsearch.backbone.precision import dtype_of
from peftsearch.design.configuration import Configuration
from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import DataError, MissingError, UsageError
from peftsearch.export.card import model_card
from peftsearch.export.out_folder import CARD, clear, refuse_taken
from peftsearch.export.package import ADAPTER, CONFIGURATION, Package
from peftsearch.task.split import Split
from peftsearch.task.tokens.encode import encode
from peftsearch.task.tokens.encode_texts import encode_texts
from peftsearch.training.model import TunedModel
from peftsearch.training.module import TunedModule
from peftsearch.training.objectives.generation import generate
from peftsearch.training.objectives.head_objective import outputs_of
from peftsearch.training.tensor_file import as_bytes, load_tensors
from peftsearch.training.writing import writing_of
from peftsearch.wording import counted

__all__ = ["LoadedModel", "backbone_of", "load", "write_native"]


def write_native(folder: Path, package: Package, adapter: bytes) -> None:
    """Write an export, configuration.json last, so an incomplete export cannot be loaded."""
    clear(folder)
    write_atomic(folder / ADAPTER, adapter)
    write_atomic(folder / CARD, model_card(package))
    write_atomic(folder / CONFIGURATION, package.model_dump_json(indent=2) + "\n")


class LoadedModel(TunedModule):
    """An exported configuration on its backbone, ready to predict; an `nn.Module` whose parameters
    are the tuned ones, which a `transformers.Trainer` trains further.
    """

    def __init__(self, package: Package, tuned: TunedModel) -> None:
        super().__init__(tuned, package.value_scale, package.output == "label sets")
        self.package = package

    @property
    def model(self) -> LoadedModel:
        """The loaded model itself, for code that trains `loaded.model`."""
        return self

    @property
    def tokenizer(self) -> Any:
        return self.backbone.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        return self.package.labels

    def save(self, folder: str | Path) -> None:
        """Write the model, as it is now, as an export; for example after further training."""
        refuse_taken(Path(folder))
        changes = {
            "validation_metric": None,
            "origin": f"{self.package.origin}, changed since",
            "model": absolute_source(self.backbone.name),
        }
        tensors = as_bytes(self.tuned.stored(), {})
        write_native(Path(folder), self.package.model_copy(update=changes), tensors)

    def outputs(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> Tensor:
        """The head's outputs (n, outputs), in the order of `texts` (and of their second texts, for
        pairs): logits, or a number; (outputs,) of one text. UsageError for a model that generates.
        """
        if self.package.output == "texts":
            raise UsageError("this model generates text and has no logits: use predict")
        texts, pairs, is_one = _listed(texts, pairs)
        if not texts:
            return torch.empty(0, self.package.outputs)
        split = Split(tuple(texts), tuple(pairs) if pairs else None, np.zeros(len(texts), np.int64))
        encoded = encode(split, self.tokenizer, self.package.max_length, self.backbone.type_rows)
        self.backbone.refuse_unknown_tokens(*encoded.tokens)
        outputs = self._in_own_units(outputs_of(self.tuned, encoded))
        return outputs[0] if is_one else outputs

    logits = outputs

    @overload
    def predict(  # type: ignore[overload-overlap]  # a string is a sequence of strings, too
        self, texts: str, pairs: str | None = None
    ) -> str | list[str] | float: ...

    @overload
    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[str] | list[list[str]] | list[float]: ...

    def predict(
        self, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
    ) -> str | float | list[str] | list[list[str]] | list[float]:
        """A list with an answer for each text: its most likely label, the list of its labels, its
        number, or the text written from it. One text (with one second text, for pairs) gets one
        answer instead of a list.
        """
        texts, pairs, is_one = _listed(texts, pairs)
        predicted = self._predicted(texts, pairs)
        return predicted[0] if is_one else predicted

    def _predicted(
        self, texts: list[str], pairs: list[str] | None
    ) -> list[str] | list[list[str]] | list[float]:
        if self.package.output == "texts":
            return self._generated(texts, pairs)
        outputs = self.outputs(texts, pairs)
        if self.package.output == "values":
            return [float(value) for value in outputs[:, 0]]
        return self._labels_in(outputs)

    def scores(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> tuple[list[str] | list[list[str]], list[dict[str, float]]]:
        """Answers of `predict`, and the probability of every label for each text. UsageError for a
        model that predicts numbers or generates.
        """
        if self.package.output == "values":
            raise UsageError("this model predicts numbers and has no probabilities: use predict")
        outputs = self.outputs(texts, pairs)
        is_sets = self.package.output == "label sets"
        shares = (outputs.sigmoid() if is_sets else outputs.softmax(-1)).tolist()
        probabilities = [dict(zip(self.labels, own, strict=True)) for own in shares]
        return self._labels_in(outputs), probabilities

    def _labels_in(self, outputs: Tensor) -> list[str] | list[list[str]]:
        if self.package.output == "label sets":
            rows = (outputs > 0).tolist()
            return [list(compress(self.labels, row)) for row in rows]
        return [self.labels[i] for i in outputs.argmax(-1).tolist()]

    def _generated(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[str]:
        if pairs:
            raise UsageError("this model generates from one text, not from pairs")
        if not texts:
            return []
        writing = writing_of(self.backbone, self.package.spec)
        longest = self.package.max_target or self.package.max_length
        split = Split(tuple(texts), None, ("",) * len(texts))
        encoded = encode_texts(split, writing, self.package.max_length, longest)
        self.backbone.refuse_unknown_tokens(*encoded.tokens)
        return generate(
            *(self.backbone.lm, encoded, writing, self.package.generation, longest),
            positions=self.tuned.positions,
        )


def _listed(
    texts: str | Iterable[str], pairs: str | Iterable[str] | None
) -> tuple[list[str], list[str] | None, bool]:
    """Texts and second texts as lists, and whether one text was given by itself; UsageError for
    anything but strings, and for second texts that are not as many as the texts.
    """
    is_one = isinstance(texts, str)
    if pairs is not None and isinstance(pairs, str) != is_one:
        raise UsageError("pairs must be one text for one text, or a list for a list of texts")
    firsts: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    seconds: list[Any] = [pairs] if isinstance(pairs, str) else list(pairs or ())
    for number, text in enumerate((*firsts, *seconds)):
        if not isinstance(text, str):
            which = f"text {number + 1}" if number < len(firsts) else "a second text"
            raise UsageError(f"{which} is of type {type(text).__name__}, not a string")
    if seconds and len(seconds) != len(firsts):
        raise UsageError(
            f"{counted(len(firsts), 'text')} and {counted(len(seconds), 'second text')}: "
            "give one each"
        )
    return firsts, seconds or None, is_one


def backbone_of(package: Package, device: str = "cpu", model: str | None = None) -> Backbone:
    """The backbone that an export was trained on; MissingError if its weights have changed."""
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

    >>> model = peftsearch.load("OUT")
    >>> model.predict("a kind and clear day") in model.labels
    True
    >>> isinstance(model, torch.nn.Module)
    True
    """
    folder = Path(path)
    package = Package.read(folder)
    tensors, _ = load_tensors(folder / ADAPTER)
    backbone = backbone_of(package, device, model)
    configuration = Configuration.from_json(package.configuration)
    if configuration.hash != package.configuration_hash:
        raise DataError(
            f"{folder}: configuration.json was edited: it is no longer the configuration that "
            "these tensors were trained with"
        )
    return LoadedModel(package, _tuned(backbone, configuration, package.outputs, tensors))


def _tuned(
    backbone: Backbone, configuration: Configuration, outputs: int, tensors: Mapping[str, Tensor]
) -> TunedModel:
    """The configuration attached with the tensors of an export; ConfigurationError if they do not
    fit. Version 0.1.0 wrote retrained ones as they are trained: they are finished here.
    """
    if any(re.match(r"tuned/\d+/(mlp|sparse)/", name) for name in tensors):
        with TunedModel(backbone, configuration, outputs) as trained:
            trained.load(tensors)
            tensors = {name: t.clone() for name, t in trained.stored().items()}
    tuned = TunedModel(backbone, configuration, outputs, finished=True)
    try:
        tuned.load(tensors)
    except BaseException:
        tuned.detach()
        raise
    return tuned
