"""Nodes of autograd's graph that are still alive after a pass, and the tensors that hold them."""

from __future__ import annotations

import gc
from collections.abc import Mapping

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

__all__ = ["AccumulateNodes", "tensors_with_nodes"]

_MARK = "of an earlier pass"


class AccumulateNodes:
    """The nodes that accumulate parameters' gradients, marked as backward passes run them.

    A parameter has one node as long as anything holds a graph that ends in it, and gets another one
    afterwards. The mark is in the node's own metadata, which holds nothing alive.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.ran: set[str] = set()
        """Parameters whose nodes have run."""
        for name, parameter in parameters.items():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: self._mark(name, p))  # type: ignore[misc]

    def _mark(self, name: str, parameter: Tensor) -> None:
        self.ran.add(name)
        get_gradient_edge(parameter).node.metadata[_MARK] = True

    @property
    def left(self) -> list[str]:
        """Parameters whose nodes of an earlier pass would run in the next one."""
        return [
            name
            for name, parameter in self.parameters.items()
            if _MARK in get_gradient_edge(parameter).node.metadata
        ]


def tensors_with_nodes() -> set[int]:
    """Ids of tensors that hold nodes of a graph, wherever in the process."""
    tensors = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
    return {id(tensor) for tensor in tensors if _has_node(tensor)}


def _has_node(tensor: Tensor) -> bool:
    """Whether a graph made it. Autograd refuses to say so of a view from `no_grad` whose base was
    written to since, which another test may have left: that one counts before and after.
    """
    try:
        return tensor.grad_fn is not None
    except RuntimeError:
        return True
