"""Native exports that are spoilt, given to `predict`."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from support.hostile.case import Case
from support.hostile.mutate import HOSTILE_TEXTS, damaged, spoilt
from support.hostile.studies import other_tensors
from support.hostile.world import World

__all__ = ["export_case"]


def export_case(draw: random.Random, world: World, folder: Path) -> Case:
    """A spoilt export, or odd texts for a good one."""
    export = Path(shutil.copytree(world.export, folder / "export"))
    if draw.random() < 0.85:
        _spoil(draw, export)
    texts = [text for text in draw.choices(HOSTILE_TEXTS, k=2) if "\0" not in text]
    words = ["predict", "export", *draw.choice(([], ["--json"]))]
    if draw.random() < 0.5:
        return Case(folder, words, "an export", stdin="\n".join([*texts, "a text"]))
    return Case(folder, [*words, "--", *texts], "an export")


def _spoil(draw: random.Random, export: Path) -> None:
    configuration, adapter = export / "configuration.json", export / "adapter.safetensors"
    action = draw.random()
    if action < 0.5:
        tree = json.loads(configuration.read_text())
        if draw.random() < 0.3:
            tree["labels"] = draw.sample(HOSTILE_TEXTS, 2)
        else:
            tree = spoilt(draw, tree)
        configuration.write_text(json.dumps(tree))
    elif action < 0.65:
        configuration.write_bytes(damaged(draw, configuration.read_bytes()))
    elif action < 0.8:
        adapter.write_bytes(damaged(draw, adapter.read_bytes()))
    elif action < 0.95:
        adapter.write_bytes(other_tensors(draw, adapter))
    else:
        draw.choice((configuration, adapter)).unlink()
