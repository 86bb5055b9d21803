"""`peftsearch search --dry-run`: what a search would try, without training."""

from __future__ import annotations

from peftsearch.backbone.load import load_shapes
from peftsearch.cli.console import print_json, print_table, tell
from peftsearch.search.seeds import seeds_of
from peftsearch.space.reach import sampled_reach
from peftsearch.space.space import Space

__all__ = ["print_dry_run"]

_SHOWN = 12


def print_dry_run(space: Space, model: str, as_json: bool) -> None:
    """The methods it begins with, some samples, and the ranges they cover."""
    shapes = load_shapes(model)
    reach = sampled_reach(space, shapes)
    seeds = seeds_of(space, shapes)
    rows = [
        (s.label, s.configuration.tuned_pct(shapes), s.configuration.describe()) for s in seeds
    ] + [("sample", c.tuned_pct(shapes), c.describe()) for c in reach.configurations[:_SHOWN]]
    facts = {"distinct structures": space.on(reach.shapes).count_structures(), **reach.facts()}
    if as_json:
        keys = ("from", "tuned_pct", "configuration")
        examples = [dict(zip(keys, row, strict=True)) for row in rows]
        print_json("dry_run", facts | {"examples": examples})
        return
    print_table(("", "tuned %", "configuration"), [(a, f"{b:.4g}", c) for a, b, c in rows])
    tell()
    for key, value in facts.items():
        tell(f"{key}: {value}")
