"""The untuned model's metric: the worst value of the scale where the metric is a loss."""

from __future__ import annotations

from multiprocessing.connection import Connection

from peftsearch.backbone.device import use_device
from peftsearch.design.configuration import Configuration, Head
from peftsearch.errors import PeftsearchError
from peftsearch.processes import WorkerContext, signals_blocked
from peftsearch.study.new_bench import new_bench
from peftsearch.study.new_study import NewStudy
from peftsearch.training.bench import Workbench
from peftsearch.training.model import TunedModel

__all__ = ["untuned_metric", "untuned_metric_apart"]


def untuned_metric(bench: Workbench) -> float:
    """The metric of the model as it is, on the validation data."""
    untuned = Configuration(head=Head("none"))
    with TunedModel(bench.backbone, untuned, 0) as model:
        evaluation = bench.objective.evaluate(model, bench.validation, predict=False)
    return bench.task.metric.value(*evaluation.pair(bench.task.metric, None))


def untuned_metric_apart(request: NewStudy) -> float:
    """The same, computed on the study's device by a process of its own: this one goes on to start
    the workers, and would keep a context and memory on their GPU. Raises that process's error.
    """
    context = WorkerContext()
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(request, sending), daemon=True)
    with signals_blocked():
        process.start()
    sending.close()
    try:
        found = receiving.recv()
    except EOFError:
        process.join()
        raise PeftsearchError(
            f"the process that measured the untuned model died (exit code {process.exitcode})"
        ) from None
    finally:
        process.kill()
    if isinstance(found, PeftsearchError):
        raise found
    return float(found)


def _measure(request: NewStudy, results: Connection) -> None:
    """Send the metric, or the error for the user. Ctrl-C is left to the parent, which kills."""
    try:
        use_device(request.device)
        results.send(untuned_metric(new_bench(request, request.device)))
    except PeftsearchError as error:
        results.send(error)
