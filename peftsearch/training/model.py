"""A tuned model: the backbone with one configuration attached, and its head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peftsearch.backbone.attach.attach import attach
from peftsearch.backbone.attach.attention import padded_at_end
from peftsearch.backbone.attach.hooks import DIRECT_HOOKS
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.savings.last_tokens import LastTokens
from peftsearch.backbone.states import last_states
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prompt
from peftsearch.errors import ConfigurationError
from peftsearch.task.tokens.encode import Encoded
from peftsearch.training.frozen.states import FrozenStates
from peftsearch.training.head import ClassificationHead
from peftsearch.training.optimisations import Optimisations
from peftsearch.training.positions import Positions

__all__ = ["TunedModel"]


class TunedModel:
    """Trained, exported and loaded as one; leaving it as a context manager detaches.

    `outputs`: logits of the head; with 0 there is no head, and the language model `backbone.lm`
    generates with the configuration attached. `finished`: attached with the tensors that exports
    store. Only one may be attached to a backbone at a time, unless its hooks are those of a
    `Slices` member. Raises ConfigurationError if the backbone cannot take the configuration.
    """

    def __init__(
        self,
        backbone: Backbone,
        configuration: Configuration,
        outputs: int,
        seed: int = 0,
        finished: bool = False,
        optimisations: Optimisations = Optimisations(),  # noqa: B008 (frozen)
        frozen: FrozenStates | None = None,
    ) -> None:
        self.backbone, self.optimisations, self.frozen = backbone, optimisations, frozen
        self.outputs = outputs
        self.before_batch: Callable[[], None] = _nothing
        """Called before each batch of an evaluation; may raise to cut it short."""
        self.head: ClassificationHead | None = None
        if outputs:
            self.head = ClassificationHead(backbone, configuration.head, outputs, seed)
        self.attachment = attach(backbone, configuration, seed, finished, optimisations.fused_sum)
        self.configuration = self.attachment.configuration
        self.positions = Positions.of(self.configuration)
        straight = backbone.hooks is DIRECT_HOOKS
        self.last_tokens = LastTokens(backbone) if straight and self.reads_one_token else None
        if not optimisations.short_backward:
            self.attachment.undo.append(_long_backward(backbone))

    @property
    def reads_one_token(self) -> bool:
        """Whether the last layer need not be computed for every token. Not with a prompt: it shifts
        the index of the token that is read.
        """
        prompts = any(isinstance(m.form, Prompt) for m in self.configuration.modifications)
        pooling = self.configuration.head.pooling
        return (
            self.optimisations.rows and self.head is not None and pooling != "mean" and not prompts
        )

    def outputs_of(self, data: Encoded, indices: NDArray[np.int64]) -> Tensor:
        """Logits [batch, outputs] of examples, from cached states or features if there are any."""
        assert self.head is not None
        features = self.frozen.features(data, indices) if self.frozen else None
        if features is not None:
            return self.head.read(features)
        with self.reading(data, indices):
            return self(**data.batch(indices, self.backbone.device))

    @contextmanager
    def reading(self, data: Encoded, indices: NDArray[np.int64]) -> Iterator[None]:
        """Context for forwards of these examples, padded at their end."""
        with padded_at_end(self.optimisations.causal), self.with_frozen_states(data, indices):
            yield

    def with_frozen_states(
        self, data: Encoded, indices: NDArray[np.int64]
    ) -> AbstractContextManager[None]:
        """Forwards of these examples take the states of the lowest layers from the cache, if it has
        them.
        """
        return nullcontext() if self.frozen is None else self.frozen.in_use(data, indices)

    def pooled(self, data: Encoded, indices: NDArray[np.int64]) -> Tensor:
        """States [batch, hidden] that the head reads."""
        with padded_at_end(self.optimisations.causal):
            return self._pooled(**data.batch(indices, self.backbone.device))

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Logits [batch, outputs] of token ids, mask and token types, [batch, tokens] each.

        Raises ValueError without a head.
        """
        if self.head is None:
            raise ValueError("a model without a head has no outputs")
        return self.head.read(self._pooled(input_ids, attention_mask, token_type_ids))

    def _pooled(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """States [batch, hidden] in the backbone's dtype, of arguments [batch, tokens] each."""
        assert self.head is not None
        if self.last_tokens is not None:
            self.last_tokens.set_positions(self.head.token_index(attention_mask))
        states = last_states(self.backbone, input_ids, attention_mask, token_type_ids)
        if self.last_tokens is not None:
            return self.last_tokens.select(states)[:, 0]
        return self.head.pool(states, attention_mask)

    def read(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [batch, outputs] of last states: [batch, tokens, hidden], or [batch, 1, hidden] of
        the one token that the head reads. `attention_mask`: [batch, tokens].
        """
        assert self.head is not None
        if states.shape[1] < attention_mask.shape[1]:
            return self.head.read(states[:, 0])
        return self.head.read(self.head.pool(states, attention_mask))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which forwards are of this model alone, though it is a member of a cohort."""
        with self.backbone.hooks.alone():
            if self.backbone.hooks is DIRECT_HOOKS or not self.reads_one_token:
                yield
                return
            self.last_tokens = LastTokens(self.backbone)
            try:
                yield
            finally:
                self.last_tokens.detach()
                self.last_tokens = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """All trained tensors by name: `tuned/…` and `head/…`."""
        tuned = {f"tuned/{name}": p for name, p in self.attachment.tensors.items()}
        return tuned | self._head_parameters()

    def _head_parameters(self) -> dict[str, nn.Parameter]:
        own = self.head.named_parameters() if self.head is not None else ()
        return {f"head/{name}": parameter for name, parameter in own}

    def stored(self) -> dict[str, Tensor]:
        """Tensors to save by name: `tuned/…` as stored (see `Attachment.stored`), and `head/…`."""
        tuned = {f"tuned/{name}": t for name, t in self.attachment.stored().items()}
        return tuned | {name: p.detach() for name, p in self._head_parameters().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into every trained tensor, or with `finished` into every stored one.

        Raises ConfigurationError if names or shapes are not those of this configuration.
        """
        indices = {f"tuned/{name}": t for name, t in self.attachment.indices.items()}
        own: dict[str, Tensor] = {**self.parameters, **indices}
        if own.keys() != tensors.keys():
            missing = sorted(own.keys() ^ tensors.keys())
            raise ConfigurationError(f"tensors do not belong to this configuration: {missing[:3]}")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != tensors[name].shape:
                    raise ConfigurationError(
                        f"tensor '{name}' has shape {tuple(tensors[name].shape)}, "
                        f"not {tuple(parameter.shape)}"
                    )
                parameter.copy_(tensors[name])

    def detach(self) -> None:
        """Remove the configuration from the backbone, whose outputs are then as before."""
        if self.last_tokens is not None:
            self.last_tokens.detach()
        self.attachment.detach()

    def __enter__(self) -> TunedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()


def _nothing() -> None:
    pass


def _long_backward(backbone: Backbone) -> Callable[[], None]:
    """Have gradients computed down to the embeddings, as `enable_input_require_grads` of
    transformers does; returns a function that undoes it.
    """

    def grown(module: nn.Module, args: object, output: Tensor) -> None:
        if torch.is_grad_enabled():
            output.requires_grad_(True)

    handle: Any = backbone.model.get_input_embeddings().register_forward_hook(grown)
    undo: Callable[[], None] = handle.remove
    return undo
