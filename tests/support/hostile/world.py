"""Good inputs of every kind, made once: what the bad ones are spoilt copies of."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from ruamel.yaml import YAML

from support.hostile import here
from support.tiny import build_tiny_bart, build_tiny_bert, copying_rows, sentiment_rows, write_csv

__all__ = ["SPACE", "World"]

SPACE = """schema: 1
title: a small space
budgets: {tuned_pct: {log: [0.5, 20]}, max_steps: 4, rungs: [0.5, 1], rung_examples: 8}
places:
  attn: {at: [query+value, heads], layers: [all, last]}
  ffn: {at: [out]}
choices:
  attn: {form: [none, linear, prefix], composition: [add, gated, {scaled: {s: [2, 4]}}]}
  ffn: {form: [none, relu]}
train: {batch_size: 8, lr: {log: [1e-3, 1e-1]}}
head: {pooling: mean}
seed_with: [head-only-mean, {method: lora, tuned_pct: 5}]
"""


@dataclass(frozen=True)
class World:
    """Folder of models, data, a study that was searched, its exports and a recipe. What is there
    already is used again, so that a case can be repeated byte for byte.
    """

    root: Path

    @cached_property
    def bert(self) -> Path:
        """Encoder: two layers of width 32."""
        return self._once("bert", build_tiny_bert)

    @cached_property
    def bart(self) -> Path:
        """Encoder-decoder that writes."""
        return self._once("bart", build_tiny_bart)

    @cached_property
    def space(self) -> Path:
        path = self.root / "space.yaml"
        path.write_text(SPACE)
        return path

    @cached_property
    def space_tree(self) -> Any:
        return _loaded(SPACE)

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        return sentiment_rows(40)

    @cached_property
    def data(self) -> dict[str, Path]:
        """The same rows as a file of each format, and as a folder of save_to_disk."""
        folder = self._once("data", self._write_data)
        paths = {ext: folder / f"d.{ext}" for ext in ("csv", "tsv", "json", "jsonl", "parquet")}
        return paths | {"saved": folder / "saved"}

    @cached_property
    def parallel(self) -> tuple[str, str]:
        """Two texts, a line each."""
        rows = copying_rows(40)
        texts = "".join(row["source"] + "\n" for row in rows)
        return texts, "".join(row["answer"] + "\n" for row in rows)

    @cached_property
    def study(self) -> Path:
        """`studies/good`, with a few finished trials and one that can be continued."""
        return self._once("studies/good", self._search)

    @cached_property
    def best(self) -> int:
        """Number of the trial of full length that modifies most."""
        results = [json.loads(p.read_text()) for p in self.study.glob("trials/*/result.json")]
        full = [result for result in results if result["state"] == "full"]
        return int(max(full, key=lambda r: len(r["configuration"]["modifications"]))["number"])

    @cached_property
    def export(self) -> Path:
        """A native export of it."""
        return self._once("native", lambda out: self._export(out, "native"))

    @cached_property
    def recipe(self) -> Path:
        return self._once("recipe.yaml", lambda out: self._export(out, "recipe"))

    @cached_property
    def recipe_tree(self) -> Any:
        return _loaded(self.recipe.read_text())

    def copy_study(self, studies: Path) -> Path:
        """A copy to spoil."""
        return Path(shutil.copytree(self.study, studies / "good"))

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.root / name
        if not path.exists():
            make(path)
        return path

    def _write_data(self, folder: Path) -> None:
        folder.mkdir()
        table = pd.DataFrame(self.rows)
        write_csv(folder / "d.csv", self.rows)
        table.to_csv(folder / "d.tsv", sep="\t", index=False)
        (folder / "d.json").write_text(json.dumps(self.rows))
        (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        table.to_parquet(folder / "d.parquet")
        datasets.Dataset.from_list(self.rows).save_to_disk(folder / "saved")

    def _search(self, study: Path) -> None:
        """Four trials, and a fifth that is stopped at its fourth step, after a rung."""
        words = ["search", "--study", study.name, "--studies", str(study.parent)]
        new = [str(self.space), "--model", str(self.bert), "--train", str(self.data["csv"])]
        _done([*words, *new, "--trials", "4"])
        asked = itertools.count()
        _done([*words, "--resume", "--trials", "5"], stop=lambda: next(asked) > 3)

    def _export(self, out: Path, to: str) -> None:
        words = ["export", "good", str(out), "--to", to, "--at", f"#{self.best}"]
        _done([*words, "--studies", str(self.study.parent)])


def _done(words: list[str], stop: Callable[[], bool] = lambda: False) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert here.run(words, stop) == 0


def _loaded(text: str) -> Any:
    return YAML(typ="safe").load(text)
