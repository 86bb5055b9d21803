"""Folders of models that are spoilt: damaged, pickled, or with code of their own."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

from support.hostile.case import Case
from support.hostile.mutate import damaged, spoilt
from support.hostile.world import World

__all__ = ["OWNED", "model_case", "pickled", "with_code"]

OWNED = "owned"
"""A file that code of a model's folder would write, if anyone ran it."""


class _Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (OWNED, "w")


def model_case(draw: random.Random, world: World, folder: Path) -> Case:
    """A search, a look or a count with a spoilt model."""
    source = world.bert if draw.random() < 0.8 else world.bart
    model = Path(shutil.copytree(source, folder / "model"))
    action = draw.random()
    refused = False
    if action < 0.1:
        pickled(model)
        refused = True
    elif action < 0.2:
        with_code(model)
    else:
        _spoil(draw, model)
    search = ["search", str(world.space), "--model", "model", "--study", "s"]
    search += ["--train", str(world.data["csv"]), "--trials", "1"]
    words = search if refused or draw.random() < 0.8 else ["ls", "methods", "--model", "model"]
    return Case(folder, words, "a model", refused=refused)


def pickled(model: Path) -> None:
    """Weights as a pickle alone, which runs code when it is loaded."""
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))


def with_code(model: Path) -> None:
    """A configuration that asks for classes of its own, in files beside it."""
    path = model / "config.json"
    classes = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    config = json.loads(path.read_text()) | {"auto_map": classes}
    path.write_text(json.dumps(config))
    (model / "evil.py").write_text(f"open({OWNED!r}, 'w')\nraise SystemExit\n")
    path = model / "tokenizer_config.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    path.write_text(json.dumps(tokenizer))


def _spoil(draw: random.Random, model: Path) -> None:
    path = draw.choice(sorted(p for p in model.iterdir() if p.is_file()))
    action = draw.random()
    if action < 0.1:
        path.unlink()
    elif path.suffix == ".json" and path.stat().st_size < 10_000 and action < 0.8:
        path.write_text(json.dumps(spoilt(draw, json.loads(path.read_text()))))
    else:
        path.write_bytes(damaged(draw, path.read_bytes()))
