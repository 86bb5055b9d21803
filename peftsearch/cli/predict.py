"""`peftsearch predict`: labels, numbers or texts for texts, with an exported model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from peftsearch.cli.console import print_json, say, tell
from peftsearch.cli.options import Json, NoHeader, Separator, TextColumns
from peftsearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftsearch.export.native import LoadedModel
    from peftsearch.task.spec import ReadColumns

__all__ = ["predict"]


def predict(
    model: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder of a native export.")],
    texts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[TEXT]...", help="Texts; none: a line each from standard input."),
    ] = None,
    file: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--file", metavar="FILE", help="Of any kind that a search reads, a text a row."
        ),
    ] = None,
    text: TextColumns = None,
    no_header: NoHeader = False,
    separator: Separator = None,
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="Where the backbone lies now, if it moved."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    json: Json = False,
) -> None:
    """Print what is predicted of each text, one a line: a label, labels with commas between them, a
    number, or a text.
    """
    from peftsearch.export.native import load
    from peftsearch.export.package import Package

    if file is not None and texts:
        raise UsageError("give texts or --file, not both")
    if file is not None:
        package = Package.read(model)
        read = _reading(file, package.reading, no_header, separator)
        inputs, pairs = _from_file(file, text or (), read, package.output == "texts")
    else:
        inputs, pairs = _given(texts), None
    for number, one in enumerate(inputs, 1):
        _refuse_broken(number, one)
    loaded = load(model, device, backbone)
    if json:
        print_json("predictions", {"predictions": _detailed(loaded, inputs, pairs)})
        return
    for predicted in loaded.predict(inputs, pairs):
        tell(_line(predicted))


def _line(predicted: str | list[str] | float) -> str:
    """One line, whatever the text or the labels hold."""
    if isinstance(predicted, list):
        predicted = ", ".join(predicted)
    return " ".join(predicted.split()) if isinstance(predicted, str) else str(predicted)


def _refuse_broken(number: int, text: str) -> None:
    """A command line or standard input whose bytes are no UTF-8 has halves of characters in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"text {number} is not UTF-8: {text[:60]!r}") from None


def _given(texts: list[str] | None) -> list[str]:
    """The texts of the command line, or every line of standard input: an empty one, too, so that
    each prediction stands beside its line.
    """
    if texts:
        return list(texts)
    if sys.stdin.isatty():
        raise UsageError("nothing to predict: give texts, --file, or lines on standard input")
    return [line.rstrip("\n") for line in sys.stdin]


def _reading(
    file: str, trained: ReadColumns, no_header: bool, separator: str | None
) -> ReadColumns:
    """How a file is read: as that one was that the model was trained on, if it is of its kind."""
    from peftsearch.cli.asked import task_spec
    from peftsearch.task.compressed import suffix_of

    alike = suffix_of(file) == trained.suffix
    said = task_spec({} if separator is None else {"separator": separator}).separator
    inherited = {
        "header": not no_header and (trained.header or not alike),
        "separator": said or (trained.separator if alike else None),
    }
    return trained.model_copy(update=inherited)


def _from_file(
    file: str, columns: Sequence[str], read: ReadColumns, writes: bool
) -> tuple[list[str], list[str] | None]:
    """The texts of a file, made as those were that the model was trained on, unless columns are
    named; and the second texts of pairs.
    """
    from peftsearch.task.columns import text_column
    from peftsearch.task.files import read_rows
    from peftsearch.task.prompts import columns_to_predict, joined_texts

    rows = read_rows(file, read.header, read.separator)
    for note in rows.notes:
        say(note)
    names, within = columns_to_predict(rows, columns, read, writes)
    if read.text and names != read.text and not columns:
        learned = _quoted(read.text)
        say(f"{rows.name}: reads {_quoted(names)}, where the model learned from {learned}")
    if writes:
        return joined_texts(rows, names, within), None
    found = [text_column(rows, name) for name in names]
    return found[0], found[1] if len(found) > 1 else None


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _detailed(
    loaded: LoadedModel, texts: list[str], pairs: list[str] | None
) -> list[dict[str, object]]:
    if loaded.package.output == "label sets":
        return _detailed_sets(loaded, texts, pairs)
    if loaded.package.output != "labels":
        predicted = loaded.predict(texts, pairs)
        return [
            {"text": text, "prediction": value}
            for text, value in zip(texts, predicted, strict=True)
        ]
    shares = loaded.logits(texts, pairs).softmax(-1).tolist()
    return [
        {
            "text": text,
            "label": loaded.labels[max(range(len(row)), key=row.__getitem__)],
            "probabilities": dict(zip(loaded.labels, row, strict=True)),
        }
        for text, row in zip(texts, shares, strict=True)
    ]


def _detailed_sets(
    loaded: LoadedModel, texts: list[str], pairs: list[str] | None
) -> list[dict[str, object]]:
    """The labels of each text, and the probability of each label by itself."""
    logits = loaded.logits(texts, pairs)
    return [
        {
            "text": text,
            "labels": [label for label, value in zip(loaded.labels, own, strict=True) if value > 0],
            "probabilities": dict(zip(loaded.labels, shares, strict=True)),
        }
        for text, own, shares in zip(texts, logits.tolist(), logits.sigmoid().tolist(), strict=True)
    ]
