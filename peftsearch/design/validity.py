"""Which combinations of the four dimensions mean something, and which merely repeat another.

`why_invalid` is the one authority: a `Modification` refuses what it names, and a space never
offers it. The reasons follow He et al. 2022, section 3 and 4 (see docs/design-space.md).
"""

from __future__ import annotations

from peftsearch.design.composition import Add, Composition, Gated
from peftsearch.design.form import Bottleneck, Constant, Dense, Form, Linear, Prefix
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.place import PLACES, Place

__all__ = ["minimum_width", "reads_alike", "why_invalid"]

_DISTINCT_PROJECTION_INPUT = {"attn.out", "ffn.out"}
_PROJECTIONS = {"attn.query", "attn.key", "attn.value"}


def why_invalid(
    form: Form, place: Place, insertion: Insertion, composition: Composition
) -> str | None:
    """The reason why a combination is never used, or None for a valid canonical one."""
    names = set(place.names)
    if isinstance(form, Prefix):
        return _prefix(names, insertion)
    if isinstance(composition, Gated):
        return "the exact gate needs the softmax form: use prefix, or composition add or scaled"
    if isinstance(form, Dense):
        return _whole_body("dense", "weights", names, insertion, composition)
    if any(PLACES[name].body == "weights" for name in names):
        return "place 'weights' takes the dense form only"
    if isinstance(form, Constant):
        return _constant(names, insertion, composition)
    if any(PLACES[name].body for name in names):
        return f"place '{place}' takes the constant form only"
    assert isinstance(form, Bottleneck)
    return _bottleneck(form, names, insertion)


def minimum_width(form: Form, composition: Composition) -> int:
    """The least width that is not a simpler form in disguise.

    An ungated softmax over one key is a constant: its key gets no gradient.
    """
    return 2 if isinstance(form, Prefix) and not isinstance(composition, Gated) else 1


def reads_alike(name: str, first: Insertion, second: Insertion) -> bool:
    """Whether two insertions read one vector at a place.

    A joined place may write `projection_input` for all of its names, though it is the sub-layer's
    input at most of them: LoRA on every linear layer meets LoRA on the queries at the queries.
    """
    both_parallel = isinstance(first, Parallel) and isinstance(second, Parallel)
    return first == second or (both_parallel and name not in _DISTINCT_PROJECTION_INPUT)


def _prefix(names: set[str], insertion: Insertion) -> str | None:
    if names != {"attn.heads"}:
        return "the softmax form works per head: it belongs at attn.heads"
    if insertion != Parallel():
        return "the softmax form reads the queries: its insertion is parallel"
    return None


def _whole_body(
    form: str, place: str, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if names != {place}:
        return f"the {form} form belongs at place '{place}'"
    if insertion != Parallel() or composition != Add():
        return f"the {form} form reads nothing and is added: write parallel and add"
    return None


def _constant(names: set[str], insertion: Insertion, composition: Composition) -> str | None:
    if "attn.key" in names:
        return "a bias on the keys shifts every logit alike and gets no gradient"
    if names & {"attn.value", "attn.heads"}:
        return "attention weights sum to one, so this is a bias at attn.out: write attn.out"
    if any(name.startswith("residual.") for name in names):
        return "a bias after the norm is the norm's own bias: write place 'biases'"
    if insertion != Parallel() or composition != Add():
        return "the constant form reads nothing, and a scale is absorbed: write parallel and add"
    return None


def _bottleneck(form: Bottleneck, names: set[str], insertion: Insertion) -> str | None:
    if form.bias and "attn.key" in names:
        return "a bias on the keys shifts every logit alike and gets no gradient: bias: false"
    if any(name.startswith("residual.") for name in names):
        sequential = isinstance(insertion, Sequential)
        return None if sequential else "the residual stream is modified sequentially"
    if isinstance(insertion, Sequential):
        return _sequential_bottleneck(form, names)
    if insertion == Parallel():
        absorbed = "attn.out" in names
        return (
            "W_o absorbs the up-projection, so this is attn.heads: write it" if absorbed else None
        )
    if "attn.heads" in names:
        return "no linear layer computes the heads' output: write sublayer_input"
    if not names & _DISTINCT_PROJECTION_INPUT:
        return "the projection's input is the sub-layer's input here: write sublayer_input"
    if names == {"attn.out"} and not isinstance(form, Linear):
        return "W_o absorbs the down-projection, so this is sequential at attn.out: write it"
    return None


def _sequential_bottleneck(form: Bottleneck, names: set[str]) -> str | None:
    if names & _PROJECTIONS:
        return "the projection absorbs the down-projection, so this is parallel: write it"
    if "attn.heads" in names:
        return "W_o absorbs both projections, so this is attn.out: write it"
    if "attn.out" in names and isinstance(form, Linear):
        return "W_o absorbs the down-projection, so this is LoRA on W_o: parallel, projection_input"
    return None
