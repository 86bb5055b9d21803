"""The last layer computed only for the token that the head reads.

Keys and values of all tokens are needed, but one query a text, and one token of everything after.
Hooks alone do it: where a module adds a result for one token, [batch, 1, d], to a stream that is
still whole, [batch, tokens, d], broadcasting makes the sum right at that token and wrong at the
others, which nothing reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.backbone import Backbone
from peftsearch.backbone.family import AttentionPaths
from peftsearch.backbone.measure import stack_layers

__all__ = ["LastTokens"]


class LastTokens:
    """Cuts the last layer of the backbone to one token a text; call `set_positions` before each
    forward.

    Attach a configuration first: these hooks run before (prepend) its hooks on a module's input,
    and after its hooks on a module's output.
    """

    def __init__(self, backbone: Backbone) -> None:
        stack = backbone.family.stacks[-1]
        self._layer: nn.Module = list(stack_layers(backbone.model, stack))[-1]
        self._where: Tensor | None = None
        paths = stack.attention
        self._attentions = [
            self._layer.get_submodule(p.module) for p in (paths, stack.cross) if p is not None
        ]
        for module in self._attentions:
            attention.select_queries(module, self)
        after = [paths.out, *self._norms(backbone, paths)]
        handles = [self._select_before(path) for path in dict.fromkeys(after)]
        if backbone.family.takes_prefix and paths.query.of == 1:
            handles += self._one_query(paths.query.path)
        self._undo: list[Callable[[], None]] = [handle.remove for handle in handles]

    def _one_query(self, path: str) -> list[Any]:
        """Hooks that compute the query projection for one token, [batch, 1, d_query], and repeat it
        at every place, as a view [batch, tokens, d_query].

        The model's code then turns each by its place's rotary position, so that it is right at its
        own place, and `attention.attend` selects that one.
        """
        lengths: list[int] = []

        def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            lengths.append(args[0].shape[1])
            return (self.select(args[0]), *args[1:])

        def spread(module: nn.Module, args: tuple[Any, ...], query: Tensor) -> Tensor:
            return query.expand(-1, lengths.pop(), -1)

        query = self._layer.get_submodule(path)
        return [
            query.register_forward_pre_hook(select, prepend=True),
            query.register_forward_hook(spread),
        ]

    def _norms(self, backbone: Backbone, paths: AttentionPaths) -> list[str]:
        """Paths of the modules before which tokens are selected, once attention is computed.

        The norms; where the ffn reads the same norm as attention, which needs all tokens (Falcon),
        the ffn's first layers instead.
        """
        stack = backbone.family.stacks[-1]
        own = [] if backbone.family.pre_norm else [paths.norm]
        ffn = [stack.ffn.norm]
        if stack.ffn.norm == paths.norm:
            ffn = [part.path for part in (stack.ffn.hidden, stack.ffn.gate) if part is not None]
        return own + ([stack.cross.norm] if stack.cross else []) + ffn

    def _select_before(self, path: str) -> Any:
        """A hook that cuts the input of the module at `path`, [batch, tokens, d], to one token."""

        def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            # OPT's ffn reads [batch · tokens, d], in which no token of a text can be found by its
            # place: it is computed for all tokens.
            flat = args[0].ndim == 2
            return args if flat else (self.select(args[0]), *args[1:])

        return self._layer.get_submodule(path).register_forward_pre_hook(select, prepend=True)

    def set_positions(self, where: Tensor | None) -> None:
        """Choose the token of each text by its index [batch]; None: the first of every text."""
        self._where = where

    def select(self, states: Tensor, dim: int = 1, texts: slice = slice(None)) -> Tensor:
        """States [batch or 1, ..., tokens at axis `dim`, ...] of all texts or of `texts`, with that
        axis cut to length 1; unchanged where it has length 1 already.
        """
        if states.shape[dim] == 1:
            return states
        if self._where is None:
            return states.narrow(dim, 0, 1)
        where = self._where[texts]
        states = states.expand(len(where), *states.shape[1:])
        each = torch.arange(len(where), device=states.device)
        return states.movedim(dim, 1)[each, where].unsqueeze(dim)

    def detach(self) -> None:
        """Compute all tokens again."""
        while self._undo:
            self._undo.pop()()
        for module in self._attentions:
            attention.select_all_queries(module)
