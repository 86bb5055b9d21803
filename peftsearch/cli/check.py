"""`peftsearch check`: is a space file right, and what of it can a model do?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peftsearch.cli.console import clean, print_json
from peftsearch.cli.options import Json, Model

__all__ = ["check"]


def check(
    space: Annotated[str, typer.Argument(help="A shipped space or a YAML file.")],
    model: Model = None,
    json: Json = False,
) -> None:
    """Check a space file; with --model, what it reaches there and which seeds it expresses."""
    from peftsearch.space.space import load_space

    loaded = load_space(space)
    facts: dict[str, Any] = {
        "space": loaded.name,
        "distinct structures": loaded.count_structures(),
        "offered but never valid": [
            f"{slot.name}: {note}" for slot in loaded.slots for note in slot.unused()
        ],
    }
    if model is not None:
        from peftsearch.backbone.load import load_shapes
        from peftsearch.search.seeds import seeds_of
        from peftsearch.space.reach import sampled_reach

        shapes = load_shapes(model)
        seeds = seeds_of(loaded, shapes)
        facts["seeds"] = [s.label for s in seeds if s.params is not None]
        facts["landmarks (outside the space)"] = [s.label for s in seeds if s.params is None]
        facts |= sampled_reach(loaded, shapes).facts()
    if json:
        print_json("check", facts)
        return
    for key, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        if shown != "":
            print(clean(f"{key}: {shown}"))
    print("ok")
