"""docs/families.md, written from what the matrix finds: `python -m support.families_page`.

Run, it does every check of every cell; the tests, which do the same one by one, only compare the
page that their passing would give.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from peftsearch.backbone.families import FAMILIES
from peftsearch.design.place import PLACES, Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from support.families import REFUSED, TINY, backbone_of, tiny_lm
from support.matrix import CHECKS, failures, refusal
from support.points import OPTIONS, POINT_NAMES, point, title

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
Failures = Callable[[str, str], list[str]]
"""(family, check) → `method: what is wrong`, as `matrix.failures`."""
_KINDS = {"enc_self": "encoder", "dec_self": "decoder", "cross": "cross"}


def page(failing: Failures = lambda family, check: []) -> str:
    """The whole page; without an argument, as it is when every check of the matrix passes."""
    return "\n".join([_head(), _meaning(), _table(failing), _families(), _others()])


def _head() -> str:
    return """# What works on which family

`make families` writes this page from the checks that `tests/backbone/oracles/test_matrix.py` runs
on tiny random models, one of each model type; do not edit it.
"""


def _meaning() -> str:
    lines = [
        "## What ✓ means",
        "",
        "A ✓ means that all of these checks passed, in fp64 unless stated otherwise:",
        "",
    ]
    for name, check in CHECKS.items():
        text = " ".join((inspect.getdoc(check) or "").split())
        lines.append(f"- **{name.replace('_', ' ')}**: {text[0].lower()}{text[1:]}")
    trained = "“Trained” means: with every tuned tensor moved from its initial value at random."
    return "\n".join([*lines, "", trained, ""])


def _table(failing: Failures) -> str:
    """Methods × families; families with the same cells share a column."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for row in _rows():
        (column,) = {_column(family, failing) for family in _tiny_of(row)}
        columns.setdefault(column, []).append(row)
    letters = [chr(ord("A") + index) for index in range(len(columns))]
    legend = [
        f"- **{letter}**: {'; '.join(rows)}"
        for letter, rows in zip(letters, columns.values(), strict=True)
    ]
    head = ["method or option", "name", *letters]
    lines = [_line(head), _line(["---", "---", *(":-:" for _ in letters)])]
    notes: dict[str, int] = {}
    for index, method in enumerate(POINT_NAMES):
        cells = [_numbered(column[index], notes) for column in columns]
        name = "–" if method in OPTIONS else f"`{method}`"
        lines.append(_line([title(method), name, *cells]))
    listed = [f"{number}. {reason}" for reason, number in notes.items()]
    said = "Refused before anything is trained, with these messages:"
    head_line = "## Methods × families"
    return "\n".join([head_line, "", *legend, "", *lines, "", said, "", *listed, ""])


def _column(family: str, failing: Failures) -> tuple[str, ...]:
    """For each method ✓, the checks that fail, or the reason why the family cannot take it."""
    failed = _by_method(family, failing)
    cells = []
    for method in POINT_NAMES:
        reason = refusal(family, method)
        if method in failed:
            cells.append(f"✗ {', '.join(failed[method])}")
        else:
            shapes = backbone_of(family).shapes
            cells.append("✓" if reason is None else _plain(reason, method, shapes))
    return tuple(cells)


def _numbered(cell: str, notes: dict[str, int]) -> str:
    """A reason as the number of its note."""
    if cell[0] in "✓✗":
        return cell
    return f"– ({notes.setdefault(cell, len(notes) + 1)})"


def _by_method(family: str, failing: Failures) -> dict[str, list[str]]:
    """Checks that fail, by method."""
    found: dict[str, list[str]] = {}
    for check in CHECKS:
        for line in failing(family, check):
            found.setdefault(line.split(":")[0], []).append(check.replace("_", " "))
    return found


def _plain(reason: str, method: str, shapes: BackboneShapes) -> str:
    """A refusal without the modification and the family that it names."""
    for modification in point(method, shapes).modifications:
        reason = reason.removeprefix(f"{modification.describe()}: ")
    return reason.replace(shapes.family, "*family*")


def _families() -> str:
    head = "family | model types | attention | norms | ffn | biases | output layer | lacks".split(
        " | "
    )
    lines = ["## Families", "", _line(head), _line(["---"] * len(head))]
    lines += [_line(_family_line(row)) for row in _rows()]
    places = ", ".join(f"`{name}`" for name in PLACES)
    return "\n".join(
        [
            *lines,
            "",
            f"The places are {places}; a family has all but those it lacks.",
            "Biases: “some dead” where key biases shift all logits by the same amount and get no "
            "gradient; the place `biases` leaves them out.",
            "Output layer: whether a language model of the family shares it with the token "
            "embeddings by default.",
            "",
            *_notes(),
            "",
        ]
    )


def _family_line(row: str) -> list[str]:
    names = _tiny_of(row)
    family, shapes = backbone_of(names[0]).family, backbone_of(names[0]).shapes
    kinds = dict.fromkeys(_KINDS[a.kind] for a in shapes.attention)
    types = dict.fromkeys(TINY[name].model_type for name in names)
    model = tiny_lm(names[0])
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    return [
        row,
        ", ".join(f"`{name}`" for name in types),
        ", ".join(kinds),
        "before" if family.pre_norm else "after",
        "gated" if all(f.gated for f in shapes.ffn) else "plain",
        _biases([backbone_of(name).shapes for name in names]),
        "shared" if shared else "its own",
        ", ".join(f"`{name}`" for name in PLACES if not _has(name, shapes)) or "–",
    ]


def _biases(of_each: list[BackboneShapes]) -> str:
    """Whether it has biases, and whether all of them get a gradient."""
    biases = [tensor for shapes in of_each for tensor in shapes.tensors if tensor.is_bias]
    dead = any(tensor.live < tensor.parameters for tensor in biases)
    return "none" if not biases else "some dead" if dead else "all live"


def _has(place: str, shapes: BackboneShapes) -> bool:
    try:
        Place((place,)).within(shapes)
    except ConfigurationError:
        return False
    return True


def _notes() -> list[str]:
    """What the rows' notes say."""
    lines = []
    for row in _rows():
        family = backbone_of(_tiny_of(row)[0]).family
        said = [family.note] if family.note else []
        if family in FAMILIES and not family.sums_attention:
            said.append("the outputs of attention and ffn are added to the stream in one sum")
        lines += [f"- {row}: {'; '.join(said)}"] if said else []
    return lines


def _others() -> str:
    recognised = [f"`{name}`" for name, tiny in TINY.items() if " (as " in tiny.row]
    refused = [f"`{name}`" for name in REFUSED]
    return f"""## Other model types

A model type that is not in the table is compared with every row's layout, module by module. What
fits is used with a note, as {_listed(recognised)} are here.
Anything else is refused with the reason, as {_listed(refused)} are.
A new family is one row of [`peftsearch/backbone/families.py`](../peftsearch/backbone/families.py).
"""


def _rows() -> tuple[str, ...]:
    """Names of rows, in the order of the table, and after them what is only recognised."""
    known = dict.fromkeys(row.name for row in FAMILIES)
    return tuple(known | dict.fromkeys(tiny.row for tiny in TINY.values()))


def _tiny_of(row: str) -> list[str]:
    return [name for name, tiny in TINY.items() if tiny.row == row]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def main() -> None:
    def told(family: str, check: str) -> list[str]:
        found = failures(family, check)
        print(f"{family}, {check}: {'; '.join(found) or 'passed'}", file=sys.stderr)
        return found

    PAGE.write_text(page(told), encoding="utf-8")


if __name__ == "__main__":
    main()
