"""`peftsearch frontier`: the best configuration at every tuned percentage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peftsearch.cli.open_study import open_folder, studies_flag
from peftsearch.cli.options import Json, StudiesFolder, StudyName
from peftsearch.cli.terminal.console import print_json, print_line, print_table
from peftsearch.errors import NothingFeasible
from peftsearch.wording import counted

if TYPE_CHECKING:
    from peftsearch.records.folder import StudyFolder
    from peftsearch.records.records import StudyRecord

__all__ = ["frontier", "print_frontier"]


def frontier(study: StudyName, studies: StudiesFolder = None, json: Json = False) -> None:
    """Print the best configuration at every tuned percentage."""
    from peftsearch.study.read_study import read_study

    folder = open_folder(study, studies)
    record = read_study(folder)
    if not any(result.state == "full" for result in record.results):
        raise NothingFeasible(
            f"study '{study}' has no configuration at full length yet; "
            f"see: peftsearch status {study}"
        )
    print_frontier(folder, record, json)


def print_frontier(folder: StudyFolder, record: StudyRecord, as_json: bool) -> None:
    """Print the frontier as a table, the path of the report, and a command to export a point."""
    from peftsearch.records.derive import frontier_document
    from peftsearch.records.serving import grouped_by_serving

    document = frontier_document(record)
    if as_json:
        print_json("frontier", document | {"report": str(_shown(folder.report_path))})
        return
    by_number = {result.number: result for result in record.results}
    metric, reference = record.info.metric, document["hypervolume_reference"]
    rows = [
        (
            f"#{point['number']}",
            f"{point['tuned_pct']:.3g}",
            f"{point['tuned_parameters']:,}",
            metric.format(point["metric"], point["metric_se"]),
            _described(point),
        )
        for point in document["points"]
    ]
    print_table(("trial", "tuned %", "tuned", metric.name, "configuration"), rows)
    print_line()
    print_line(
        f"hypervolume {document['hypervolume']:.4f} (of 1; tuned % from {reference['lo_pct']:g} "
        f"to {reference['hi_pct']:g}, {metric.name} from "
        f"{metric.format(reference['worst'])} to {reference['best']:g}), "
        f"{counted(document['counts']['evaluated'], 'configuration')} evaluated"
    )
    served = grouped_by_serving(by_number[point["number"]] for point in document["points"])
    if served:
        print_line(f"served as {served}")
    if folder.report_path.exists():
        print_line(f"report: {_shown(folder.report_path)}")
    best = document["points"][-1]["number"]
    place = studies_flag(folder)
    print_line(f"export: peftsearch export {folder.name} --at '#{best}' --to native OUT{place}")


def _described(point: Mapping[str, Any]) -> str:
    """Method, configuration, learning rates."""
    from peftsearch.records.rates import Rates

    rates = str(Rates(point["lr"], point["head_lr"], point["up_lr_ratio"]))
    named = point["method"] not in (None, point["description"])
    described = f"{point['method']}: {point['description']}" if named else point["description"]
    return f"{described}; {rates}" if rates else described


def _shown(path: object) -> str:
    """The path, relative to the working folder if that is shorter."""
    import os

    relative = os.path.relpath(str(path))
    return relative if not relative.startswith("..") else str(path)
