"""CUDA graphs for the measurements: on any version of torch, with errors in full.

peftsearch records with torch 2.12 or later, where a capture that fails leaves the allocator in
order; whoever measures may take the risk. On a CPU the tests' emulation takes their place.
"""

from __future__ import annotations

import traceback
from typing import Any

from common import ON_GPU

__all__ = ["always_record", "worker"]


def always_record() -> None:
    """From now on cohorts of this process record passes, whatever torch's version and device."""
    from peftsearch.training.cohort import cohort, graph_cache

    if ON_GPU:
        from peftsearch.training.cohort.recorder import CudaRecorder

        cohort.recorder_for = CudaRecorder
    else:
        _emulate(cohort)
    graph_cache.RecordedPass = _loud(graph_cache.RecordedPass)


def _emulate(cohort: Any) -> None:
    """The tests' recorder, with masks and lengths as they are on a GPU."""
    from peftsearch.backbone.attach import attention
    from peftsearch.training.cohort import joint_batch
    from support.emulated_graphs import EmulatedRecorder

    cohort.recorder_for = lambda device: EmulatedRecorder()
    attention.MASK_SKIP_DEVICES = ()
    joint_batch._MULTIPLE["cpu"] = joint_batch._MULTIPLE["cuda"]


def _loud(recorded_pass: Any) -> Any:
    """A class of recorded passes that prints an error of the device in full: peftsearch keeps the
    first line.
    """

    class Loud(recorded_pass):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            try:
                super().__init__(*arguments)
            except Exception:
                traceback.print_exc()
                raise

    return Loud


def worker(*arguments: Any) -> None:
    """The body of a search's worker process, which records whatever torch's version."""
    from peftsearch.workers.worker import Worker

    always_record()
    Worker(*arguments).run()
