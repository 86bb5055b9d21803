"""`peftsearch check`: validate a space file, and report how much of it a model supports."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peftsearch.cli.completion import spaces
from peftsearch.cli.options import Json, Model
from peftsearch.cli.terminal.console import print_json, print_line, print_table
from peftsearch.wording import counted

__all__ = ["check"]


def check(
    space: Annotated[
        str, typer.Argument(help="A shipped space or a YAML file.", autocompletion=spaces)
    ],
    model: Model = None,
    families: Annotated[
        bool, typer.Option("--families", help="One line for each model family.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a space file; with --model or --families, report which of its configurations are
    supported, and why the others are not.
    """
    from peftsearch.space.space import load_space

    loaded = load_space(space)
    facts: dict[str, Any] = {
        "space": loaded.name,
        "distinct structures": loaded.count_structures(),
        "offered but never valid": loaded.unused(),
    }
    if model is not None:
        facts |= _on_model(loaded, model)
    rows = _on_families(loaded) if families else []
    if json:
        print_json("check", facts | ({"families": rows} if families else {}))
        return
    for key, value in facts.items():
        if value in ("", []):
            continue
        if isinstance(value, list) and key.startswith("on "):
            print_line(f"{key}:")
            for line in value:
                print_line(f"  {line}")
        else:
            shown = f"{value:,}" if isinstance(value, int) else value
            print_line(f"{key}: {', '.join(value) if isinstance(value, list) else shown}")
    if rows:
        _print_families(rows)
    if not _is_supported(facts, rows):
        print_line(f"no configuration of space '{loaded.name}' is supported")
        raise typer.Exit(2)
    print_line("ok")


def _is_supported(facts: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """Whether the model, or any family, supports a configuration of the space."""
    nothing = any(
        key.startswith("on ") and value[0].startswith("0 of") for key, value in facts.items()
    )
    return not nothing and (not rows or any(row["structures"] for row in rows))


def _on_model(space: Any, model: str) -> dict[str, Any]:
    """Facts about a space on one model: coverage, its seeds, the reach of random samples."""
    from peftsearch.backbone.loading.load import load_shapes
    from peftsearch.policy.seeds import seeds_of
    from peftsearch.space.coverage import coverage_of
    from peftsearch.space.random_samples import draw_samples

    shapes = load_shapes(model)
    coverage = coverage_of(space, shapes)
    facts: dict[str, Any] = {
        f"on {shapes.family}": [
            f"{coverage.structures:,} of {counted(coverage.of, 'structure')}",
            *coverage.slots,
            *coverage.depths,
            *coverage.reasons,
        ]
    }
    if not coverage.structures:
        return facts
    seeds = seeds_of(space, shapes)
    kept = {seed.method for seed in seeds}
    facts["seeds"] = [s.label for s in seeds if s.params is not None]
    facts["landmarks outside the space"] = [s.label for s in seeds if s.params is None]
    facts["seeds left out"] = [
        seed.method for seed in space.file.seed_with if seed.method not in kept
    ]
    return facts | draw_samples(space.on(shapes)).facts()


def _on_families(space: Any) -> list[dict[str, Any]]:
    """Every family, in the shape of one well-known model."""
    from peftsearch.backbone.loading.load import shapes_of
    from peftsearch.backbone.loading.reference_configs import REFERENCES, reference_config
    from peftsearch.space.coverage import coverage_of

    rows = []
    for name in REFERENCES:
        shapes = shapes_of(reference_config(name))
        coverage = coverage_of(space, shapes)
        rows.append(
            {
                "model": name,
                "family": shapes.family,
                "structures": coverage.structures,
                "of": coverage.of,
                "left out": list(coverage.reasons),
            }
        )
    return rows


def _print_families(rows: list[dict[str, Any]]) -> None:
    """A table, and below it every reason once, with the families it holds for."""
    print_line()
    print_table(
        ("model", "family", "structures", "share"),
        [
            (
                r["model"],
                r["family"],
                f"{r['structures']:,}",
                f"{100 * r['structures'] / r['of']:.3g} %",
            )
            for r in rows
        ],
    )
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in row["left out"]:
            told = reason.replace(row["family"], "it")
            reasons.setdefault(told, []).append(row["family"])
    print_line()
    for reason, names in reasons.items():
        print_line(f"{reason} ({', '.join(dict.fromkeys(names))})")
