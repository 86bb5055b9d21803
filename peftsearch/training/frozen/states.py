"""The states that one configuration leaves as they are, wherever they are worth keeping.

Below the lowest modification nothing that a trial does can change what the backbone computes; under
a head alone nothing can at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.lower_layers import skipping_lower_layers, states_after
from peftsearch.design.configuration import Configuration
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.transfer import sent
from peftsearch.training.batches import evaluation_batches, evaluation_tokens
from peftsearch.training.frozen.activations import Activations, digest_of, kept
from peftsearch.training.frozen.cost import keeping_pays
from peftsearch.training.optimisations import Optimisations

__all__ = ["FrozenStates", "Stopped"]

Reads = Callable[[Encoded], Encoded]
"""A data set → what the first stack reads of it."""
Pooled = Callable[[Encoded, NDArray[np.int64]], Tensor]
"""Examples → the states (batch, d) that a head reads."""
Stop = Callable[[], bool]


class Stopped(Exception):
    """Asked to stop while states were computed, or in an evaluation; nothing of it is kept."""


class FrozenStates:
    """Of a configuration's training, `passes` times over its data; `shared_by` so many trials.

    `layers`: how many lowest layers stand aside; 0: none.
    """

    def __init__(
        self,
        backbone: Backbone,
        configuration: Configuration,
        optimisations: Optimisations,
        reads: Reads,
        shared_by: int,
    ) -> None:
        self.backbone, self.reads, self.shared_by = backbone, reads, shared_by
        alone = not configuration.modifications and configuration.head.pooling != "none"
        may = not configuration.training.dropout
        self.features_of = (
            configuration.head.pooling if may and optimisations.features and alone else ""
        )
        layers = configuration.frozen_layers(backbone.shapes)
        worth = layers > int(backbone.family.first_layer_shares) and not self.features_of
        self.layers = layers if may and optimisations.activations and worth else 0
        self._found: dict[int, tuple[Encoded, Activations | None]] = {}
        if self.layers or self.features_of:
            digest_of(backbone)

    @property
    def kept_layers(self) -> int:
        """Layers whose states were taken from the cache so far: 0 where it never was."""
        used = any(found is not None for _, found in self._found.values())
        return (self.layers or self.backbone.shapes.layers) if used else 0

    def prepare(
        self, data: Encoded, passes: float, pooled: Pooled, stop: Stop = lambda: False
    ) -> None:
        """Have the states of a data set ready, if over so many passes they are worth it. Stopped if
        `stop()` became true before: a forward pass over all of it may take minutes.
        """
        whole = data.whole
        if id(whole) in self._found or not (self.layers or self.features_of):
            return
        layers = self.layers or self.backbone.shapes.layers
        pays = keeping_pays(self.backbone, layers, passes, self.shared_by)
        self._found[id(whole)] = (whole, self._entry(whole, pooled, stop) if pays else None)

    def _entry(self, data: Encoded, pooled: Pooled, stop: Stop) -> Activations | None:
        if self.features_of:
            return self._features(data, pooled, stop)
        return self._states(data, self.layers, stop)

    def _features(self, data: Encoded, pooled: Pooled, stop: Stop) -> Activations | None:
        def fill(empty: Activations) -> None:
            lower, below = self._nearest_kept(data, self.backbone.shapes.stacks[0] + 1)
            tokens = evaluation_tokens(self.backbone.device)
            for indices in _until(stop, evaluation_batches(data.inputs.lengths, tokens)):
                states = None if below is None else below.padded(indices)
                with torch.inference_mode(), self._aside(states, lower):
                    empty.write(indices, pooled(data, indices).unsqueeze(1))

        one_each = np.arange(len(data) + 1)
        return kept(self.backbone, data, f"pooled {self.features_of}", one_each, fill)

    def _states(self, data: Encoded, layers: int, stop: Stop) -> Activations | None:
        read = self.reads(data)
        offsets, backbone = read.inputs.offsets, self.backbone

        def fill(empty: Activations) -> None:
            lower, below = self._nearest_kept(read, layers)
            tokens = evaluation_tokens(backbone.device)
            for indices in _until(stop, evaluation_batches(read.inputs.lengths, tokens)):
                inputs = read.batch(indices, backbone.device)
                states = None if below is None else below.padded(indices)
                with self._aside(states, lower):
                    empty.write(indices, states_after(backbone, layers, inputs))

        return kept(backbone, read, _after(layers), offsets, fill)

    def _nearest_kept(self, read: Encoded, layers: int) -> tuple[int, Activations | None]:
        """The highest layer below whose states are there already: the same bits, for less."""
        for lower in range(layers - 1, int(self.backbone.family.first_layer_shares), -1):
            found = kept(self.backbone, read, _after(lower), read.inputs.offsets, None)
            if found is not None:
                return lower, found
        return 0, None

    def features(self, data: Encoded, indices: NDArray[np.int64]) -> Tensor | None:
        """Pooled states (batch, d) of these examples, if they are kept."""
        found = self._of(data) if self.features_of else None
        if found is None:
            return None
        return sent(found.padded(indices)[:, 0], self.backbone.device)

    @contextmanager
    def given(self, data: Encoded, indices: NDArray[np.int64]) -> Iterator[None]:
        """The lowest layers stand aside in forwards of these examples, if their states are kept."""
        found = self._of(data) if self.layers else None
        with self._aside(None if found is None else found.padded(indices), self.layers):
            yield

    def _aside(self, states: Tensor | None, layers: int) -> AbstractContextManager[None]:
        if states is None:
            return nullcontext()
        return skipping_lower_layers(self.backbone, layers, sent(states, self.backbone.device))

    def _of(self, data: Encoded) -> Activations | None:
        found = self._found.get(id(data.whole))
        return None if found is None else found[1]


def _until(stop: Stop, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    for batch in batches:
        if stop():
            raise Stopped
        yield batch


def _after(layers: int) -> str:
    return f"after {layers} layers"
