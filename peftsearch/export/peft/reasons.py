"""Checks whether peft 0.21 supports a configuration, with the reason if it does not.

Exact are LoRA beside linear layers (with a fixed or finished scale, rank-stabilised, DoRA, PiSSA),
BitFit, (IA)³, norm tuning, prompts before an encoder's or a decoder's input, and VeRA.
"""

from __future__ import annotations

from collections.abc import Callable

from peftsearch.backbone.families import Family
from peftsearch.design.composition import Dora
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Dense, Form, Linear, Prefix, Prompt, Rescale, Vera
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES
from peftsearch.design.serving import why_not_lora

__all__ = ["peft_type_of", "why_not_peft"]

_TITLES = {
    "LORA": "LoRA",
    "IA3": "(IA)³",
    "LN_TUNING": "norm tuning",
    "PROMPT_TUNING": "prompt tuning",
    "VERA": "VeRA",
}
_PART_OF_FUSED = {
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "ffn.hidden": "hidden",
    "ffn.gate": "gate",
}


def peft_type_of(configuration: Configuration) -> str:
    """peft's name of the type that holds every modification of an expressible configuration."""
    return _type_of(configuration.modifications[0])


def why_not_peft(configuration: Configuration, family: Family) -> str | None:
    """Why peft cannot express a configuration on a family's models, or None if it can."""
    if not configuration.modifications:
        return "it tunes no layer, only the head"
    for modification in configuration.modifications:
        reason = _why_not(modification, family)
        if reason:
            return f"'{modification.describe()}' {reason}"
    return _why_not_together(configuration.modifications)


def _type_of(modification: Modification) -> str:
    form = modification.form
    if isinstance(form, Constant):
        return "LN_TUNING" if modification.place.names == ("norm",) else "LORA"
    known: dict[type[Form], str] = {Rescale: "IA3", Prompt: "PROMPT_TUNING", Vera: "VERA"}
    return known.get(type(form), "LORA")


def _why_not_together(modifications: tuple[Modification, ...]) -> str | None:
    first = modifications[0]
    for other in modifications[1:]:
        types = [_TITLES[_type_of(m)] for m in (first, other)]
        if types[0] != types[1]:
            return (
                f"'{first.describe()}' is {types[0]} and '{other.describe()}' is {types[1]}: peft "
                "holds one type per adapter"
            )
    if sum(isinstance(m.form, Vera) for m in modifications) > 1:
        return "its VeRA modifications have separate random matrices, but peft shares one pair"
    lora = [m for m in modifications if isinstance(m.form, Linear)]
    if len({isinstance(m.composition, Dora) for m in lora}) > 1:
        return "some of its LoRA layers are DoRA and some are not: peft has one switch for all"
    places = {(name, m.place.layers) for m in modifications for name in m.place.names}
    if {"ffn.activated", "ffn.out"} <= {name for name, _ in places} and _type_of(first) == "IA3":
        return "(IA)³ before and after one linear layer: peft rescales either"
    return None


def _why_not(modification: Modification, family: Family) -> str | None:
    for kind, rule in _RULES.items():
        if isinstance(modification.form, kind):
            return rule(modification, family)
    return "is not LoRA (peft has no such form to load it into)"


def _linear(modification: Modification, family: Family) -> str | None:
    return why_not_lora(modification)


def _constant(modification: Modification, family: Family) -> str | None:
    names = modification.place.names
    if not all(PLACES[name].body for name in names):
        return "adds biases that the model has none of, and peft tunes those that are there"
    if len(names) > 1:
        return "tunes biases and norms: peft has a type for either, and holds one per adapter"
    return None


def _prefix(modification: Modification, family: Family) -> str | None:
    if family.is_encoder_decoder:
        return "is a prefix in every attention, which peft has no way to give an encoder-decoder"
    if modification.composition.name != "gated":
        return "is a prefix without the exact gate, the only one that peft computes"
    return (
        "was trained with tokens at their own positions; peft counts a prefix's positions, so "
        "that every token would move"
    )


def _prompt(modification: Modification, family: Family) -> str | None:
    if family.is_encoder_decoder:
        return "needs a whole language model around an encoder-decoder in peft, not its body"
    return None


def _vera(modification: Modification, family: Family) -> str | None:
    fused = [n for n in modification.place.names if _is_fused(n, family)]
    if fused:
        return f"changes part of a fused layer ({', '.join(fused)}), peft's VeRA all of it"
    return None


def _is_fused(name: str, family: Family) -> bool:
    part = _PART_OF_FUSED.get(name)
    if part is None:
        return False
    paths = [s.attention if name.startswith("attn") else s.ffn for s in family.stacks]
    return any(getattr(path, part) is not None and getattr(path, part).of > 1 for path in paths)


def _dense(modification: Modification, family: Family) -> str | None:
    return "tunes every weight: that is a checkpoint, not an adapter"


def _fits(modification: Modification, family: Family) -> str | None:
    return None


_RULES: dict[type[Form], Callable[[Modification, Family], str | None]] = {
    Linear: _linear,
    Constant: _constant,
    Rescale: _fits,
    Prompt: _prompt,
    Prefix: _prefix,
    Vera: _vera,
    Dense: _dense,
}
