"""Cost of a modification in a backbone's pass: for each token, and for each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from peftsearch.design.composition import Dora
from peftsearch.design.cost.body import ELEMENT, SITE
from peftsearch.design.forms.prefix import Prefix
from peftsearch.design.modification import Modification
from peftsearch.design.shapes import BackboneShapes

__all__ = ["Site", "by_step", "by_token", "prefixes", "tuned_matrices"]


@dataclass(frozen=True)
class Site:
    """A site of a modification whose representation it changes."""

    layer: int
    products: float
    """Multiply-adds for each token."""
    every_token: bool
    """Whether it is computed for every token even if the head reads one: keys and values."""


def by_token(m: Modification, shapes: BackboneShapes) -> Iterator[Site]:
    """The sites of a modification that cost something for each token; a prefix has none."""
    sources = m.sources(shapes)
    constants = m.form.constants(sources, m.widest)  # VeRA's matrices, of the widest site
    for site, d_source in sources:
        if site.layer is None or site.tensor or isinstance(m.form, Prefix):
            continue
        width = m.width_at(site, shapes)
        own = m.form.tensors(site, d_source, width).values()
        products = sum(prod(shape) for shape in own if len(shape) > 1)
        products += width * (d_source + site.d_h) if constants else 0
        every_token = site.place in ("attn.key", "attn.value")
        yield Site(site.layer, products + 3 * ELEMENT * (site.d_h + width), every_token)


def prefixes(m: Modification, shapes: BackboneShapes) -> Iterator[tuple[int, int]]:
    """(layer, further keys) of a prefix at each of its sites."""
    if isinstance(m.form, Prefix):
        for site, _ in m.sources(shapes):
            if site.layer is not None:
                yield site.layer, m.width_at(site, shapes)


def by_step(m: Modification, shapes: BackboneShapes) -> float:
    """Multiply-adds that do not depend on the texts of a step: the MLP of a prefix, DoRA's norms,
    and starting the operations of every site.
    """
    sources = m.sources(shapes)
    found = SITE * len(sources)
    if isinstance(m.composition, Dora):
        found += sum(
            site.d_h * d_source * (m.width_at(site, shapes) + 4 * ELEMENT)
            for site, d_source in sources
        )
    if isinstance(m.form, Prefix):
        trained = m.form.trained(sources, m.widest) or {}
        matrices = sum(prod(shape) for name, shape in trained.items() if name in ("in", "out"))
        found += m.widest * matrices
    return found


def tuned_matrices(m: Modification, shapes: BackboneShapes) -> int:
    """Entries of the body's matrices that are tuned one by one; 0 unless all their weights are."""
    if m.form.name not in ("dense", "sparse"):
        return 0
    tensors = [site.tensor for site, _ in m.sources(shapes) if site.layer is not None]
    return sum(prod(tensor) for tensor in tensors if len(tensor) > 1)
