"""A YAML file that knows its lines: strict reading for people who make typing errors.

ruamel.yaml, because PyYAML reads `1e-4` as text and keeps the last of two equal keys silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from peftsearch.errors import SpaceError, did_you_mean
from peftsearch.space.file.aliases import MOST_VALUES, values_in
from peftsearch.wording import first_problem

__all__ = ["Document", "dump_yaml"]

M = TypeVar("M", bound=BaseModel)


class Document:
    """Parsed YAML and where each of its keys stands."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self.tree = self._parse()

    @classmethod
    def read(cls, path: Path) -> Document:
        try:
            raw = path.read_bytes()
            return cls(str(path), raw.decode())
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise SpaceError(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from error
        except OSError as error:
            raise SpaceError(f"{path}: cannot be read ({error.strerror})") from error

    def _parse(self) -> CommentedMap:
        try:
            tree = YAML(typ="rt").load(self.text)
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            what = " ".join(str(error.problem or "not valid YAML").split())
            raise SpaceError(f"{self.name}:{line}: {what}") from error
        except TypeError as error:  # ruamel's own check of keys for hashability is incomplete
            message = "a list or a mapping stands where a key was expected"
            raise SpaceError(f"{self.name}:{_line_of_odd_key(self.text)}: {message}") from error
        except MemoryError:
            raise
        except Exception as error:  # ruamel trips over more than it tells, as a merge with itself
            what = " ".join(str(error).split())
            raise SpaceError(f"{self.name}:1: not valid YAML ({what})") from error
        if not isinstance(tree, CommentedMap):
            raise SpaceError(f"{self.name}:1: a mapping of keys was expected at the top")
        values = values_in(tree)
        if values is None or values > MOST_VALUES:
            holds = "itself" if values is None else f"more than {MOST_VALUES:,} values"
            raise SpaceError(f"{self.name}:1: through its aliases it holds {holds}: write it out")
        return tree

    def line(self, path: Sequence[str | int]) -> int:
        """The line (from 1) of the deepest part of `path` that exists."""
        node: Any = self.tree
        line = 1
        for part in path:
            try:
                if isinstance(node, CommentedMap):
                    line = node.lc.key(part)[0] + 1
                elif isinstance(node, CommentedSeq):
                    line = node.lc.item(part)[0] + 1
                else:
                    return line
                node = node[part]
            except (KeyError, IndexError, TypeError, AttributeError):
                return line
        return line

    def error(self, path: Sequence[str | int], message: str) -> SpaceError:
        """`file:line: key: message`."""
        key = ".".join(str(part) for part in path)
        sentence = " ".join(f"{key + ': ' if key else ''}{message}".split())
        return SpaceError(f"{self.name}:{self.line(path)}: {sentence}")

    def validated(self, model: type[M]) -> M:
        """The document as a pydantic model; the first problem becomes a SpaceError."""
        try:
            return model.model_validate(_plain(self.tree))
        except ValidationError as error:
            raise self._explained(model, error) from error

    def _explained(self, model: type[BaseModel], error: ValidationError) -> SpaceError:
        problem = first_problem(error)
        path, message = problem.path, problem.message
        if problem.kind == "extra_forbidden":
            known = _fields_at(model, path[:-1])
            return self.error(path, f"unknown key{did_you_mean(str(path[-1]), known)}")
        if problem.kind == "missing":
            return self.error(path[:-1], f"key '{path[-1]}' is missing")
        return self.error(path, message[:1].lower() + message[1:])


def _line_of_odd_key(text: str) -> int:
    """The line (from 1) of the first key that is no scalar."""
    waiting = [YAML(typ="rt").compose(text)]
    odd = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, MappingNode):
            odd += [key for key, _ in node.value if not isinstance(key, ScalarNode)]
            waiting += [value for _, value in node.value]
        elif isinstance(node, SequenceNode):
            waiting += node.value
    return min((int(key.start_mark.line) + 1 for key in odd), default=1)


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """The keys allowed at a path of nested models (dictionary keys are skipped)."""
    current: Any = model
    for part in path:
        fields = getattr(current, "model_fields", {})
        by_alias = {(f.alias or n): f for n, f in fields.items()}
        annotation = by_alias[part].annotation if part in by_alias else current
        current = next((a for a in _models_in(annotation)), current)
    return [f.alias or n for n, f in getattr(current, "model_fields", {}).items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]


def _plain(node: Any) -> Any:
    """ruamel's types to plain ones, floats and integers kept apart from booleans."""
    if isinstance(node, CommentedMap):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, float):
        return float(node)
    if isinstance(node, int):
        return int(node)
    return str(node) if isinstance(node, str) else node


def dump_yaml(data: Any) -> str:
    """Plain data as YAML text."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 100
    stream = StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()
