"""Validity: combinations of the four dimensions that are meaningless, or repeat a simpler one.

`why_invalid` is the one authority: a `Modification` refuses what it names, and a space never
offers it. The reasons follow from the equations of He et al. 2022, sections 3 and 4; the page
docs/design-space.md lists them all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from peftsearch.design.composition import (
    Add,
    Composition,
    Dora,
    Gated,
    RankStabilised,
    TanhGate,
)
from peftsearch.design.form import (
    Bottleneck,
    Constant,
    Dense,
    Form,
    Kronecker,
    Linear,
    Loreft,
    Prefix,
    Prompt,
    Rescale,
    Sparse,
    Vera,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.place import PLACES, Place

__all__ = ["minimum_width", "read_same_vector", "why_invalid"]

_DISTINCT_PROJECTION_INPUT = {"attn.out", "ffn.out"}
_PROJECTIONS = {"attn.query", "attn.key", "attn.value"}
_FFN_PROJECTIONS = {"ffn.hidden", "ffn.gate"}
_READS_STREAM = {"attn.heads", "ffn.out"}
_RESCALED = {"attn.key", "attn.value", "attn.out", "ffn.gate", "ffn.activated", "ffn.out"}

_Rule = Callable[[Form, set[str], Insertion, Composition], str | None]


def why_invalid(
    form: Form, place: Place, insertion: Insertion, composition: Composition
) -> str | None:
    """The reason why a combination is never used; None for a valid one.

    >>> from peftsearch.design.composition import Add
    >>> from peftsearch.design.form import Relu
    >>> from peftsearch.design.insertion import Parallel
    >>> from peftsearch.design.place import Place
    >>> from peftsearch.design.validity import why_invalid
    >>> why_invalid(Relu(), Place.parse("attn.out"), Parallel(), Add())
    'W_o absorbs the up-projection, so this is attn.heads: write it'
    """
    return _why_invalid(form, place.names, insertion, composition)


@lru_cache(maxsize=10_000)
def _why_invalid(
    form: Form, at: tuple[str, ...], insertion: Insertion, composition: Composition
) -> str | None:
    """`why_invalid` without the layers, so that one entry of the cache serves every layer mask."""
    # A space asks for the same few hundred combinations at every mask of layers, and again on
    # every backbone and depth.
    names = set(at)
    for kind, rule in _RULES.items():
        if isinstance(form, kind):
            return rule(form, names, insertion, composition)
    return _nonlinear(form, names, insertion, composition)


def minimum_width(form: Form, composition: Composition) -> int:
    """The least width at which a form is not equivalent to a simpler one.

    An ungated softmax over one key is a constant: its one weight is 1, so the key gets no gradient.
    """
    softmax = isinstance(form, Prefix) and form.is_softmax
    return 2 if softmax and not isinstance(composition, Gated) else 1


def read_same_vector(name: str, first: Insertion, second: Insertion) -> bool:
    """Whether two insertions read the same vector at a place.

    A joined place may write `projection_input` for all of its names, though it is the sub-layer's
    input at most of them: LoRA on every linear layer meets LoRA on the queries at the queries.
    """
    both_parallel = isinstance(first, Parallel) and isinstance(second, Parallel)
    distinct = name in _DISTINCT_PROJECTION_INPUT or name in _READS_STREAM
    return first == second or (both_parallel and not distinct)


def _prefix(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if names != {"attn.heads"}:
        return "the softmax form works per head: it belongs at attn.heads"
    if not getattr(form, "is_softmax", True) and isinstance(composition, Gated):
        return "the exact gate is a share of the softmax, which this form does not have: write add"
    if insertion != Parallel():
        return "the softmax form reads the queries: its insertion is parallel"
    if isinstance(composition, Dora | RankStabilised):
        return f"composition '{composition.name}' belongs to low-rank forms"
    return _closed_gate(form, composition)


def _prompt(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if names != {"embedding"}:
        return "a prompt is inserted among the token embeddings: it belongs at place 'embedding'"
    if insertion != Parallel() or not isinstance(composition, Gated):
        return "a prompt joins every softmax with the tokens: write parallel and gated"
    return None


def _at_body(*places: str) -> _Rule:
    def rule(
        form: Form, names: set[str], insertion: Insertion, composition: Composition
    ) -> str | None:
        if not names <= set(places):
            return f"the {form.name} form belongs at place '{places[0]}'"
        if insertion != Parallel() or composition != Add():
            return f"the {form.name} form reads nothing and is added: write parallel and add"
        return None

    return rule


def _constant(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if "attn.key" in names:
        return "a bias on the keys shifts every logit alike and gets no gradient"
    if names & {"attn.value", "attn.heads"}:
        return "attention weights sum to one, so this is a bias at attn.out: write attn.out"
    if "ffn.activated" in names:
        return "the ffn's last layer turns it into a bias at ffn.out: write ffn.out"
    if any(name.startswith("residual.") for name in names):
        return "a bias after the norm is the norm's own bias: write place 'norm' or 'biases'"
    if "embedding" in names:
        return "a bias on the embeddings is one on the positions: write place 'weights' or a prompt"
    if "weights" in names:
        return "place 'weights' takes the forms dense and sparse"
    if {"biases", "all_biases"} <= names:
        return "place 'all_biases' holds 'biases' already"
    if insertion != Parallel() or composition != Add():
        return "the constant form reads nothing, and a scale is absorbed: write parallel and add"
    return None


def _rescale(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if "attn.query" in names:
        return "rescaled queries are rescaled keys: write attn.key"
    if "attn.heads" in names:
        return "attention mixes tokens, not channels, so this is attn.value: write it"
    if "ffn.hidden" in names:
        return "the activation lets a rescaling through: write ffn.activated"
    if not names <= _RESCALED:
        return "a rescaling belongs at keys, values, the ffn's hidden state or an output"
    if {"ffn.activated", "ffn.gate"} <= names:
        return "a rescaled gate and a rescaled product are nearly one: write ffn.activated"
    if insertion != Sequential() or composition != Add():
        return "the rescaling form reads h and is added: write sequential and add"
    return None


def _loreft(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if not all(name.startswith("residual.") for name in names):
        return "LoReFT edits the residual stream: it belongs at residual.attn or residual.ffn"
    if insertion != Sequential() or composition != Add():
        return "LoReFT reads h and is added: write sequential and add"
    return None


def _vera(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if composition != Add():
        return "VeRA's own vectors absorb a scale or a gate: write add"
    return _adapts_a_linear_layer("VeRA", names, insertion)


def _adapts_a_linear_layer(method: str, names: set[str], insertion: Insertion) -> str | None:
    linear = _PROJECTIONS | _DISTINCT_PROJECTION_INPUT | _FFN_PROJECTIONS
    reads_its_input = isinstance(insertion, Parallel) and (
        insertion.reads == "projection_input" or not names & _DISTINCT_PROJECTION_INPUT
    )
    if not names <= linear or not reads_its_input:
        return (
            f"{method} adapts a linear layer from that layer's input: write parallel (or, at an "
            "output, projection_input) at query, key, value, out, ffn.hidden, ffn.gate or ffn.out"
        )
    return _parallel_projection(names, insertion)


def _bottleneck(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    reason = _misplaced(form, names, composition) or _closed_gate(form, composition)
    if reason:
        return reason
    if any(name.startswith("residual.") for name in names):
        sequential = isinstance(insertion, Sequential)
        return None if sequential else "the residual stream is modified sequentially"
    if isinstance(insertion, Sequential):
        return _sequential_bottleneck(form, names)
    if isinstance(insertion, Parallel) and insertion.reads == "residual_stream":
        if not names <= _READS_STREAM:
            return "only attn.heads and ffn.out may read the residual stream: write sublayer_input"
        return None
    if insertion == Parallel():
        absorbed = "attn.out" in names
        return (
            "W_o absorbs the up-projection, so this is attn.heads: write it" if absorbed else None
        )
    reason = _parallel_projection(names, insertion)
    if reason is None and names == {"attn.out"} and not isinstance(form, Linear):
        return "W_o absorbs the down-projection, so this is sequential at attn.out: write it"
    return reason


def _misplaced(form: Form, names: set[str], composition: Composition) -> str | None:
    """The reason why a bottleneck is invalid here with every insertion, or None."""
    if isinstance(composition, Gated):
        return "the exact gate needs the softmax form: use prefix, or composition add or scaled"
    if any(PLACES[name].body for name in names):
        own = "the dense and sparse forms" if "weights" in names else "the constant form only"
        return f"place '{'+'.join(sorted(names))}' takes {own}"
    if "embedding" in names:
        return "place 'embedding' takes the prompt form only"
    if "ffn.activated" in names:
        return "the ffn's last layer absorbs the up-projection, so this is ffn.out: write it"
    if getattr(form, "bias", False) and "attn.key" in names:
        return "a bias on the keys shifts every logit alike and gets no gradient: bias: false"
    return None


def _parallel_projection(names: set[str], insertion: Insertion) -> str | None:
    """Refuse `projection_input` where it is the same vector as the sub-layer's input."""
    if insertion == Parallel():
        return None
    if "attn.heads" in names:
        return "no linear layer computes the heads' output: write sublayer_input"
    if not names & _DISTINCT_PROJECTION_INPUT:
        return "the projection's input is the sub-layer's input here: write sublayer_input"
    return None


def _sequential_bottleneck(form: Form, names: set[str]) -> str | None:
    if names & (_PROJECTIONS | _FFN_PROJECTIONS):
        return "the projection absorbs the down-projection, so this is parallel: write it"
    if "attn.heads" in names:
        return "W_o absorbs both projections, so this is attn.out: write it"
    if "attn.out" in names and isinstance(form, Linear):
        return "W_o absorbs the down-projection, so this is LoRA on W_o: parallel, projection_input"
    return None


def _linear(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    reason = _bottleneck(form, names, insertion, composition)
    if reason:
        return reason
    assert isinstance(form, Linear)
    if form.init == "pissa":
        if composition != Add():
            return "PiSSA begins from the layer's own directions, which fix its scale: write add"
        return _adapts_a_linear_layer("PiSSA", names, insertion)
    if isinstance(composition, Dora):
        if form.bias:
            return "DoRA rescales a weight: bias: false"
        return _adapts_a_linear_layer("DoRA", names, insertion)
    return None


def _nonlinear(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if isinstance(composition, Dora):
        return "DoRA needs a change that is a matrix: write the linear form"
    return _bottleneck(form, names, insertion, composition)


def _kronecker(
    form: Form, names: set[str], insertion: Insertion, composition: Composition
) -> str | None:
    if isinstance(composition, RankStabilised):
        return "a Kronecker bottleneck has no rank to be stabilised by: write scaled"
    return _nonlinear(form, names, insertion, composition)


def _closed_gate(form: Form, composition: Composition) -> str | None:
    """Refuse tanh(g) Δh where g and Δh begin at zero: the gradient of each is a multiple of the
    other, so that neither would ever move.
    """
    if isinstance(composition, TanhGate) and form.identity_at_init:
        return (
            "a gate that begins closed before a Δh that begins at zero is never opened: write "
            "init bert, or normal for a prefix"
        )
    return None


_RULES: dict[Any, _Rule] = {
    Prefix: _prefix,
    Prompt: _prompt,
    Dense: _at_body("weights"),
    Sparse: _at_body("weights"),
    Constant: _constant,
    Rescale: _rescale,
    Loreft: _loreft,
    Vera: _vera,
    Linear: _linear,
    Kronecker: _kronecker,
    Bottleneck: _nonlinear,
}
"""Form class → its rule, the first match deciding; any other form follows the rule of a nonlinear
bottleneck. DoRA is therefore refused: it computes with the low-rank factors of `Linear`."""
