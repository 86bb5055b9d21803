"""What modules may import, where import-linter's contracts cannot say it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage

import peftsearch

PACKAGE = Path(peftsearch.__file__).parent
FRAMEWORKS = ("torch", "transformers", "datasets")

IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module("peftsearch.{room}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(sorted(set({heavy}) & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("room", "heavy"),
    [
        ("policy", FRAMEWORKS),
        ("records", (*FRAMEWORKS, "optuna", "pandas")),
        ("frontier", (*FRAMEWORKS, "optuna", "pandas")),
    ],
)
def test_what_needs_no_framework_imports_none(room: str, heavy: tuple[str, ...]) -> None:
    code = IMPORT_ALL.format(room=room, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_optunas_private_names_are_touched_in_one_folder_alone() -> None:
    """Modules, classes and attributes that Optuna may change in any version."""
    theirs = private_attributes_of_optuna()
    assert {"_storage", "_study_id", "_trial_id", "_backend"} <= theirs
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in PACKAGE.rglob("*.py")
        if PACKAGE / "study" / "storage" not in path.parents
        for line, name in private_names(ast.parse(path.read_text(encoding="utf-8")), theirs)
    ]
    assert found == []


def private_attributes_of_optuna() -> set[str]:
    """Of studies, trials and their storages: names that their classes set or define."""
    classes = (optuna.Study, optuna.Trial, optuna.trial.FrozenTrial, JournalStorage, RDBStorage)
    found = set()
    for one in classes:
        found |= set(re.findall(r"\bself\.(_[a-z]\w*)", inspect.getsource(one)))
        found |= {name for name in vars(one) if re.fullmatch(r"_[a-z]\w*", name)}
    return found


def private_names(tree: ast.AST, theirs: set[str]) -> Iterator[tuple[int, str]]:
    """Imports of Optuna's private names, and uses of such attributes of other objects."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [one.name for one in node.names if one.name.startswith("optuna")]
            names = [part for module in modules for part in module.split(".")]
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node.value)
            is_theirs = node.attr in theirs and text not in ("self", "cls")
            names = [node.attr] if is_theirs or text.startswith("optuna.") else []
        yield from ((node.lineno, name) for name in names if name.startswith("_"))


def test_private_names_are_found_wherever_they_stand() -> None:
    code = """
from optuna.storages._rdb import models
from optuna.trial import _trial
import optuna._imports
study._storage.get_trial(trial._trial_id)
optuna.study._optimize
self._storage = own._kept
"""
    found = [line for line, _ in private_names(ast.parse(code), private_attributes_of_optuna())]
    assert sorted(found) == [2, 3, 4, 5, 5, 6]
