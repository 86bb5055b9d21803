"""Predicted cost of a trial: its training and evaluation, and what makes it expensive.

One scale, seconds per multiply-add, turns the costs of one study into seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from statistics import median

from peftsearch.design.configuration import Configuration
from peftsearch.design.cost.body import ELEMENT, LAYER, BodyLayer, body_layers, vocabulary
from peftsearch.design.cost.modifications import by_step, by_token, prefixes, tuned_matrices
from peftsearch.design.forms.prefix import Prompt
from peftsearch.design.shapes import BackboneShapes

__all__ = ["SHARED_BY", "TYPICAL_S", "TrialCost", "Workload", "scale_of", "trial_cost"]

SHARED_BY = 8
"""Trials of a search that are expected to leave the same layers unchanged."""
TYPICAL_S = 1 / 4e10
"""Seconds per multiply-add of one CPU core where nothing has been measured: `benchmarks/
trial_cost.py` on a busy core. In the recorded studies it was 1/5e10 to 1/16e10.
"""

_UPDATED = 15 * ELEMENT
"""Multiply-adds in the time of clipping, averaging and updating one trained parameter (AdamW)."""
_PASS_TOKENS = 2048
"""Tokens of a batch of evaluation."""


@dataclass(frozen=True)
class Workload:
    """Texts read and written by a trial of full length; tokens are means, with padding."""

    steps: int
    batch: float
    """Texts of a step."""
    tokens: float
    """Tokens of a text that is trained, its target not counted."""
    evaluated: float
    """Texts evaluated, at all rungs together."""
    evaluated_tokens: float
    target_tokens: float = 0.0
    """Tokens of a text that is written; 0: a head predicts labels or numbers."""
    passes: float = 1.0
    """Times that each text is trained."""
    kept: bool = True
    """Whether states of frozen layers are computed once for several trials."""

    def without_kept(self) -> Workload:
        """The same, with every layer computed in every pass."""
        return replace(self, kept=False)

    def cut_to(self, length: float) -> Workload:
        """The same, with texts of at most so many tokens."""
        tokens, evaluated = min(self.tokens, length), min(self.evaluated_tokens, length)
        return replace(self, tokens=tokens, evaluated_tokens=evaluated)


@dataclass(frozen=True)
class TrialCost:
    """Multiply-adds of a trial of full length, by what they are spent on."""

    forward: float
    """The frozen body, in training."""
    backward: float
    """Gradients of its representations, down to the lowest modified layer."""
    prompts: float
    """Cost of a prompt's tokens in both."""
    prefixes: float
    """Cost of the keys and values of prefixes in both."""
    weights: float
    """Gradients and copies of the body's own matrices, where these are tuned."""
    modifications: float
    """Other modifications, forward and backward."""
    updates: float
    """Updates of the trained parameters."""
    evaluation: float

    @property
    def total(self) -> float:
        """Their sum."""
        return float(sum(getattr(self, f.name) for f in fields(self)))

    @property
    def reason(self) -> str:
        """The largest part that another configuration would not have, in words."""
        own = {
            "its gradients pass through many layers": self.backward,
            "its prompt lengthens every text": self.prompts,
            "its prefixes lengthen every attention": self.prefixes,
            "it tunes weights of the body themselves": self.weights + self.updates,
            "its modifications are wide": self.modifications,
        }
        return max(own, key=lambda reason: own[reason])


def trial_cost(
    configuration: Configuration, shapes: BackboneShapes, workload: Workload
) -> TrialCost:
    """The predicted cost of training a configuration to full length, with its evaluations.

    >>> from peftsearch.backbone.loading.load import load_shapes
    >>> from peftsearch.design.cost.trial import Workload, trial_cost
    >>> from peftsearch.design.methods import METHODS
    >>> shapes, workload = load_shapes("config:bert-base"), Workload(100, 32, 20, 500, 20)
    >>> full, lora = (METHODS[name].configuration().within(shapes) for name in ("full", "lora"))
    >>> trial_cost(full, shapes, workload).total > trial_cost(lora, shapes, workload).total
    True
    """
    return _Trial(configuration, shapes, workload).cost()


def scale_of(costs: Sequence[float], seconds: Sequence[float]) -> float:
    """Seconds per multiply-add of trials with these costs, one at least: the median, which a trial
    on a busy machine does not move.
    """
    return median(s / cost for cost, s in zip(costs, seconds, strict=True))


class _Trial:
    """The terms of one trial's cost."""

    def __init__(
        self, configuration: Configuration, shapes: BackboneShapes, workload: Workload
    ) -> None:
        self.configuration, self.shapes = configuration, shapes
        self.load = workload.cut_to(configuration.training.max_length or inf)
        self.layers, self.modifications = body_layers(shapes), configuration.modifications
        sites = [site for m in self.modifications for site, _ in m.sources(shapes)]
        layers = (-1 if site.layer is None else site.layer for site in sites)
        self.lowest = min(layers, default=len(self.layers))
        kept = workload.kept and not configuration.training.dropout
        self.frozen = configuration.frozen_layers(shapes) if kept else 0
        self.prompt = sum(m.widest for m in self.modifications if isinstance(m.form, Prompt))
        self.prefix: dict[int, int] = defaultdict(int)
        for m in self.modifications:
            for layer, keys in prefixes(m, shapes):
                self.prefix[layer] += keys
        self.sites = [site for m in self.modifications for site in by_token(m, shapes)]

    def cost(self) -> TrialCost:
        """The whole cost; of a model that is neither tuned nor given a head, the evaluation's."""
        load, modifications = self.load, self.modifications
        trains = bool(modifications) or self.configuration.head.pooling != "none"
        steps = load.steps if trains else 0
        texts = steps * load.batch
        forward, backward = self._text(0, with_prefixes=False)
        whole = sum(self._text(0, with_prefixes=True))
        longer = sum(self._text(self.prompt, with_prefixes=True))
        matrices = sum(tuned_matrices(m, self.shapes) for m in modifications)
        each_step = sum(by_step(m, self.shapes) for m in modifications)
        trained = self.configuration.trained_parameters(self.shapes, outputs=2)
        return TrialCost(
            forward=texts * forward,
            backward=texts * backward,
            prompts=texts * (longer - whole),
            prefixes=texts * (whole - forward - backward),
            weights=matrices * (texts * load.tokens + 4 * ELEMENT * steps),
            # Backward, a product takes one for its input's gradient and one for its weight's.
            modifications=3 * (texts * self._modified(load.tokens) + steps * each_step),
            updates=steps * trained * _UPDATED,
            evaluation=load.evaluated * self._evaluated(),
        )

    def _text(self, prompt: int, with_prefixes: bool) -> tuple[float, float]:
        """The body's forward and backward for one text in training."""
        load = self.load
        tokens = load.tokens + prompt
        # With checkpointing, the forward is computed anew for its gradients.
        again = 2.0 if self.configuration.training.checkpointing else 1.0
        forward = backward = 0.0
        for layer in self.layers:
            prefix = self.prefix[layer.index] if with_prefixes else 0
            once = self._forward(layer, tokens, load.target_tokens, prefix) + LAYER / load.batch
            kept = layer.index < self.frozen
            forward += once / (SHARED_BY * load.passes) if kept else once
            backward += again * once if layer.index >= self.lowest else 0.0
        logits = vocabulary(self.shapes) * load.target_tokens
        return forward + logits, backward + (logits if self.modifications else 0.0)

    def _forward(self, layer: BodyLayer, tokens: float, target: float, prefix: int) -> float:
        """One layer for one text of so many tokens, and a target of so many."""
        length = self._length(layer, tokens, target)
        return layer.forward(1.0 if self._is_one(layer) else length, length, tokens, prefix)

    def _is_one(self, layer: BodyLayer) -> bool:
        """Whether a layer, the last, computes only the token that the head reads."""
        is_last = layer.index == len(self.layers) - 1
        return is_last and self.configuration.head.pooling in ("first", "last")

    def _length(self, layer: BodyLayer, tokens: float, target: float) -> float:
        """Tokens of a text in one layer: a decoder alone reads the target after the text."""
        if len(self.shapes.stacks) == 2:
            return (target or tokens) if layer.is_second else tokens
        return tokens + target

    def _modified(self, tokens: float) -> float:
        """Cost of the modifications in the forward of one text."""
        found = 0.0
        for site in self.sites:
            layer = self.layers[site.layer]
            length = self._length(layer, tokens + self.prompt, self.load.target_tokens)
            one = self._is_one(layer) and not site.every_token
            found += site.products * (1.0 if one else length)
        return found

    def _evaluated(self) -> float:
        """One text's forward, and the tokens that it is followed by if the task is to write."""
        load = self.load
        tokens = load.evaluated_tokens + self.prompt
        each = LAYER / max(1.0, _PASS_TOKENS / tokens)
        target = load.target_tokens
        kept = 0 if target else self.frozen
        read = 0.0
        for layer in self.layers:
            once = each + self._forward(layer, tokens, target, self.prefix[layer.index])
            read += once / SHARED_BY if layer.index < kept else once
        # A token that is written starts every layer's operations by itself.
        written = target * (len(self.layers) * each + vocabulary(self.shapes))
        return read + written + self._modified(load.evaluated_tokens)
