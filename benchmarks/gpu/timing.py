"""Clocks of the GPU measurements: the device's events, kernels, peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from common import ON_GPU
from torch.profiler import ProfilerActivity, profile

__all__ = ["call_ms", "kernels_of", "peak_gib", "repeated", "reset_peak", "wait"]

_ACTIVITY = ProfilerActivity.CUDA if ON_GPU else ProfilerActivity.CPU
_TIME = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
"""Microseconds of a row of the profiler's table."""
_PROFILED = 6 if ON_GPU else 1
"""Steps that are profiled."""
_LISTED = 18
"""Kernels that are printed, the longest first."""


def wait() -> None:
    """Wait until the device has done everything."""
    if ON_GPU:
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Begin to watch the peak of allocated memory anew."""
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float:
    """The most memory allocated since `reset_peak`, in GiB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if ON_GPU else 0.0


def repeated(step: Callable[[], object], most: int, seconds: float) -> int:
    """Call `step` `most` times, or fewer once `seconds` have passed; returns how often."""
    until, done = time.perf_counter() + seconds, 0
    while done < most and time.perf_counter() < until:
        step()
        done += 1
    return done


def call_ms(function: Callable[[], object], times: int = 20, warm: int = 3) -> float:
    """Median milliseconds of a call, on the device's clock where there is one."""
    for _ in range(warm):
        function()
    return median((_event_ms if ON_GPU else _clock_ms)(function) for _ in range(times))


def _event_ms(function: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    function()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def _clock_ms(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) * 1000


def kernels_of(step: Callable[[], object], title: str | None) -> dict[str, float]:
    """Milliseconds and number of the GPU's kernels in a step, which the host cannot stretch; on a
    CPU those of torch's operations. With a `title` the longest of them are printed.
    """
    with profile(activities=[_ACTIVITY]) as profiled:
        for _ in range(_PROFILED):
            step()
        wait()
    rows = [event for event in profiled.key_averages() if getattr(event, _TIME) > 0]
    rows.sort(key=lambda event: -getattr(event, _TIME))
    if title is not None:
        print(f"-- kernels of a pass, {title}: ms, times, name")
        for event in rows[:_LISTED]:
            ms = getattr(event, _TIME) / _PROFILED / 1000
            print(f"{ms:8.3f} {event.count / _PROFILED:6.0f}  {event.key[:110]}")
    return {
        "kernels_ms": sum(getattr(event, _TIME) for event in rows) / _PROFILED / 1000,
        "kernels": sum(event.count for event in rows) / _PROFILED,
    }
