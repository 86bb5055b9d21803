"""Writing trials.csv: the trials as one flat table."""

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
are in the trial's folder.
"""


def derived_trials_csv(record: StudyRecord) -> str:
    """A header and a line for each finished trial; unknown values are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in record.results:
        flat = result.__dict__ | Rates.of(result.configuration).columns()
        writer.writerow([flat[column] for column in COLUMNS])
    return text.getvalue()
