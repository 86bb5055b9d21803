"""Serving: whether a tuned model is the pretrained one with other weights, or one with plain LoRA.

Both are properties of a configuration alone, before anything is trained. The head is left out: it
is a layer of its own, after the body.
"""

from __future__ import annotations

from peftsearch.design.composition import Composition, Dora, RankStabilised, Scaled, SigmoidGate
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Constant, Linear, Rescale, Vera
from peftsearch.design.insertion import Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import PLACES
from peftsearch.design.shapes import BackboneShapes

__all__ = ["lora_scale", "why_not_lora", "why_not_merged", "why_not_plain_lora"]

_PROJECTIONS = {"attn.query", "attn.key", "attn.value", "ffn.hidden", "ffn.gate"}
"""Linear layers that read the sub-layer's input."""
_OUTPUTS = {"attn.out", "ffn.out"}


def why_not_merged(configuration: Configuration, shapes: BackboneShapes) -> str | None:
    """The reason why the tuned body is not the pretrained one with other values in its own tensors;
    None if it is, up to rounding: a checkpoint as any other, which costs no more to run.

    >>> from peftsearch.design.methods import METHODS
    >>> from peftsearch.design.serving import why_not_merged
    >>> from peftsearch.design.shapes import AttentionShape, BackboneShapes, FfnShape
    >>> attention = AttentionShape(layer=0, d_in=8, heads=2, kv_heads=2, head_dim=4, d_out=8)
    >>> shapes = BackboneShapes(8, (attention,), (FfnShape(0, 8, 16, 8),), tensors=())
    >>> why_not_merged(METHODS["houlsby"].configuration(), shapes)
    "'relu→attn.out r=32' computes something that no tensor of the model does"
    >>> why_not_merged(METHODS["dora"].configuration(), shapes) is None
    True
    """
    for modification in configuration.modifications:
        reason = _why_not_in_weights(modification, shapes)
        if reason:
            return f"'{modification.describe()}' {reason}"
    return None


def why_not_plain_lora(configuration: Configuration) -> str | None:
    """The reason why a configuration is no LoRA of two matrices a layer (`lora_A`, `lora_B`); None
    if it is one.

    That is what servers of many adapters load: vLLM refuses DoRA, biases and any other tensor, and
    reads one scale for all layers (`PEFTHelper` in vllm/lora/peft_helper.py), as peft exports have.

    >>> from peftsearch.design.methods import METHODS
    >>> from peftsearch.design.serving import why_not_plain_lora
    >>> why_not_plain_lora(METHODS["pissa"].configuration()) is None
    True
    >>> why_not_plain_lora(METHODS["dora"].configuration())
    "'linear∥attn.query+value r=8 DoRA s=2' has magnitudes beside its two matrices"
    """
    if not configuration.modifications:
        return "it tunes no layer, only the head"
    for modification in configuration.modifications:
        reason = _why_not_plain(modification)
        if reason:
            return f"'{modification.describe()}' {reason}"
    return None


def why_not_lora(modification: Modification) -> str | None:
    """The reason why a modification of the linear form is no LoRA beside a linear layer, DoRA and
    learned scales included; None if it is one.
    """
    if not _reads_its_layers_input(modification):
        return "is not parallel to a single linear layer"
    if getattr(modification.form, "bias", False):
        return "has biases, LoRA has none"
    if isinstance(modification.composition, SigmoidGate):
        return "has gates that depend on the token, LoRA's scales are fixed"
    return None


def lora_scale(composition: Composition, rank: int) -> float:
    """The fixed factor of a LoRA's two matrices of this rank; 1 where a learned number, which an
    export multiplies the second matrix by, takes its place.
    """
    if isinstance(composition, RankStabilised):
        return composition.scale(rank)
    if isinstance(composition, Scaled | Dora) and composition.s != "learned":
        return float(composition.s)
    return 1.0


def _why_not_plain(modification: Modification) -> str | None:
    if not isinstance(modification.form, Linear):
        return "is not LoRA"
    if isinstance(modification.composition, Dora):
        return "has magnitudes beside its two matrices"
    return why_not_lora(modification)


def _reads_its_layers_input(modification: Modification) -> bool:
    """Whether it reads the input of the linear layer whose output it changes."""
    names, insertion = set(modification.place.names), modification.insertion
    if not isinstance(insertion, Parallel) or not names <= _PROJECTIONS | _OUTPUTS:
        return False
    return insertion.reads == "projection_input" or not names & _OUTPUTS


def _why_not_in_weights(modification: Modification, shapes: BackboneShapes) -> str | None:
    form, composition = modification.form, modification.composition
    if PLACES[modification.place.names[0]].body or isinstance(form, Rescale | Vera):
        return None
    if not (isinstance(form, Constant) or _is_linear_in_its_layer(modification)):
        return "computes something that no tensor of the model does"
    if isinstance(composition, SigmoidGate):
        return "has gates that depend on the token"
    adds = isinstance(form, Constant) or getattr(form, "bias", False)
    if adds and not all(site.has_bias for site in modification.place.sites(shapes)):
        return "adds biases to layers that have none"
    return None


def _is_linear_in_its_layer(modification: Modification) -> bool:
    """Whether the new h is a linear function of its layer's input: h = xW + b and Δh = xAB, or
    Δh = hAB, so that the new W is W + AB or W(1 + AB).
    """
    if not isinstance(modification.form, Linear):
        return False
    after = isinstance(modification.insertion, Sequential)
    return _reads_its_layers_input(modification) or (
        after and set(modification.place.names) <= _OUTPUTS
    )
