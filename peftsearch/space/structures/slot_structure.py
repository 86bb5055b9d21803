"""A structure of one slot (form, place, insertion, …), and the modification it defines."""

from __future__ import annotations

from dataclasses import dataclass, fields

from peftsearch.design.composition import COMPOSITIONS, Composition, Dora, RankStabilised, Scaled
from peftsearch.design.form import FORMS, Bottleneck, Form, Prefix
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes
from peftsearch.space.layer_masks import intersection, layer_mask

__all__ = [
    *("DIMENSIONS", "INSERTIONS", "MLP_UNITS", "NOTHING", "SlotStructure", "make_composition"),
]

MLP_UNITS = 800
"""Hidden units of a re-parametrised prefix (Li and Liang 2021; He et al. 2022)."""
INSERTIONS: dict[str, Insertion] = {
    "parallel": Parallel(),
    "projection": Parallel("projection_input"),
    "residual_stream": Parallel("residual_stream"),
    "sequential": Sequential(),
}


@dataclass(frozen=True)
class SlotStructure:
    """One valid filling of a slot, in the words of the space file; `form: none` leaves it empty."""

    form: str = "none"
    at: str = ""
    insertion: str = ""
    init: str = ""
    reparametrise: str = ""
    composition: str = ""
    layers: str = ""

    @property
    def is_empty(self) -> bool:
        return self.form == "none"

    def make_form(self) -> Form:
        """The form with its initial values. Under a gate that begins closed a prefix begins at
        random: from zero neither the gate nor the prefix would ever get a gradient.
        """
        form = FORMS[self.form]
        if issubclass(form, Bottleneck):
            return form(init=self.init)  # type: ignore[arg-type]
        if issubclass(form, Prefix):
            mlp = MLP_UNITS if self.reparametrise == "mlp" else None
            closed = COMPOSITIONS[self.composition].closed_at_init
            return form(mlp=mlp, init="normal" if closed else "zero")
        return form()

    def modification(
        self, shapes: BackboneShapes, scale: float | str | None = None, depth: str = "all"
    ) -> Modification:
        """The modification on a backbone, its width still open, in those of its layers that are
        within a depth. ConfigurationError where there is none.
        """
        mask = intersection(layer_mask(self.layers, shapes), layer_mask(depth, shapes))
        return Modification(
            form=self.make_form(),
            place=Place.parse(self.at, mask),
            insertion=INSERTIONS[self.insertion],
            composition=make_composition(self.composition, scale),
        )


NOTHING = SlotStructure()
DIMENSIONS = tuple(f.name for f in fields(SlotStructure))


def make_composition(name: str, scale: float | str | None = None) -> Composition:
    """A composition with its number: s, or α of a rank-stabilised scale."""
    cls = COMPOSITIONS[name]
    if scale is None or cls not in (Scaled, RankStabilised, Dora):
        return cls()
    if cls is Scaled:
        return Scaled("learned" if scale == "learned" else float(scale))
    return cls(float(scale))
