"""Recorders: capture the work of a function on a device, to replay it with one call (CUDA graphs).

A recording reads and writes the same memory at every replay. Inputs therefore have to be copied
into the tensors that it was made with, and its output has to be used before another recording is
replayed: all of them share one memory pool for their intermediate results.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
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

    survives_errors: bool
    """Whether something else can be recorded after an error while recording."""

    def ordinary(self, function: Computes) -> tuple[Tensor, str | None]:
        """Call a function as usual, in the state in which it is going to be recorded. Returns its
        result, and a reason why it cannot be recorded, if that was noticed.
        """

    def record(self, function: Computes) -> Recording:
        """Record a function call without computing it; raises whatever the device raises."""

    def mark(self) -> Any:
        """A point on the device's clock; does not wait for the device."""

    def seconds(self, first: Any, second: Any) -> float:
        """Seconds between two marks; waits until the device has reached the second."""


_WAIT = "called a synchronizing CUDA operation"
_PROTOTYPE = "Synchronization debug mode is a prototype"
"""Beginnings of torch's warnings: of a wait, and of the mode that warns of waits."""
OLDEST_TORCH = (2, 11)
"""A choice, not a finding: no version has been tried on a GPU yet."""
TORCH_SURVIVING_ERRORS = (2, 13)
"""Before it, `CUDAGraph.capture_end` raised the error of a capture that failed before it had told
allocator and random generator that the capture was over (pytorch/pytorch#180395): the process then
returns no memory to the device, and its dropout fails. Memory of the failed capture itself is lost
up to 2.13 (pytorch/pytorch#190348).
"""


def recorder_for(device: torch.device) -> Recorder | None:
    """A recorder for a GPU; None for a CPU, and with torch before `OLDEST_TORCH`."""
    return CudaRecorder(device) if device.type == "cuda" and _torch_is(OLDEST_TORCH) else None


def _torch_is(version: tuple[int, int]) -> bool:
    """Whether torch is of this version or a later one, builds before its release not included."""
    return bool(torch.__version__ >= version)  # type: ignore[operator]


class CudaRecorder:
    """CUDA graphs of one stream and one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.survives_errors = _torch_is(TORCH_SURVIVING_ERRORS)
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None
        self._alive: WeakSet[_CudaRecording] = WeakSet()

    def ordinary(self, function: Computes) -> tuple[Tensor, str | None]:
        """On the stream that recordings are made on: the call warms up its kernels and handles.

        A function that waits for the device, which no capture can contain, is noticed here, where
        it does no harm.
        """
        with self._on_own_stream(), _waits_noticed() as waits:
            output = function()
        return output, f"a pass waits for the device ({waits[0]})" if waits else None

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
def _waits_noticed() -> Iterator[list[str]]:
    """Context that yields a list, to which each wait for the device adds its file and line."""
    before = torch.cuda.get_sync_debug_mode()
    waits: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(before)
    for one in caught:
        if _WAIT in str(one.message):
            waits.append(f"{PurePath(one.filename).name}:{one.lineno}")
        elif _PROTOTYPE not in str(one.message):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


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
