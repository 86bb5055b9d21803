r"""Reads the commands out of a Markdown file, as a reader would type them, and makes them small.

The convention: in a ```console block every line that begins with `$ ` is a command (a `\` at its
end joins the next line), other lines are output; a ```python block is a script. A block right
after `<!-- test: skip (REASON) -->` is not run.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

__all__ = ["Command", "readme_commands"]

_BLOCK = re.compile(
    r"^(?:<!-- test: skip \((?P<skip>[^\n]+)\) -->\n)?"
    r"```(?P<language>console|python)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_TIME_LIMITS = ("--minutes", "--hours")


@dataclass(frozen=True)
class Command:
    """A command line or a Python script; `skip` is the reason why it is not run."""

    kind: Literal["console", "python"]
    text: str
    skip: str | None = None

    @property
    def words(self) -> list[str]:
        """The command line as the shell splits it, comments left out."""
        return shlex.split(self.text, comments=True)

    def made_small(self, model: str, trials: int = 3) -> list[str]:
        """The words on a tiny model, with `trials` to search instead of hours (two more after a
        resume): as much work on a slow machine as on a fast one.
        """
        trials += 2 * ("--resume" in self.words)
        small = self.words
        for index, word in enumerate(small[:-1]):
            if word == "--model":
                small[index + 1] = model
            elif word in _TIME_LIMITS:
                small[index : index + 2] = ["--trials", str(trials)]
        return small


def readme_commands(text: str) -> list[Command]:
    """Every command and script of a Markdown text, in order."""
    return [
        Command(block["language"], body, block["skip"])  # type: ignore[arg-type]
        for block in _BLOCK.finditer(text)
        for body in _bodies(block["language"], block["body"])
    ]


def _bodies(language: str, body: str) -> list[str]:
    if language == "python":
        return [body]
    joined = body.replace("\\\n", " ")
    return [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]
