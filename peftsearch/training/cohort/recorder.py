"""Recorders: capture the work of a function on a device, to replay it with one call (CUDA graphs).

A recording reads and writes the same memory at every replay. Inputs therefore have to be copied
into the tensors that it was made with, and its output has to be used before another recording is
replayed: all of them share one memory pool for their intermediate results.
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
"""Launches work on the device, and returns a tensor of its result."""


class Recording(Protocol):
    """One recorded function call."""

    @property
    def output(self) -> Tensor:
        """The tensor that the function returned, overwritten by every replay."""

    def replay(self) -> None:
        """Compute again, on the present values of the function's tensors."""


class Recorder(Protocol):
    """Records functions on a device, and times it."""

    def ordinary(self, function: Computes) -> Tensor:
        """Call a function as usual, in the state in which it is going to be recorded."""

    def record(self, function: Computes) -> Recording:
        """Record a function call without computing it; raises whatever the device raises."""

    def mark(self) -> Any:
        """A point on the device's clock; does not wait for the device."""

    def seconds(self, first: Any, second: Any) -> float:
        """Seconds between two marks; waits until the device has reached the second."""


def recorder_for(device: torch.device) -> Recorder | None:
    """A recorder for a GPU; None for a CPU, and with torch before 2.12, where a capture that fails
    leaves the allocator as if it were still going on.
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
        """On the stream that recordings are made on: the call warms up its kernels and handles."""
        with self._on_own_stream():
            return function()

    def record(self, function: Computes) -> Recording:
        """Raises torch.OutOfMemoryError also if less memory is left than all recordings hold."""
        if not self._alive:  # a pool is freed with the last recording in it
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        own = torch.cuda.graph(graph, pool=self._pool, stream=self._stream)
        # After an error torch.cuda.graph leaves its own stream current; `_on_own_stream` restores.
        with self._on_own_stream(), _gc_disabled(), own:
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
    def _on_own_stream(self) -> Iterator[None]:
        """The recordings' stream is current: it waits for work launched before, and work launched
        afterwards waits for it.
        """
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def _refuse_if_full(self) -> None:
        """Raise torch.OutOfMemoryError if no ordinary pass or evaluation would fit beside all
        recordings.
        """
        free, _ = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        # Right after a capture, memory that is reserved and not allocated is that of recordings.
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
def _gc_disabled() -> Iterator[None]:
    """Disable the garbage collector during capture: freeing CUDA memory would break it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
