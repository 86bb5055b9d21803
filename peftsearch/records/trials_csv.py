"""The trials as one flat table, for spreadsheets: derived from the results, rebuilt at any time."""

from __future__ import annotations

import csv
import io

from peftsearch.records.rates import Rates
from peftsearch.records.records import StudyRecord, TrialResult

__all__ = ["COLUMNS", "derived_trials_csv"]

COLUMNS = (
    *(
        name
        for name in TrialResult.model_fields
        if name not in ("schema_version", "configuration", "curve")
    ),
    *Rates().columns(),
)
"""Every flat field of a result and its learning rates; the rest of the configuration and the curve
stand in the trial's folder.
"""


def derived_trials_csv(record: StudyRecord) -> str:
    """One line a finished trial under a header; nothing known is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in record.results:
        flat = result.__dict__ | Rates.of(result.configuration).columns()
        writer.writerow([flat[column] for column in COLUMNS])
    return text.getvalue()
