"""Data files that are spoilt, of every format, for `search` and `predict --file`."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.hostile.case import Case
from support.hostile.mutate import HOSTILE_TEXTS, NUMBERS, damaged, spoilt
from support.hostile.world import World

__all__ = ["table_case"]

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "saved", "parallel")


def table_case(draw: random.Random, world: World, folder: Path) -> Case:
    """A search over spoilt data, or predictions of them."""
    kind = draw.choice(FORMATS)
    if kind == "parallel":
        train = _parallel(draw, world, folder)
    elif kind == "saved":
        train = _saved(draw, world, folder)
    else:
        path = folder / draw.choice((f"d.{kind}", f"d.{kind}", f"\x1b[31md.{kind}", f"<b>.{kind}"))
        path.write_bytes(_content(draw, world, kind))
        train = path.name
    if draw.random() < 0.2 and kind != "parallel":
        words = ["predict", str(world.export), "--file", train]
        return Case(folder, words + _columns(draw, 0.3), f"data: {kind}")
    words = ["search", str(world.space), "--model", str(world.bert), "--study", "s"]
    side = draw.random()
    if side < 0.7:
        words += ["--train", train]
    else:
        words += ["--train", str(world.data["csv"]), "--eval" if side < 0.95 else "--test", train]
    return Case(folder, [*words, "--trials", "1", *_columns(draw, 0.25)], f"data: {kind}")


def _columns(draw: random.Random, share: float) -> list[str]:
    words: list[str] = []
    names = ("text", "label", "nope", "", "\x1b[31m", "te\nxt", "<b>", "Text", "1", "0")
    if draw.random() < share:
        words += ["--text", draw.choice(names)]
    if draw.random() < share / 2:
        words += ["--text", draw.choice(names)]
    return words


def _content(draw: random.Random, world: World, kind: str) -> bytes:
    if draw.random() < 0.45:
        return damaged(draw, world.data[kind].read_bytes())
    rows = _rows(draw, world)
    if kind == "json" and draw.random() < 0.3:
        return json.dumps(spoilt(draw, {"data": rows}), default=str).encode()
    return _WRITERS[kind](draw, rows)


def _rows(draw: random.Random, world: World) -> list[dict[str, Any]]:
    """The good rows, with one thing wrong about the whole table or some of its cells."""
    rows: list[dict[str, Any]] = [dict(row) for row in world.rows]
    for _ in range(draw.choice((1, 1, 2))):
        rows = draw.choice(_WRONGS)(draw, rows) if rows else rows
    return rows


def _one_class(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"label": draw.choice(("x", 1))} for row in rows]


def _cells(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    things = (*HOSTILE_TEXTS, *NUMBERS, [], {}, [1], {"a": "b"}, [["x"]], b"bytes")
    for _ in range(draw.choice((1, 5, 40))):
        row = draw.choice(rows)
        if row:
            row[draw.choice(list(row))] = draw.choice(things)
    return rows


def _one_thing(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    column, thing = draw.choice(("text", "label")), draw.choice((*HOSTILE_TEXTS, *NUMBERS))
    return [row | {column: thing} for row in rows]


def _renamed(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    old, new = draw.choice(("text", "label")), draw.choice(HOSTILE_TEXTS)
    return [{(new if key == old else key): value for key, value in row.items()} for row in rows]


def _few(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows[: draw.choice((0, 1, 2, 3, 5, 9))]


def _classes(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row a class, classes of one row, or classes with odd names."""
    names = draw.choice((list(map(str, range(40))), [*HOSTILE_TEXTS[:30]], list(range(-20, 20))))
    return [row | {"label": name} for row, name in zip(rows * 2, [*names, *names], strict=False)]


def _wide(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {f"c{i}": i for i in range(draw.choice((3, 400)))} for row in rows]


def _huge(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows[0]["text"] = draw.choice(("a ", "\0", "é", "\n", "'", "{")) * draw.choice(
        (10**4, 3 * 10**5)
    )
    return rows


def _missing(draw: random.Random, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row if draw.random() < 0.7 else dict(list(row.items())[:1]) for row in rows]


_WRONGS: tuple[Callable[[random.Random, list[dict[str, Any]]], list[dict[str, Any]]], ...] = (
    *(_one_class, _cells, _cells, _one_thing, _renamed, _few, _classes, _wide, _huge, _missing),
)


def _delimited(separator: str) -> Callable[[random.Random, list[dict[str, Any]]], bytes]:
    def write(draw: random.Random, rows: list[dict[str, Any]]) -> bytes:
        names = list(dict.fromkeys(name for row in rows for name in row))
        quoted = draw.random() < 0.7
        lines = [separator.join(map(_cell(quoted), names))]
        lines += [
            separator.join(_cell(quoted)(row.get(name, "")) for name in names) for row in rows
        ]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return write


def _cell(quoted: bool) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if quoted else text

    return write


def _json(draw: random.Random, rows: list[dict[str, Any]]) -> bytes:
    columns = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else {})}
    by_id = {str(number): row for number, row in enumerate(rows)}
    document = draw.choice((rows, {"data": rows}, by_id, columns, rows[:1] or 0, [rows]))
    return json.dumps(document, default=str, ensure_ascii=draw.random() < 0.5).encode()


def _json_lines(draw: random.Random, rows: list[dict[str, Any]]) -> bytes:
    lines: list[Any] = [*rows, *draw.choices((0, "x", [], None, {}, [1]), k=draw.choice((0, 0, 1)))]
    return "\n".join(json.dumps(line, default=str) for line in lines).encode()


def _parquet(draw: random.Random, rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        columns[name] = [row.get(name) for row in rows]
    made = {}
    for name, cells in columns.items():
        try:
            made[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            made[name] = pa.array([repr(cell) for cell in cells])
    target = io.BytesIO()
    try:
        pq.write_table(pa.table(made), target)
    except pa.ArrowException:
        return b"PAR1PAR1"
    return target.getvalue()


_WRITERS = {
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "json": _json,
    "jsonl": _json_lines,
    "parquet": _parquet,
}


def _saved(draw: random.Random, world: World, folder: Path) -> str:
    """A folder of save_to_disk with one of its files damaged, away or doubled."""
    made = Path(shutil.copytree(world.data["saved"], folder / "saved"))
    path = draw.choice(sorted(made.iterdir()))
    action = draw.randrange(4)
    if action == 0:
        path.unlink()
    elif action == 1 and path.suffix == ".json":
        tree = json.loads(path.read_text())
        path.write_text(json.dumps(spoilt(draw, tree)))
    elif action == 2:
        names = draw.choice((["train"], ["../saved"], [], {}, ["\x1b[31m"], ["train", "train"]))
        (made / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    else:
        path.write_bytes(damaged(draw, path.read_bytes()))
    return "saved"


def _parallel(draw: random.Random, world: World, folder: Path) -> str:
    """Two texts of lines, one or both damaged."""
    pair = [text.encode() for text in world.parallel]
    side = draw.randrange(2)
    pair[side] = damaged(draw, pair[side])
    for name, content in zip(("a.en", "a.ro"), pair, strict=True):
        (folder / name).write_bytes(content)
    return draw.choice(("a.en,a.ro", "a.en,a.ro", "a.en,", ",", "a.en,a.ro,a.en", "a.en,nope"))
