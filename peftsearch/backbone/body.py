"""Tuned tensors of the body: copies stand in the frozen tensors' places, which are never written.

A copy that is the tensor itself is put there once. One that must be computed (cast to the body's
dtype, joined with a frozen part, or a sparse change) is computed anew for every training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["Stand", "replace_tensor"]

Undo = Callable[[], object]


def replace_tensor(model: nn.Module, frozen: Tensor) -> tuple[Callable[[Tensor], None], Undo]:
    """(put, undo) for every use of one frozen tensor, tied ones too."""
    uses = [
        (module, key)
        for module in model.modules()
        for key, parameter in module._parameters.items()
        if parameter is frozen
    ]

    def put(tensor: Tensor) -> None:
        for module, key in uses:
            module._parameters[key] = tensor  # type: ignore[assignment]

    def undo() -> None:
        put(frozen)

    return put, undo


class Stand:
    """Computed tensors in the body: `compute()` gives one for each of `puts`, in order.

    Without gradients they are computed only when a trained tensor has changed since.
    """

    def __init__(
        self,
        trained: Iterable[Tensor],
        compute: Callable[[], Iterable[Tensor]],
        puts: list[Callable[[Tensor], None]],
    ) -> None:
        self.trained, self.compute, self.puts = list(trained), compute, puts
        self._state: object = None
        self._inside = False

    def hook(self, model: nn.Module, parts: Iterable[nn.Module]) -> list[Undo]:
        """Refresh before each forward of the model, and of a part of it that runs on its own, as an
        encoder does in generation.
        """

        def begin(module: nn.Module, args: object) -> None:
            self.refresh()
            self._inside = True

        def end(module: nn.Module, args: object, output: object) -> None:
            self._inside = False

        def begin_part(module: nn.Module, args: object) -> None:
            if not self._inside:
                self.refresh()

        return [
            model.register_forward_pre_hook(begin).remove,
            model.register_forward_hook(end, always_call=True).remove,
            *(part.register_forward_pre_hook(begin_part).remove for part in parts),
        ]

    def refresh(self) -> None:
        """Compute anew: with gradients always, since a graph is good for one backward."""
        state = [(t.data_ptr(), t._version) for t in self.trained]
        if torch.is_grad_enabled() or state != self._state:
            for put, tensor in zip(self.puts, self.compute(), strict=True):
                put(tensor)
            self._state = None if torch.is_grad_enabled() else state
