"""Validation examples with the text that the study's best configuration generates."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from peftsearch.errors import UsageError
from peftsearch.records.folder import StudyFolder
from peftsearch.records.records import StudyRecord
from peftsearch.wording import first_problem

__all__ = ["Sample", "Samples", "samples_of_best"]

SHOWN = 8


class Sample(BaseModel):
    """One example of `trials/NNNNN/samples.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    reference: str
    prediction: str


class Samples(BaseModel):
    """Examples of one trial; none where the task is not to write text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    samples: tuple[Sample, ...]


_ADAPTER = TypeAdapter(tuple[Sample, ...])


def samples_of_best(folder: StudyFolder, record: StudyRecord) -> Samples | None:
    """Samples of the frontier's best point; None without a frontier or where none were written.

    Raises UsageError if the file is damaged.
    """
    front = record.front
    if not front:
        return None
    path = folder.trial(front[-1].number).samples_path
    try:
        found = _ADAPTER.validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        why = first_problem(error).message if isinstance(error, ValidationError) else error.strerror
        raise UsageError(
            f"{path}: cannot be read ({why}); delete it, and the report is written without examples"
        ) from error
    return Samples(number=front[-1].number, samples=found[:SHOWN]) if found else None
