"""`peftsearch predict`: predictions of an exported model for texts or a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from peftsearch.cli.options import Json, TextColumns
from peftsearch.cli.terminal.console import print_json, print_line, print_note
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftsearch.export.native import LoadedModel
    from peftsearch.task.spec import ReadColumns

__all__ = ["predict"]

_BY_EXTENSION = "none"
"""The value of --separator for the default of the extension."""
_MARKS = {"\t": "a tab", " ": "the first space"}


def predict(
    model: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder of a native export.")],
    texts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[TEXT]...", help="Texts (default: lines of standard input)."),
    ] = None,
    file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--file", metavar="FILE", help="A data file in any format that search reads."),
    ] = None,
    text: TextColumns = None,
    header: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            "--header/--no-header",
            help="Whether the first line names the columns (default: as in training, for files "
            "with the same extension).",
        ),
    ] = None,
    separator: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="C",
            help="Column separator; none: by the extension (default: as in training, for files "
            "with the same extension).",
        ),
    ] = None,
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="Path of the backbone, if it was moved."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    json: Json = False,
) -> None:
    """Print one prediction per line: a label, labels separated by commas, a number, or a text."""
    from peftsearch.export.package import Package

    if file is not None and texts:
        raise UsageError("give texts or --file, not both")
    if file is None:
        _refuse_options_of_files({"--text": text, "--header": header, "--separator": separator})
    if file is not None:
        package = Package.read(model)
        read = _reading(file, package.reading, header, separator)
        inputs, pairs = _from_file(file, text or (), read, package.output == "texts")
    else:
        inputs, pairs = _given(texts), None
    for number, one in enumerate(inputs, 1):
        _refuse_broken(number, one)
    from peftsearch.backbone.device import use_device
    from peftsearch.export.native import load  # seconds, of importing torch

    use_device(device)
    loaded = load(model, device, backbone)
    if json:
        print_json("predictions", {"predictions": _detailed(loaded, inputs, pairs)})
        return
    for predicted in loaded.predict(inputs, pairs):
        print_line(_line(predicted))


def _refuse_options_of_files(said: Mapping[str, object]) -> None:
    for flag, value in said.items():
        if value is not None and value != []:
            flag = "--no-header" if value is False else flag
            raise UsageError(f"{flag} applies only to files: give --file, or leave it out")


def _line(predicted: str | list[str] | float) -> str:
    """A prediction on one line, also where a text has several."""
    if isinstance(predicted, list):
        predicted = ", ".join(predicted)
    return " ".join(predicted.split()) if isinstance(predicted, str) else str(predicted)


def _refuse_broken(number: int, text: str) -> None:
    """UsageError for text that is not UTF-8: Python reads such bytes as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"text {number} is not UTF-8: {text[:60]!r}") from None


def _given(texts: list[str] | None) -> list[str]:
    """Texts from the command line, or all lines of standard input. Empty lines are kept, so that
    line n of the output belongs to line n of the input.
    """
    if texts:
        return list(texts)
    if sys.stdin.isatty():
        raise UsageError("nothing to predict: give texts, --file, or lines on standard input")
    return [line.rstrip("\n") for line in sys.stdin]


def _reading(
    file: str, trained: ReadColumns, header: bool | None, separator: str | None
) -> ReadColumns:
    """Header and separator of a file: the user's options; else those of the training file, if the
    extensions are equal, with a note; else the defaults of the extension.
    """
    from peftsearch.api.request import separator_of
    from peftsearch.task.rows.compressed import suffix_of
    from peftsearch.task.spec import ReadColumns

    alike = suffix_of(file) == trained.suffix and separator != _BY_EXTENSION
    said = None if separator in (None, _BY_EXTENSION) else separator_of(str(separator))
    inherited = trained if alike else ReadColumns()
    own_header = inherited.header if header is None else header
    notes = []
    if header is None and not own_header:
        notes.append("without a header line (--header if it has one)")
    if said is None and inherited.separator is not None:
        mark = _MARKS.get(inherited.separator, f"'{inherited.separator}'")
        notes.append(f"with columns separated by {mark} (--separator {_BY_EXTENSION} if not)")
    if notes:
        print_note(f"{Path(file).name}: read like the training file, {' and '.join(notes)}")
    return trained.model_copy(
        update={"header": own_header, "separator": said or inherited.separator}
    )


def _from_file(
    file: str, columns: Sequence[str], read: ReadColumns, writes: bool
) -> tuple[list[str], list[str] | None]:
    """The texts of a file, built as in training unless columns are named; and the second texts of
    pairs.
    """
    from peftsearch.task.prompts import columns_to_predict, joined_texts
    from peftsearch.task.rows.columns import text_column
    from peftsearch.task.rows.files import read_rows

    rows = read_rows(file, read.header, read.separator)
    for note in rows.notes:
        print_note(note)
    names, within = columns_to_predict(rows, columns, read, writes)
    if read.text and names != read.text and not columns:
        learned = _quoted(read.text)
        print_note(f"{rows.name}: reading {_quoted(names)}, but the model was trained on {learned}")
    if writes:
        return joined_texts(rows, names, within), None
    found = [text_column(rows, name) for name in names]
    return found[0], found[1] if len(found) > 1 else None


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _detailed(
    loaded: LoadedModel, texts: list[str], pairs: list[str] | None
) -> list[dict[str, object]]:
    """Predictions, with the probability of each label where labels are predicted."""
    if loaded.package.output in ("texts", "values"):
        found = zip(texts, loaded.predict(texts, pairs), strict=True)
        return [{"text": text, "prediction": value} for text, value in found]
    key = "labels" if loaded.package.output == "label sets" else "label"
    predicted, probabilities = loaded.scores(texts, pairs)
    return [
        {"text": text, key: value, "probabilities": shares}
        for text, value, shares in zip(texts, predicted, probabilities, strict=True)
    ]
