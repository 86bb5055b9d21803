"""Recording what a device is asked to compute, to have it computed again by one call: CUDA graphs.

A recording reads and writes the same memory every time. So what differs from time to time has to be
copied into tensors that were there when it was made, and what it gives is taken before the next one
is played: all recordings share the memory of what they compute on the way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

__all__ = ["CudaRecorder", "Recorder", "Recording", "recorder_for"]

Computes = Callable[[], Tensor]
"""Asks the device for something, and returns a tensor with it."""


class Recording(Protocol):
    """Something that was recorded."""

    @property
    def output(self) -> Tensor:
        """What the function returned, written anew by every replay."""

    def replay(self) -> None:
        """Have it computed again, on whatever its tensors hold now."""


class Recorder(Protocol):
    """How functions are recorded on a device, and its clock."""

    def ordinary(self, function: Computes) -> Tensor:
        """Compute as usual, where it is going to be recorded."""

    def record(self, function: Computes) -> Recording:
        """Record without computing; whatever error the device has with it."""

    def mark(self) -> Any:
        """A point in the device's time; nobody waits for it."""

    def seconds(self, first: Any, second: Any) -> float:
        """From one mark to another one, both of which are waited for."""


def recorder_for(device: torch.device) -> Recorder | None:
    """None where nothing can be recorded, or a recording that fails would leave the allocator as
    if it went on (torch before 2.12).
    """
    can = device.type == "cuda" and torch.__version__ >= (2, 12)  # type: ignore[operator]
    return CudaRecorder(device) if can else None


class CudaRecorder:
    """CUDA graphs of one stream and one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None
        self._alive: WeakSet[_CudaRecording] = WeakSet()

    def ordinary(self, function: Computes) -> Tensor:
        """On the stream that recordings are made on, whose kernels and handles it warms up."""
        with self._aside():
            return function()

    def record(self, function: Computes) -> Recording:
        """torch.OutOfMemoryError, too, if what it takes leaves no room for as much again."""
        if not self._alive:  # a pool ends with the last recording in it
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        own = torch.cuda.graph(graph, pool=self._pool, stream=self._stream)
        # After an error `own` leaves the current stream at its own: `_aside` comes back from there.
        with self._aside(), _no_collection(), own:
            output = function()
        self._refuse_if_full()
        recording = _CudaRecording(graph, output)
        self._alive.add(recording)
        return recording

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, first: Any, second: Any) -> float:
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """On the stream of recordings, after what was begun and before what is begun next."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def _refuse_if_full(self) -> None:
        """An ordinary pass, or an evaluation, must still find room beside all recordings. Right
        after one, what is reserved and not allocated is theirs alone.
        """
        free, _ = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        held = reserved - torch.cuda.memory_allocated(self.device)
        if free < held:
            raise torch.OutOfMemoryError(f"{held} bytes of recordings leave {free}")


class _CudaRecording:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph, self._output = graph, output

    @property
    def output(self) -> Tensor:
        return self._output

    def replay(self) -> None:
        self._graph.replay()


@contextmanager
def _no_collection() -> Iterator[None]:
    """What the garbage collector would free meanwhile may be what cannot be freed meanwhile."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
