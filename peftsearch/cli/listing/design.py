"""`peftsearch ls methods`, its four dimensions and families: the design space as tables."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftsearch.design.modification import Modification
    from peftsearch.design.shapes import BackboneShapes

__all__ = [
    "compositions",
    "families",
    "forms",
    "insertions",
    "method_lines",
    "methods",
    "places",
]

Row = dict[str, Any]


def methods(model: str | None) -> list[Row]:
    """Every named method: its modifications and, for a model, its counts or why it has none."""
    from peftsearch.design.methods import METHODS
    from peftsearch.errors import ConfigurationError

    shapes = _shapes(model)
    rows: list[Row] = []
    for method in METHODS.values():
        configuration, counts, reason = method.configuration(), {}, None
        if shapes is not None:
            try:
                configuration = configuration.within(shapes)
                tuned, pct = configuration.tuned_parameters(shapes), configuration.tuned_pct(shapes)
                trained = sum(m.trained_parameters(shapes) for m in configuration.modifications)
            except ConfigurationError as error:
                tuned, pct, trained, reason = None, None, None, str(error)
            counts = {"tuned": tuned, "tuned %": pct, "trained": trained, "reason": reason}
        rows.append(
            {
                "method": method.name,
                "title": method.title,
                "configuration": configuration.describe(),
                "modifications": [_dimensions(m) for m in configuration.modifications],
                "up_lr_ratio": configuration.training.up_lr_ratio,
                **counts,
                "source": method.source,
            }
        )
    return rows


def _shapes(model: str | None) -> BackboneShapes | None:
    if model is None:
        return None
    from peftsearch.backbone.loading.load import load_shapes

    return load_shapes(model)


def _dimensions(modification: Modification) -> Row:
    """The four dimensions and the width, each as one word or two."""
    from peftsearch.design.modification import options_json

    def with_options(value: Any) -> str:
        changed = [
            f"{key}={_shown(option)}"
            for key, option in options_json(value).items()
            if option not in (_default(value, key), False, "sublayer_input", "lora")
        ]
        return " ".join([value.name, *changed])

    layers = modification.place.describe_layers()
    return {
        "form": with_options(modification.form),
        "place": ", ".join(filter(None, (str(modification.place), layers))),
        "insertion": with_options(modification.insertion),
        "composition": with_options(modification.composition),
        "width": _width(modification),
    }


def _default(value: Any, key: str) -> Any:
    """Default of an option added after the first file format; None for the others, which are always
    written.
    """
    return next((f.default for f in fields(value) if f.name == key and f.metadata), None)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _width(modification: Modification) -> str:
    if modification.width is None:
        return ""
    widths = modification.width
    listed = ",".join(map(str, widths)) if isinstance(widths, tuple) else f"{widths:,}"
    return f"{modification.form.width_symbol}={listed}"


def method_lines(rows: list[Row]) -> list[Row]:
    """A table's rows: one line for each modification, a method's name and counts on its first."""
    lines: list[Row] = []
    for row in rows:
        empty = dict.fromkeys(("form", "place", "insertion", "composition", "width"), "–")
        counts: Row = {
            key: "–" if row[key] is None else row[key] for key in ("tuned", "tuned %") if key in row
        }
        for number, dimensions in enumerate(row["modifications"] or [empty]):
            first = number == 0
            name = row["method"] if first else ""
            shown: Row = dict(counts) if first else dict.fromkeys(counts, "")
            lines.append({"method": name, **dimensions, **shown})
            lines[-1]["note"] = _note(row) if first else ""
    return lines


def _note(row: Row) -> str:
    """Why there are no counts, or what else belongs to the method."""
    if row.get("reason"):
        return str(row["reason"])
    ratio = row["up_lr_ratio"]
    if row.get("trained") not in (None, row.get("tuned")):
        return f"{row['trained']:,} are trained in their place"
    return f"up-projections learn {ratio:g} times as fast" if ratio != 1 else ""


def places(model: str | None) -> list[Row]:
    """Every place; for a model how many sites it has there, and how wide h is."""
    from peftsearch.design.place import PLACES, Place
    from peftsearch.errors import ConfigurationError

    shapes = _shapes(model)
    rows = []
    for place in PLACES.values():
        row: Row = {"place": place.name, "about": place.meaning, "kinds": " ".join(place.kinds)}
        if shapes is not None:
            try:
                sites = Place((place.name,)).within(shapes).sites(shapes)
                widths = sorted({site.d_h for site in sites if not site.tensor})
                found = {"sites": len(sites), "d": "–".join(map(str, _ends(widths))), "reason": ""}
            except ConfigurationError as error:
                found = {"sites": 0, "d": "", "reason": str(error)}
            row |= found
        rows.append(row)
    return rows


def _ends(values: list[int]) -> Iterable[int]:
    return values if len(values) < 2 else (values[0], values[-1])


def forms() -> list[Row]:
    """Every functional form."""
    from peftsearch.design.form import FORMS

    return [
        {
            "form": form.name,
            "width": form.width_symbol or "",
            "options": _options(form),
            "learning rate": form.typical_lr,
            "about": _about(form),
        }
        for form in FORMS.values()
    ]


def insertions() -> list[Row]:
    """Both insertion forms."""
    from peftsearch.design.insertion import INSERTIONS

    return _described("insertion", INSERTIONS)


def compositions() -> list[Row]:
    """Every composition function."""
    from peftsearch.design.composition import COMPOSITIONS

    return _described("composition", COMPOSITIONS)


def _described(what: str, registry: Mapping[str, type[Any]]) -> list[Row]:
    return [
        {what: name, "options": _options(value), "about": _about(value)}
        for name, value in registry.items()
    ]


def _options(value: type[Any]) -> str:
    return " ".join(f"{f.name}={_shown(f.default)}" for f in fields(value))


def _about(value: type[Any]) -> str:
    """The first sentence of a class's docstring."""
    first = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<!al)\. ", first)[0].rstrip(".:")


def families() -> list[Row]:
    """Every row of the table of model families."""
    from peftsearch.backbone.families import FAMILIES

    return [
        {
            "family": family.name,
            "model types": " ".join(family.model_types),
            "kind": _kind(family),
            "norm": "before" if family.pre_norm else "after",
            "prefix": "yes" if family.takes_prefix else "no",
            "note": family.note,
        }
        for family in FAMILIES
    ]


def _kind(family: Any) -> str:
    if family.is_encoder_decoder:
        return "encoder-decoder"
    return "decoder" if family.stacks[0].is_decoder else "encoder"
