"""The last layer computed only for the token that the head reads.

Keys and values of all tokens are needed, but one query a text, and one row of everything after.
Hooks alone do it: where a module adds what one row has become to a stream that is still whole, the
sum is right in that row and never read in the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from peftsearch.backbone.attach import attention
from peftsearch.backbone.families import AttentionPaths
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.measure import stack_layers

__all__ = ["LastTokens"]


class LastTokens:
    """The last layer of the backbone, for one token a text; set `where` before each forward.

    To be attached after a configuration is: what it reads is selected before every modification,
    and spread after.
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
        """A query of its own is computed once and stands at every place, where it is turned by the
        place's position: at the right one rightly, and that one alone is attended from.
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
        """Norms that are read after attention has been computed; where the ffn reads the norm that
        attention reads, which needs all tokens, the ffn's first layer.
        """
        stack = backbone.family.stacks[-1]
        own = [] if backbone.family.pre_norm else [paths.norm]
        ffn = [stack.ffn.norm]
        if stack.ffn.norm == paths.norm:
            ffn = [part.path for part in (stack.ffn.hidden, stack.ffn.gate) if part is not None]
        return own + ([stack.cross.norm] if stack.cross else []) + ffn

    def _select_before(self, path: str) -> Any:
        def select(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            flat = args[0].ndim == 2  # OPT's ffn reads the tokens of all texts as one row
            return args if flat else (self.select(args[0]), *args[1:])

        return self._layer.get_submodule(path).register_forward_pre_hook(select, prepend=True)

    def set_positions(self, where: Tensor | None) -> None:
        """Which token of each text, (batch,); None: the first."""
        self._where = where

    def select(self, states: Tensor, dim: int = 1, texts: slice = slice(None)) -> Tensor:
        """States, of all texts or of some, with one row at `dim`; as they are where they have one
        already.
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
        while self._undo:
            self._undo.pop()()
        for module in self._attentions:
            attention.select_all_queries(module)
