"""Folders of studies that are spoilt, for every command that reads them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.hostile.case import Case
from support.hostile.mutate import HOSTILE_TEXTS, damaged, spoilt
from support.hostile.world import World

__all__ = ["other_tensors", "study_case"]


def study_case(draw: random.Random, world: World, folder: Path) -> Case:
    """One or two files of a copy of a good study spoilt."""
    (folder / "studies").mkdir()
    study = world.copy_study(folder / "studies")
    about = [_spoil(draw, study, path) for path in sorted(_files(draw, study))]
    return Case(folder, _command(draw, world), f"a study: {', '.join(about)}")


def _command(draw: random.Random, world: World) -> list[str]:
    trial = draw.choice((f"#{world.best}", "best", "knee", "5", "#0", "#1", "#999"))
    return draw.choice(
        (
            ["status", "good"],
            ["status", "good", "--json"],
            ["frontier", "good"],
            ["frontier", "good", "--json"],
            ["report", "good"],
            ["ls"],
            ["ls", "studies", "--json"],
            ["show", f"good#{world.best}"],
            ["show", f"good#{world.best}", "--json"],
            *(["export", "good", "OUT", "--at", trial, "--to", to] for to in _FORMATS),
            ["search", "--study", "good", "--resume", "--trials", "6"],
            ["search", "--study", "good", "--resume", "--trials", "6"],
        )
    )


_FORMATS = ("native", "native", "recipe", "peft")


def _files(draw: random.Random, study: Path) -> set[Path]:
    """One file to spoil, or two."""
    files = sorted(path for path in study.rglob("*") if path.is_file() and not _derived(path))
    weights = [5 if path.parent == study else 1 for path in files]
    return set(draw.choices(files, weights, k=draw.choice((1, 1, 1, 2))))


def _spoil(draw: random.Random, study: Path, path: Path) -> str:
    about = str(path.relative_to(study))
    action = draw.random()
    if action < 0.08:
        path.unlink()
    elif action < 0.12:
        path.unlink()
        path.mkdir()
    elif action < 0.16:
        _another_file(draw, study)
    elif path.suffix == ".json" and action < 0.75:
        path.write_text(json.dumps(_changed(draw, json.loads(path.read_text()))))
    elif path.suffix in (".log", ".jsonl") and action < 0.6:
        _change_a_line(draw, path)
    elif path.suffix == ".safetensors" and action < 0.6:
        path.write_bytes(other_tensors(draw, path))
    else:
        path.write_bytes(damaged(draw, path.read_bytes()))
    return about


def _derived(path: Path) -> bool:
    return path.name in ("trials.csv", "frontier.json", "report.html") or path.suffix == ".lock"


def _changed(draw: random.Random, tree: Any) -> Any:
    """Spoilt, or with texts of its own changed to hostile ones that fit their place."""
    if draw.random() < 0.7 or not isinstance(tree, dict):
        return spoilt(draw, tree)
    texts = [key for key, value in tree.items() if isinstance(value, str)]
    return tree | {draw.choice([*texts, "x"]): draw.choice(HOSTILE_TEXTS)}


def _change_a_line(draw: random.Random, path: Path) -> None:
    lines = path.read_text().splitlines()
    if not lines:
        return
    at = draw.randrange(len(lines))
    try:
        lines[at] = json.dumps(spoilt(draw, json.loads(lines[at])))
    except ValueError:
        lines[at] = lines[at][: len(lines[at]) // 2]
    path.write_text("".join(line + "\n" for line in lines))


def other_tensors(draw: random.Random, path: Path) -> bytes:
    """A safetensors file that is right in itself: other names, shapes, types, values or facts."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save

    with safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        facts = dict(opened.metadata() or {})
    name = draw.choice(sorted(tensors)) if tensors else "x"
    tensor = tensors.get(name, torch.zeros(1))
    changes: tuple[Callable[[], object], ...] = (
        lambda: tensors.pop(name, None),
        lambda: tensors.update({f"{name}\x1b[31m": tensor.clone()}),
        lambda: tensors.update({name: tensor.flatten()[:1].clone()}),
        lambda: tensors.update({name: tensor.to(torch.int64)}),
        lambda: tensors.update({name: torch.full_like(tensor, float("nan"))}),
        lambda: tensors.clear(),
        lambda: facts.clear(),
        lambda: facts.update(
            peftsearch=draw.choice(("", "[]", "{", '{"step": -5}', "null", "NaN"))
        ),
        lambda: facts.update(
            peftsearch=json.dumps(spoilt(draw, json.loads(facts.get("peftsearch", "{}"))))
        ),
    )
    draw.choice(changes)()
    return bytes(save(tensors, metadata=facts or None))


def _another_file(draw: random.Random, study: Path) -> None:
    """Something that does not belong there."""
    trials = study / "trials"
    if draw.random() < 0.5:
        (trials / draw.choice(("99999", "00099", "x", "-1", "\x1b[31m", "00000000001"))).mkdir()
    else:
        (trials / draw.choice(("00098", "y"))).write_text("no folder")
