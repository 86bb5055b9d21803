"""Space files that are spoilt: as bytes, as trees of the shipped ones, and as traps of YAML."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from peftsearch.space.file.document import dump_yaml
from peftsearch.space.file.shipped import shipped_spaces
from support.hostile.case import Case
from support.hostile.mutate import damaged, spoilt
from support.hostile.world import SPACE, World

__all__ = ["space_case", "yaml_of"]


def space_case(draw: random.Random, world: World, folder: Path) -> Case:
    """`check`, `show`, `search --dry-run` or `search` with a spoilt space."""
    path = folder / draw.choice(("space.yaml", "space.yaml", "s.yml", "space", "sp\x1b[31m.yaml"))
    path.write_bytes(_content(draw, world))
    name = str(path) if draw.random() < 0.5 else path.name
    model = draw.choice((*[str(world.bert)] * 6, "config:bert-base-uncased", "config:t5-base"))
    words = draw.choice(
        (
            ["check", name],
            ["check", name, "--model", model],
            ["show", name],
            ["show", name, "--json"],
            ["show", name, "--model", model],
            ["search", name, "--model", model, "--task", "demo:tweets", "--dry-run"],
            ["search", name, "--model", model, "--train", str(world.data["csv"]), "--dry-run"],
            ["search", name, "--model", str(world.bert), "--train", str(world.data["csv"])],
        )
    )
    return Case(folder, words, "a space")


def _content(draw: random.Random, world: World) -> bytes:
    kind = draw.random()
    text = SPACE
    if draw.random() < 0.2:
        text = draw.choice(list(shipped_spaces().values())).read_text(encoding="utf-8")
    if kind < 0.35:
        return damaged(draw, text.encode())
    if kind < 0.9:
        tree = world.space_tree if text == SPACE else YAML(typ="safe").load(text)
        return yaml_of(draw, spoilt(draw, tree))
    return _trap(draw).encode()


def yaml_of(draw: random.Random, tree: Any) -> bytes:
    """YAML, or the JSON that is YAML, of whatever can be written so."""
    try:
        text = dump_yaml(tree)
    except Exception:  # what ruamel cannot write is of no interest here
        text = repr(tree)
    return text.encode("utf-8", "surrogateescape")


def _trap(draw: random.Random) -> str:
    """Bombs, endless nesting, merges, tags, odd keys."""
    levels = draw.choice((3, 10, 30, 60))
    width = draw.choice((2, 9, 30))
    bomb = "l0: &l0 [x, y]\n" + "".join(
        f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * width)}]\n" for i in range(1, levels)
    )
    maps = "m0: &m0 {a: 1}\n" + "".join(
        f"m{i}: &m{i} {{{', '.join(f'k{j}: *m{i - 1}' for j in range(width))}}}\n"
        for i in range(1, levels)
    )
    deep = draw.choice((50, 500, 5_000, 100_000))
    head = SPACE.replace("title: a small space\n", "")
    return draw.choice(
        (
            SPACE + bomb,
            bomb + SPACE,
            head + bomb + f"title: *l{levels - 1}\n",
            head + maps + f"published: *m{levels - 1}\n",
            head + f"title: {'[' * deep}{']' * deep}\n",
            head + f"title: {'{a: ' * deep}1{'}' * deep}\n",
            head + "title: &t [*t]\n",
            head + "recommended: &r {task: *r}\n",
            SPACE + "<<: {title: x}\n",
            SPACE + "<<: [*x]\n",
            SPACE + "? [a, b]\n: 1\n",
            SPACE + "? {a: b}\n: 1\n",
            head + 'title: "\\e[31mred\\x9b2J\\0"\n',
            head + "title: !!python/object/apply:os.system ['touch owned']\n",
            head + "title: !!binary aGFsbG8=\n",
            head + "title: !!timestamp 2001-12-14\ntitle2: 2001-12-14\n",
            head + "title: 2001-12-14\n",
            head + "title: !!set {a, b}\n",
            head + "title: !<tag:x> y\n",
            head + f"title: {'9' * deep}\n",
            head + f"title: 0x{'f' * deep}\n",
            head + f"title: 1e{'9' * 20}\n",
            head + "title: 190:20:30\n",
            head + f"title: |\n{'  x' * deep}\n",
            SPACE + "---\n" + SPACE,
            SPACE + "title: twice\n",
            SPACE.replace(
                "[0.5, 20]", f"[1e-{draw.randint(1, 400)}, {draw.choice((20, 100, 1e9))}]"
            ),
            SPACE.replace("[0.5, 1]", "[" + ", ".join(str(i / 5000) for i in range(1, 5001)) + "]"),
            SPACE.replace("max_steps: 4", f"max_steps: {10 ** draw.randint(5, 30)}"),
            SPACE.replace(
                "max_steps: 4", f"epochs: {draw.choice(('1e-300', '1e300', '.nan', '.inf'))}"
            ),
            SPACE.replace("batch_size: 8", f"batch_size: {10 ** draw.randint(3, 30)}"),
            _wide(draw),
        )
    )


def _wide(draw: random.Random) -> str:
    """So many slots and choices that nobody can count them one by one."""
    slots = draw.choice((3, 12, 40))
    forms = "[none, linear, prefix, relu, silu, softmax, constant]"
    places = "".join(f"  s{i}: {{at: [query, key, value, heads, out]}}\n" for i in range(slots))
    choices = "".join(
        f"  s{i}: {{form: {forms}, composition: [add, gated]}}\n" for i in range(slots)
    )
    return SPACE.split("places:")[0] + f"places:\n{places}choices:\n{choices}"
