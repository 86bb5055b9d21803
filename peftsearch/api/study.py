"""`peftsearch.Study`: a study's frontier, trials, plot and report, and export of a point."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from peftsearch.api.status import status_of
from peftsearch.design.configuration import Configuration
from peftsearch.errors import NothingFeasible, UsageError
from peftsearch.frontier.choose import cheapest_within, choose
from peftsearch.records.derive import count_states, frontier_document, write_derived
from peftsearch.records.examples import Examples, read_examples
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyRecord, TrialResult
from peftsearch.records.trials_csv import derived_trials_csv
from peftsearch.study.read_study import read_study
from peftsearch.task.metrics.per_example import SCORE

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["FrontierPoint", "Study", "open_study"]

_COLUMNS = {
    "number": "trial",
    "tuned_pct": "tuned_pct",
    "tuned_parameters": "tuned_parameters",
    "metric": "metric",
    "metric_se": "metric_se",
    "method": "method",
    "description": "configuration",
}
"""Key of a point in frontier.json → column of the frame."""


@dataclass(frozen=True)
class FrontierPoint:
    """One point of a frontier: a trial of full length that no other beats in both metric and tuned
    parameters.

    >>> point = peftsearch.open_study("sst2-minilm").best()
    >>> print(f"#{point.trial}: {point.metric:.3f} with {point.tuned_pct:.3g} % tuned")
    #18: 0.831 with 1.31 % tuned
    >>> point.configuration.modifications[0].form.name
    'relu'
    """

    trial: int
    configuration: Configuration
    metric: float
    """On the validation data, in the study's metric."""
    metric_se: float | None
    """Its standard error from the size of the validation set."""
    tuned_pct: float
    """Tuned parameters in percent of the backbone."""
    tuned_parameters: int

    def __str__(self) -> str:
        return f"#{self.trial}, {self.tuned_pct:.3g} % tuned: {self.configuration.describe()}"


class Study:
    """A study on disk, returned by `search` and `open_study`. Every access reads the files again:
    results of a search in another process appear. Notebooks display its plot and frontier.

    >>> study = peftsearch.open_study("sst2-minilm")
    >>> study
    <study sst2-minilm: demo:minilm on train.tsv, 36 evaluated, 9 on the frontier>
    >>> study.path.name
    'sst2-minilm'
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        return self._folder.name

    @property
    def path(self) -> Path:
        """The study's folder."""
        return self._folder.root

    def frontier(self) -> pd.DataFrame:
        """The best configuration at every tuned percentage, cheapest first, indexed by trial.

        Columns: `tuned_pct` (percent of the backbone), `tuned_parameters`, `metric` and `metric_se`
        (its standard error from the size of the validation set), `method` (None for
        sampled ones), `configuration` as text. Empty while no trial has reached full length.

        >>> frontier = peftsearch.open_study("sst2-minilm").frontier()
        >>> bool(frontier["metric"].is_monotonic_increasing)
        True
        """
        document = frontier_document(self._record())
        rows = [{column: p[key] for key, column in _COLUMNS.items()} for p in document["points"]]
        frame = pd.DataFrame(rows, columns=list(_COLUMNS.values()))
        return frame.set_index("trial")

    def trials(self) -> pd.DataFrame:
        """Every trial that ended, by number, with the columns of trials.csv: `state` (full,
        stopped, failed, duplicate, infeasible), `metric`, `tuned_pct`, `wall_s` (seconds) and more.

        >>> trials = peftsearch.open_study("sst2-minilm").trials()
        >>> trials["state"].value_counts().to_dict()
        {'full': 25, 'stopped': 11}
        """
        text = derived_trials_csv(self._record())
        return pd.read_csv(io.StringIO(text)).set_index("number")

    def examples(self, number: int) -> pd.DataFrame:
        """The study's metric on every validation example, as a trial of full length predicted it,
        in the order of the validation split: for paired comparisons and bootstraps of trials.

        Column `score` where the metric is the mean of it (accuracy: 1 or 0; ROUGE, squared errors);
        else the statistics that it is computed from, such as `reference` and `predicted`
        (docs/study-folder.md). UsageError for a trial that has none.

        >>> study = peftsearch.open_study("exported")
        >>> point = study.best()
        >>> bool(study.examples(point.trial)["score"].mean() == point.metric)
        True
        """
        from peftsearch.study.storage.database.copies import fetch_examples

        number = self._full(number).number
        fetch_examples(self._folder, number)
        path = self._folder.trial(number).examples_path
        try:
            examples = read_examples(path)
        except FileNotFoundError as error:
            raise UsageError(
                f"{path} is missing: trial {number} was recorded by version 0.2.0 or earlier, or "
                "the file is on the machine that trained it, and no artifact store shares it "
                "(--artifacts)"
            ) from error
        return _frame(examples)

    def _full(self, number: int) -> TrialResult:
        """The result of a trial of full length, or of the one that a duplicate repeats."""
        by_number = {result.number: result for result in self._record().results}
        result = by_number.get(number)
        if result is not None and result.same_as is not None:
            result = by_number.get(result.same_as)
        if result is None or result.state != "full":
            why = (
                "has no result" if result is None else f"did not reach full length ({result.state})"
            )
            raise UsageError(f"study '{self.name}': trial {number} {why}; see: study.trials()")
        return result

    def best(self, at: float | str = "best", within: float | None = None) -> FrontierPoint:
        """A point of the frontier.

        `at`: `"best"` (of the metric), `"knee"`, a limit on tuned % (`0.5`), or a trial (`"#28"`).
        `within`: of all points, the one that tunes least among those whose metric is at most so
        much worse than the best's, in the metric's units. NothingFeasible while no trial has
        reached full length, UsageError if no point fits.

        >>> study = peftsearch.open_study("sst2-minilm")
        >>> study.best().tuned_pct > study.best(within=0.02).tuned_pct
        True
        >>> study.best(at=0.5).tuned_pct <= 0.5
        True
        """
        record = self._record()
        front, maximise = record.front, record.info.metric.maximise
        if within is None:
            chosen = choose(front, str(at), maximise)
        elif at != "best":
            raise UsageError("give at or within, not both")
        else:
            chosen = cheapest_within(front, within, maximise)
        return _point(next(r for r in record.results if r.number == chosen.number))

    def plot(self) -> go.Figure:
        """The frontier as a plotly figure: metric against tuned %, with every trial of full length.
        NothingFeasible while there is none.

        >>> figure = peftsearch.open_study("sst2-minilm").plot()
        >>> figure.write_html("frontier.html")
        """
        from peftsearch.report.figures.pareto import pareto_figure

        return pareto_figure(self._record_with_results())

    def report(self, path: str | Path | None = None) -> Path:
        """Write the study as one HTML file and return its path (default: in the study). UsageError
        for a folder.

        >>> peftsearch.open_study("sst2-minilm").report("report.html")
        PosixPath('report.html')
        """
        from peftsearch.report.html import write_report

        record = self._record()
        if path is None:
            write_derived(self._folder, record)
        target = self._folder.report_path if path is None else Path(path)
        if target.is_dir():
            raise UsageError(f"'{target}' is a folder: give the name of a file")
        write_report(record, target, self._folder.read_environment(), self._folder)
        return target

    def export(
        self,
        out: str | Path,
        at: float | str = "best",
        to: Literal["native", "recipe", "peft"] = "native",
    ) -> Path:
        """Write a point's weights (`native`, for `peftsearch.load`), a recipe, or an adapter for
        peft to `out`, and return it. `at` is that of `best`. UsageError for an `out` that holds
        other files, and for a point that peft cannot express.

        >>> study = peftsearch.open_study("sst2-minilm")
        >>> study.export("point.yaml", at=0.5, to="recipe")
        PosixPath('point.yaml')
        """
        from peftsearch.export.study_point import export_point

        if to not in ("native", "recipe", "peft"):
            raise UsageError(f"to='{to}' unknown: native, recipe or peft")
        export_point(self._folder, str(at), to, Path(out))
        return Path(out)

    def status(self) -> dict[str, Any]:
        """The status that `peftsearch status --json` prints: `counts` of trials by
        state, `frontier_points`, `hypervolume` in [0, 1], `cpu_s`, `searched_by` and more.

        >>> status = peftsearch.open_study("sst2-minilm").status()
        >>> status["searched_by"] is None, status["counts"]["full"] > 0
        (True, True)
        """
        return status_of(self._record(), self._folder.search_lock().owner())

    def _record(self) -> StudyRecord:
        return read_study(self._folder)

    def _record_with_results(self) -> StudyRecord:
        record = self._record()
        if not any(result.state == "full" for result in record.results):
            raise NothingFeasible(f"study '{self.name}' has no configuration at full length yet")
        return record

    def __repr__(self) -> str:
        record = self._record()
        points, count = len(record.front), count_states(record)["evaluated"]
        return (
            f"<study {self.name}: {record.info.model} on {record.info.task_name}, "
            f"{count} evaluated, {points} on the frontier>"
        )

    def _repr_html_(self) -> str:
        """HTML for notebooks: the study's summary sentence, plot and frontier table."""
        from peftsearch.api.notebook import study_html

        return study_html(self._record(), self.frontier())


def _frame(examples: Examples) -> pd.DataFrame:
    """A column for each statistic, `NAME_0`, `NAME_1`, … for those of several columns."""
    columns: dict[str, Any] = {}
    for name, values in examples.arrays.items():
        if values.ndim == 1:
            columns[name] = values
        else:
            columns |= {f"{name}_{i}": column for i, column in enumerate(values.T)}
    if examples.scores is not None:
        columns[SCORE] = examples.scores
    return pd.DataFrame(columns, index=pd.RangeIndex(len(examples), name="example"))


def _point(result: TrialResult) -> FrontierPoint:
    assert result.metric is not None
    return FrontierPoint(
        trial=result.number,
        configuration=Configuration.from_json(result.configuration or {}),
        metric=result.metric,
        metric_se=result.metric_se,
        tuned_pct=result.tuned_pct,
        tuned_parameters=result.tuned_parameters,
    )


def open_study(name: str, studies: str | Path | None = None) -> Study:
    """Open a study by name, updated from its database if it has one.

    `studies` is the folder of the studies (default: `./studies`). UsageError with the nearest name
    if there is none.

    >>> peftsearch.open_study("sst2-minilm").best().trial
    18
    """
    from peftsearch.study.storage.database.copies import update_folder

    folder = StudyFolder.open(name, None if studies is None else Path(studies))
    update_folder(folder, _warn)
    return Study(folder)


def _warn(line: str) -> None:
    import warnings

    warnings.warn(line, stacklevel=3)
