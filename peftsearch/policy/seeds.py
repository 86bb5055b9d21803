"""Seeds: published methods as points of a space, with their widths and rates.

A method within the space becomes a trial with its parameters. One outside it (head-only, full
fine-tuning) is trained as it is, and has no parameters for the sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from peftsearch.design.composition import Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.forms.prefix import Prefix
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError
from peftsearch.space.allocate import allocate
from peftsearch.space.encode import NotExpressible, encode
from peftsearch.space.file.seed_method import SeedMethod
from peftsearch.space.space import Space
from peftsearch.space.structures.slot_structure import MLP_UNITS

__all__ = ["Seed", "seed_of", "seeds_of"]


@dataclass(frozen=True)
class Seed:
    """One method to try: `params` replay it in the space, None outside it."""

    label: str
    """Unique in the study: `lora`, or `lora at 0.01 %`."""
    method: str
    configuration: Configuration
    params: dict[str, Any] | None


def seeds_of(space: Space, shapes: BackboneShapes) -> list[Seed]:
    """The space's `seed_with`, in order, without duplicates; a method is left out if no width fits
    its stated tuned % or the backbone does not support it.
    """
    seeds = (seed_of(space, wanted, shapes) for wanted in space.file.seed_with)
    by_label = {seed.label: seed for seed in seeds if seed is not None}
    return list({seed.configuration.hash: seed for seed in reversed(by_label.values())}.values())[
        ::-1
    ]


def seed_of(space: Space, wanted: SeedMethod, shapes: BackboneShapes) -> Seed | None:
    """A published method with the settings that the space states; None if no width fits its
    stated tuned % or the backbone does not support it.
    """
    method = METHODS[wanted.method]
    forms = [m.form.name for m in method.modifications]
    is_head_only = not method.modifications
    # Head-only landmarks name their pooling; every other method takes the space's head.
    head = space.nearest_head(method.head)
    if is_head_only:
        head = space.on(shapes).head_only(method.head)
    try:
        own = tuple(m.within(shapes) for m in _as_stated(method.modifications, wanted))
    except ConfigurationError:
        return None
    modifications = own if wanted.widths else _with_widths(space, wanted.tuned_pct, own, shapes)
    if modifications is None:
        return None
    training = space.nearest_training(forms, wanted.lr)
    if method.training.up_lr_ratio != 1:
        training = replace(training, up_lr_ratio=method.training.up_lr_ratio)
    configuration = Configuration(modifications, head, training).within(shapes)
    name = "untuned" if head.pooling == "none" and is_head_only else method.name
    label = _label(name, wanted)
    try:
        return Seed(label, name, configuration, encode(space.on(shapes), configuration))
    except NotExpressible:
        return Seed(label, name, configuration, None)


def _label(name: str, wanted: SeedMethod) -> str:
    """`mam`, `lora at 0.01 %`, `mam 30, 512`."""
    if wanted.widths is not None:
        return f"{name} {', '.join(map(str, wanted.widths))}"
    return name if wanted.tuned_pct is None else f"{name} at {wanted.tuned_pct:g} %"


def _as_stated(
    modifications: Sequence[Modification], wanted: SeedMethod
) -> tuple[Modification, ...]:
    """A method's modifications with the widths, the scale and the prefix that the space states."""
    widths = iter(wanted.widths or ())
    stated = []
    for m in modifications:
        if m.has_width and wanted.widths is not None:
            m = m.with_width(next(widths))
        if wanted.s is not None and isinstance(m.composition, Scaled):
            m = replace(m, composition=Scaled(wanted.s))
        if wanted.reparametrise is not None and isinstance(m.form, Prefix):
            units = MLP_UNITS if wanted.reparametrise == "mlp" else None
            m = replace(m, form=replace(m.form, mlp=units))
        stated.append(m)
    return tuple(stated)


def _with_widths(
    space: Space,
    tuned_pct: float | None,
    modifications: Sequence[Modification],
    shapes: BackboneShapes,
) -> tuple[Modification, ...] | None:
    """The authors' widths, or widths for a tuned %: the stated one, or the nearest bound of the
    space where the authors' lie outside it. Proportions are kept. None: nothing fits.
    """
    costs = [m.parameters(shapes) for m in modifications if m.has_width]
    if not costs:
        return tuple(modifications)
    total = sum(m.parameters(shapes) for m in modifications)
    bounds = space.file.budgets.tuned_pct
    own_pct = 100 * total / shapes.body_parameters
    if tuned_pct is None and bounds.low <= own_pct <= bounds.high:
        return tuple(modifications)
    target = tuned_pct if tuned_pct is not None else bounds.nearest(own_pct)
    budget = int(target / 100 * shapes.body_parameters + 1e-6)
    allocation = allocate(
        [m.with_width(None) for m in modifications],
        [cost / sum(costs) for cost in costs],
        budget,
        shapes,
    )
    return allocation.modifications if allocation.fits else None
