"""CUDA graphs as a CPU can have them: every operation is recorded, and played on the same storages.

Nothing of Python runs in a replay, so a value that was not in a tensor is frozen, as it would be on
a GPU. What a GPU would refuse to record is refused: whatever the host waits for, values that come
from the host; and writing to tensors that were there before. As recordings share the memory of what
they compute on the way, each one's tensors are lost when another is made or played.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique", "item")
_FROM_HOST = ("lift_fresh",)
"""What `torch.tensor` ends with."""


def waits(func: Any, args: Any) -> bool:
    """Whether it is an operation whose result the host must wait for on a GPU."""
    name = func.overloadpacket.__name__
    if name.startswith(("index", "_index_put")):
        return any(index.dtype == torch.bool for index in _tensors(args[1]))
    return any(name.startswith(one) for one in _WAITS)


class EmulatedRecorder:
    """`names`: operations of the last recording. `notices`: what a GPU would wait for is found in
    an ordinary pass already.
    """

    survives_errors = True

    def __init__(self, notices: bool = False) -> None:
        self.notices = notices
        self.made = self.played = 0
        self.names: list[str] = []
        self._alive: WeakSet[EmulatedGraph] = WeakSet()

    def ordinary(self, function: Callable[[], Tensor]) -> tuple[Tensor, str | None]:
        if not self.notices:
            return function(), None
        with _Waits() as mode:
            output = function()
        return output, f"a pass waits for the device ({mode.names[0]})" if mode.names else None

    def record(self, function: Callable[[], Tensor]) -> EmulatedGraph:
        tape = _Tape()
        with tape:
            output = function()
        graph = EmulatedGraph(self, tape, output)
        self.made += 1
        self.names = [operation.name for operation in tape.operations]
        self._alive.add(graph)
        for other in self._alive:  # itself too: a recording computes nothing
            other.lose()
        return graph

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, first: float, second: float) -> float:
        return second - first

    def lose_others(self, played: EmulatedGraph) -> None:
        for other in self._alive:
            if other is not played:
                other.lose()


class EmulatedGraph:
    def __init__(self, recorder: EmulatedRecorder, tape: _Tape, output: Tensor) -> None:
        self.recorder, self.tape, self.output = recorder, tape, output

    def replay(self) -> None:
        self.recorder.played += 1
        self.recorder.lose_others(self)
        with torch.no_grad():
            for operation in self.tape.operations:
                operation()

    def lose(self) -> None:
        """What another recording leaves of its memory."""
        with torch.no_grad():
            for tensor in self.tape.born.values():
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))


class _Operation:
    """One call of an ATen operation and the tensors that hold what it gives."""

    def __init__(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        self.func, self.args, self.kwargs, self.given = func, args, kwargs, given
        self.name = func.overloadpacket.__name__

    def __call__(self) -> None:
        again = _tensors(self.func(*self.args, **self.kwargs))
        if not self.func._schema.is_mutable:
            for own, new in zip(self.given, again, strict=True):
                own.copy_(new)


class _Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[_Operation] = []
        self.born: dict[int, Tensor] = {}
        """Storage → a tensor on it, of those that were made here; and so kept alive."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if waits(func, args) or name in _FROM_HOST:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        given = func(*args, **kwargs)
        read = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        if func._schema.is_mutable:
            written = {_storage(tensor) for tensor in _tensors(given)}
            assert written <= self.born.keys(), f"{name} writes to what was there before"
        fresh = [t for t in _tensors(given) if _storage(t) not in read | self.born.keys()]
        self.born |= {_storage(tensor): tensor for tensor in fresh}
        if fresh or func._schema.is_mutable:  # a view needs no replay
            self.operations.append(_Operation(func, args, kwargs, _tensors(given)))
        return given


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
