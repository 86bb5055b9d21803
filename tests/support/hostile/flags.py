"""Command lines that are spoilt: every option of every command with every kind of bad value."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import typer

from peftsearch.cli.main import app
from support.hostile.case import Case
from support.hostile.mutate import HOSTILE_TEXTS, NUMBERS, ODD_NAMES, misspelt
from support.hostile.world import World

__all__ = ["flag_case", "name_case"]


def flag_case(draw: random.Random, world: World, folder: Path) -> Case:
    """A good command line with one to three things wrong in it."""
    (folder / "studies").mkdir()
    world.copy_study(folder / "studies")
    (folder / "a-file").write_text("x")
    (folder / "a-folder").mkdir()
    words = list(draw.choice(_good(world)))
    for _ in range(draw.choice((1, 1, 2, 3))):
        words = _changed(draw, words)
    return Case(folder, _sayable(words), "flags")


def _good(world: World) -> list[list[str]]:
    search = ["search", str(world.space), "--model", str(world.bert), "--train"]
    search += [str(world.data["csv"]), "--study", "s", "--trials", "1"]
    return [
        search,
        search,
        [*search, "--dry-run"],
        ["search", "--study", "good", "--resume", "--trials", "6"],
        ["worker", "good", "--trials", "6"],
        ["launch", "ray", "good", "--workers", "1"],
        ["status", "good"],
        ["frontier", "good"],
        ["report", "good"],
        ["export", "good", "OUT"],
        ["export", "good", "OUT.yaml", "--to", "recipe", "--at", "best"],
        ["train", str(world.recipe), "--to", "OUT"],
        ["predict", str(world.export), "a text"],
        ["predict", str(world.export), "--file", str(world.data["csv"])],
        ["ls", "studies"],
        ["ls", "methods", "--model", "config:bert-base-uncased"],
        ["show", "demo"],
        ["show", f"good#{world.best}"],
        ["check", str(world.space)],
        ["doctor"],
    ]


@cache
def _options(command: str) -> list[tuple[str, bool]]:
    """Every option of a command or those below it, and whether it takes a value."""
    group: Any = typer.main.get_command(app)
    own = group.commands[command]
    found = []
    for parameter in (p for c in (own, *getattr(own, "commands", {}).values()) for p in c.params):
        takes = not getattr(parameter, "is_flag", False)
        found += [(name, takes) for name in parameter.opts if name.startswith("-")]
    return [option for option in found if option[0] != "--families"]  # right, and slow


def _changed(draw: random.Random, words: list[str]) -> list[str]:
    words = list(words)
    action = draw.random()
    if action < 0.5 and words and words[0] in _COMMANDS:
        option, takes = draw.choice(_options(words[0]))
        return [*words, option, *([_value(draw)] if takes else [])]
    at = draw.randrange(1, len(words)) if len(words) > 1 else 0
    if action < 0.75 and len(words) > 1:
        words[at] = _value(draw)
    elif action < 0.8 and words:
        del words[at]
    elif action < 0.85 and words:
        words[at] = misspelt(draw, words[at])
    elif action < 0.9:
        words.insert(at, _value(draw))
    elif action < 0.95:
        words.append(
            draw.choice(("--", "-", "--help", "--version", "-h", "-x", "--no-such", "--="))
        )
    else:
        words += words[at:]
    return words


_COMMANDS = (
    *("search", "status", "frontier", "report", "export", "train", "predict", "ls", "show"),
    *("check", "doctor", "worker", "launch"),
)


def _value(draw: random.Random) -> str:
    things = draw.choice((HOSTILE_TEXTS, ODD_NAMES, NUMBERS, _NAMES))
    return str(draw.choice(things))


_NAMES = (
    *(
        "a-file",
        "a-folder",
        "a-folder/x/y",
        "a-file/x",
        "nope",
        "nope.csv",
        "OUT",
        "good",
        "good#0",
    ),
    *("good#x", "#", "best", "demo:tweets", "demo:nope", "owner/name", "owner/name:config", "meta"),
    *("cuda", "cuda:99", "cpu:0", "mps", "accuracy", "f1", "rouge1", "seq2seq", "causal", "native"),
    *("peft", "en,ro", "a,b,c", ",", "space.yaml", "demo", "unified", "lora", "config:t5-base"),
    *(
        "config:nope",
        "rows",
        "activations",
        "https://example.org/plotly.js",
        '"><script>',
        "studies",
    ),
)


def _sayable(words: list[str]) -> list[str]:
    """What an operating system can hand over: no NUL."""
    return [word.replace("\0", "")[:100_000] for word in words]


def name_case(draw: random.Random, world: World, folder: Path) -> Case:
    """A name of a study that must not become a folder, in every command that takes one."""
    name = draw.choice([odd for odd in ODD_NAMES if "\0" not in odd])
    if draw.random() < 0.3:
        name = draw.choice(("../", "/", "./", "\x1b", "..\\")) + draw.choice(HOSTILE_TEXTS)
        name = name.replace("\0", "")
    search = ["search", str(world.space), "--model", str(world.bert)]
    search += ["--train", str(world.data["csv"]), f"--study={name}", "--trials", "1"]
    words = draw.choice(
        (
            *(search, search, ["search", f"--study={name}", "--resume"]),
            *([command, "--", name] for command in ("status", "frontier", "report")),
            ["export", "--", name, "OUT"],
            ["show", "--", f"{name}#0"],
        )
    )
    return Case(folder, words, "a study's name", refused=True)
