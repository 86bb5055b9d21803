"""Paths in a recipe or a space file: absolute, relative to the file, or to the working folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftsearch.paths import existing_files
from peftsearch.space.file.document import Document

__all__ = ["PathResolver"]

_Key = list[str | int]


@dataclass(frozen=True)
class PathResolver:
    """Absolute paths of the files that a document in `folder` names, looked for beside it and in
    the working folder. SpaceError for a name found in both; one found in neither is left as it is.
    """

    document: Document
    folder: Path

    def source(self, key: _Key, name: str | None) -> str | None:
        """The path of a model or a tokenizer. Only `./…`, `../…` and `~…` are looked for: any other
        name may be one of the Hub.
        """
        if name is None or not name.startswith((".", "~")):
            return name
        return self._only(key, name, existing_files(name, self.folder)) or name

    def data(self, key: _Key, name: str | None) -> str | None:
        """The path of a file or folder of data, or of two files of parallel text
        (`news.en,news.ro`).
        """
        if not name:
            return name
        whole = self._only(key, name, existing_files(name, self.folder))
        return whole or self._pair(key, name) or name

    def _pair(self, key: _Key, name: str) -> str | None:
        # A comma may belong to a name: the one that counts stands between two files that exist.
        for comma in (i for i, letter in enumerate(name) if letter == ","):
            names = (name[:comma].strip(), name[comma + 1 :].strip())
            found = [self._only(key, one, existing_files(one, self.folder)) for one in names if one]
            if len(found) == 2 and found[0] is not None and found[1] is not None:
                return f"{found[0]},{found[1]}"
        return None

    def _only(self, key: _Key, name: str, found: list[str]) -> str | None:
        if len(found) > 1:
            message = f"'{name}' means {found[0]} and {found[1]}: write the whole path"
            raise self.document.error(key, message)
        return found[0] if found else None
