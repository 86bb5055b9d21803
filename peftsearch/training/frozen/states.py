"""Frozen states: cached outputs of the layers that a configuration leaves unchanged.

Below the lowest modification a trial cannot change what the backbone computes; with a head alone it
cannot change any of it, so that the pooled states (features) are cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftsearch.backbone.attach.attention import padded_at_end
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.lower_layers import skipping_lower_layers, states_after
from peftsearch.design.configuration import Configuration
from peftsearch.task.tokens.encode import Encoded
from peftsearch.task.tokens.transfer import to_device
from peftsearch.training.batches import evaluation_batches, evaluation_tokens
from peftsearch.training.frozen.activations import Activations, backbone_digest, cached_activations
from peftsearch.training.frozen.caching_cost import caching_pays
from peftsearch.training.optimisations import Optimisations

__all__ = ["FrozenStates", "Stopped"]

FirstStackInputs = Callable[[Encoded], Encoded]
"""Data set → the data that the backbone's first stack reads."""
Pooled = Callable[[Encoded, NDArray[np.int64]], Tensor]
"""(data set, indices of examples) → states [batch, hidden] that a head reads."""
Stop = Callable[[], bool]


class Stopped(Exception):
    """Told to stop while states were computed, or during an evaluation; its results are dropped."""


class FrozenStates:
    """Cached states for the training of one configuration; expected to be read by `shared_by`
    trials. To be made before the configuration is attached.

    `layers`: number of lowest layers to skip where their states are cached; 0: none. `pooling`:
    the pooling of cached features; empty: none are cached.
    """

    def __init__(
        self,
        backbone: Backbone,
        configuration: Configuration,
        optimisations: Optimisations,
        reads: FirstStackInputs,
        shared_by: int,
    ) -> None:
        self.backbone, self.reads, self.shared_by = backbone, reads, shared_by
        self.causal = optimisations.causal
        head_only = not configuration.modifications and configuration.head.pooling != "none"
        constant = not configuration.training.dropout
        features = constant and optimisations.features and head_only
        self.pooling = configuration.head.pooling if features else ""
        layers = configuration.frozen_layers(backbone.shapes)
        # T5's first layer computes the position bias of the others, and so cannot be skipped.
        worth = layers > int(backbone.family.first_layer_shares) and not self.pooling
        self.layers = layers if constant and optimisations.activations and worth else 0
        self._found: dict[int, tuple[Encoded, Activations | None]] = {}
        if self.layers or self.pooling:
            backbone_digest(backbone)

    @property
    def kept_layers(self) -> int:
        """Lowest layers whose states were taken from the cache so far; 0 if none were."""
        used = any(found is not None for _, found in self._found.values())
        return (self.layers or self.backbone.shapes.layers) if used else 0

    def prepare(
        self, data: Encoded, passes: float, pooled: Pooled, stop: Stop = lambda: False
    ) -> None:
        """Load or compute the states of a data set, if that pays over so many passes.

        Raises Stopped once `stop()` turns true: a forward pass over all data may take minutes.
        """
        whole = data.whole
        if id(whole) in self._found or not (self.layers or self.pooling):
            return
        layers = self.layers or self.backbone.shapes.layers
        pays = caching_pays(self.backbone, layers, passes, self.shared_by)
        # The data set is held, too: else another one could get its id.
        self._found[id(whole)] = (whole, self._entry(whole, pooled, stop) if pays else None)

    def _entry(self, data: Encoded, pooled: Pooled, stop: Stop) -> Activations | None:
        if self.pooling:
            return self._features(data, pooled, stop)
        return self._states(data, self.layers, stop)

    def _features(self, data: Encoded, pooled: Pooled, stop: Stop) -> Activations | None:
        """Pooled states, one row a text."""

        def fill(empty: Activations) -> None:
            lower, below = self._nearest_cached(data, self.backbone.shapes.stacks[0] + 1)
            tokens = evaluation_tokens(self.backbone.device)
            for indices in _until(stop, evaluation_batches(data.inputs.lengths, tokens)):
                states = None if below is None else below.padded(indices)
                with torch.inference_mode(), self._skipping(states, lower):
                    empty.write(indices, pooled(data, indices).unsqueeze(1))

        one_each = np.arange(len(data) + 1)
        return cached_activations(self.backbone, data, f"pooled {self.pooling}", one_each, fill)

    def _states(self, data: Encoded, layers: int, stop: Stop) -> Activations | None:
        """States after the lowest `layers`, one row a token."""
        read = self.reads(data)
        offsets, backbone = read.inputs.offsets, self.backbone

        def fill(empty: Activations) -> None:
            lower, below = self._nearest_cached(read, layers)
            tokens = evaluation_tokens(backbone.device)
            for indices in _until(stop, evaluation_batches(read.inputs.lengths, tokens)):
                inputs = read.batch(indices, backbone.device)
                states = None if below is None else below.padded(indices)
                with self._skipping(states, lower), padded_at_end(self.causal):
                    empty.write(indices, states_after(backbone, layers, inputs))

        return cached_activations(backbone, read, _after(layers), offsets, fill)

    def _nearest_cached(self, read: Encoded, layers: int) -> tuple[int, Activations | None]:
        """The highest lower layer whose states are cached, and these; computing on from them gives
        the same bits in less time. 0 and None if there is none.
        """
        for lower in range(layers - 1, int(self.backbone.family.first_layer_shares), -1):
            found = cached_activations(
                self.backbone, read, _after(lower), read.inputs.offsets, None
            )
            if found is not None:
                return lower, found
        return 0, None

    def features(self, data: Encoded, indices: NDArray[np.int64]) -> Tensor | None:
        """Pooled states [batch, hidden] of examples, on the device; None if they are not cached."""
        found = self._cached(data) if self.pooling else None
        if found is None:
            return None
        return to_device(found.padded(indices)[:, 0], self.backbone.device)

    @contextmanager
    def in_use(self, data: Encoded, indices: NDArray[np.int64]) -> Iterator[None]:
        """Context in which forwards of these examples skip the layers whose states are cached."""
        found = self._cached(data) if self.layers else None
        with self._skipping(None if found is None else found.padded(indices), self.layers):
            yield

    def _skipping(self, states: Tensor | None, layers: int) -> AbstractContextManager[None]:
        """Context in which the lowest layers give `states` [batch, tokens, hidden], if not None."""
        if states is None:
            return nullcontext()
        return skipping_lower_layers(self.backbone, layers, to_device(states, self.backbone.device))

    def _cached(self, data: Encoded) -> Activations | None:
        found = self._found.get(id(data.whole))
        return None if found is None else found[1]


def _until(stop: Stop, batches: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.int64]]:
    """The batches; raises Stopped before the next one once `stop()` turns true."""
    for batch in batches:
        if stop():
            raise Stopped
        yield batch


def _after(layers: int) -> str:
    return f"after {layers} layers"
