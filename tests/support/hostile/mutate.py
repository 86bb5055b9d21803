"""Spoiling good inputs: damaged bytes, and trees of JSON or YAML with wrong things in them.

Everything is drawn from the `random.Random` that is given, so that a seed repeats a case.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

__all__ = ["HOSTILE_TEXTS", "ODD_NAMES", "damaged", "misspelt", "spoilt"]

ESCAPES = ("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "\x9d0;x\x9c", "\x7f\x08\x08\r")
HTML = ("<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "<b>&amp;", "{{7*7}}")
PATHS = ("../x", "../../x", "/", ".", "..", "~", "~nobody/x", "a/b", "a\\b", "/dev/null", "NUL.txt")
HOSTILE_TEXTS = (
    *(
        "",
        " ",
        "\t",
        "\n",
        "\0",
        "-",
        "--",
        "#",
        "'",
        '"',
        "%s%n",
        "$HOME",
        "`id`",
        "{text}",
        "{0}",
    ),
    *("nan", "inf", "-1", "1e400", "0x10", "true", "null", "None", "[]", "{}", "é", "𝔘𝔫𝔦", "‮abc"),
    *(ESCAPES + HTML + PATHS),
    *("a" * 300, "a" * 70_000, "é" * 5_000),
)
"""Texts that something may take for something else."""
ODD_NAMES = (
    *(
        "../x",
        "../../x",
        "/abs",
        "x/../../y",
        ".",
        "..",
        "",
        " ",
        "-x",
        "a/b",
        "a\\b",
        "a\n",
        "a\0",
    ),
    *("\x1b[31mred", "\x9b2J", "é", "𝔘", "con", "NUL.txt", "x.", "x" * 101, "x" * 5000, "~", "*"),
    *("%2e%2e%2f", "<script>", "'; rm -rf x", "$(id)", "s\udcff", "a:b", ".hidden"),
)
"""Names of studies that must not become folders."""
NUMBERS = (
    *(0, -1, 1, 2, 0.5, -0.5, 1e-300, 1e300, -1e300, 1e18, 2**31, 2**32, 2**63, 2**64, -(2**63)),
    *(
        10**40,
        10**400,
        float("nan"),
        float("inf"),
        float("-inf"),
        1e-5,
        100,
        101,
        True,
        False,
        None,
    ),
)


def damaged(draw: random.Random, content: bytes) -> bytes:
    """One or a few things that happen to files."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(_DAMAGES)(draw, content)
    return content


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randint(0, max(0, len(content) - 1))]


def _head_cut(draw: random.Random, content: bytes) -> bytes:
    return content[draw.randint(0, len(content)) :]


def _flip(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 8, 64))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(draw: random.Random, content: bytes) -> bytes:
    at = draw.randint(0, len(content))
    return content[:at] + draw.randbytes(draw.choice((1, 4, 8, 100))) + content[at + 8 :]


def _insert(draw: random.Random, content: bytes) -> bytes:
    at = draw.randint(0, len(content))
    piece = draw.choice((*_PIECES, draw.choice(HOSTILE_TEXTS).encode("utf-8", "surrogateescape")))
    return content[:at] + piece + content[at:]


def _repeat(draw: random.Random, content: bytes) -> bytes:
    start = draw.randint(0, len(content))
    end = draw.randint(start, min(len(content), start + 2000))
    return content[:end] + content[start:end] * draw.choice((1, 2, 20)) + content[end:]


def _swap(draw: random.Random, content: bytes) -> bytes:
    at = draw.randint(0, len(content))
    return content[at:] + content[:at]


def _recoded(draw: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")))


def _bare(draw: random.Random, content: bytes) -> bytes:
    size = draw.choice((1, 20, 3000))
    return draw.choice((b"", b"\n", b"\0" * size, draw.randbytes(size), b" " * size, b"\n" * size))


def _line(draw: random.Random, content: bytes) -> bytes:
    """A line taken away, doubled, or put elsewhere."""
    lines = content.split(b"\n")
    chosen = draw.randrange(len(lines))
    action = draw.randrange(3)
    line = lines[chosen]
    if action != 1:
        del lines[chosen]
    if action != 0:
        lines.insert(draw.randint(0, len(lines)), line)
    return b"\n".join(lines)


def _ends(draw: random.Random, content: bytes) -> bytes:
    return content.replace(
        b"\n", draw.choice((b"\r\n", b"\r", b"\0", b"", b"\n\n", b"\xe2\x80\xa8"))
    )


def _number(draw: random.Random, content: bytes) -> bytes:
    """Digits replaced by another number."""
    places = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return _insert(draw, content)
    at = draw.choice(places)
    return content[:at] + str(draw.choice(NUMBERS)).encode() + content[at + 1 :]


_PIECES = (
    *(b"\0", b"\xff", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[2J", b"\xef\xbb\xbf", b"\t"),
    *(b'"', b"'", b"{", b"}", b"[" * 5000, b"," * 400, b"\n", b"\r", b": ", b"&a [*a]", b"<<: *a"),
    *(b"!!python/object/apply:os.system [id]", b"!!binary x", b"---\n", b"...\n", b"%YAML 9.9\n"),
)
_DAMAGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_cut, _cut, _head_cut, _flip, _flip, _overwrite, _insert, _insert, _repeat, _swap),
    *(_recoded, _bare, _line, _line, _ends, _number, _number),
)


def spoilt(draw: random.Random, tree: Any) -> Any:
    """A copy of a tree of dictionaries, lists and scalars with one to three wrong things in it."""
    made = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        made = _spoil_once(draw, made)
    return made


def _spoil_once(draw: random.Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places or draw.random() < 0.02:
        return _thing(draw)
    holder, key = draw.choice(places)
    action = draw.randrange(6)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[misspelt(draw, str(key))] = holder.pop(key)
    elif action == 2:
        holder[key] = draw.choice(([holder[key]], {"x": holder[key]}, [holder[key]] * 3))
    elif action == 3 and isinstance(holder, dict):
        holder[draw.choice((*HOSTILE_TEXTS[:-3], *map(str, holder)))] = _thing(draw)
    else:
        holder[key] = _thing(draw)
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting = [tree] if isinstance(tree, (dict, list)) else []
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    return found


def _thing(draw: random.Random) -> Any:
    kind = draw.randrange(4)
    if kind == 0:
        return draw.choice(NUMBERS)
    if kind == 1:
        return draw.choice(HOSTILE_TEXTS)
    if kind == 2:
        return copy.deepcopy(draw.choice(_TREES))
    return draw.choice(
        (draw.randint(-5, 5), draw.uniform(-2, 2), draw.choice(("all", "none", "add")))
    )


def _deep(levels: int) -> Any:
    tree: Any = 0
    for _ in range(levels):
        tree = [tree]
    return tree


_TREES: tuple[Any, ...] = (
    *([], {}, [[]], [{}], {"": ""}, [None], {"log": [1, 0]}, {"log": [0, 1]}, {"range": [1]}),
    *(
        {"log": [1e-300, 1e300]},
        {"range": [-1e300, 1e300]},
        {"choose": []},
        [1, 1],
        list(range(300)),
    ),
    *({"log": [0.5, 1], "range": [1, 2]}, _deep(40), _deep(300), {"a": {"b": {"c": {"d": {}}}}}),
    *({str(i): i for i in range(200)}, [True, "x", 1.5, None, {}], ["x"] * 50),
)


def misspelt(draw: random.Random, word: str) -> str:
    """A word with a letter too few, too many, or another."""
    at = draw.randint(0, max(0, len(word) - 1))
    return word[:at] + draw.choice(("", "x", "\x1b", " ", word[at : at + 1] * 2)) + word[at + 1 :]
