"""The methods of the literature as named points of the design space (He et al. 2022, Table 1).

A method is a shape with the widths its authors use; in a search its widths may instead be solved
for a stated budget, keeping the proportions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from peftsearch.design.composition import Gated, Scaled
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import Constant, Dense, Linear, Prefix, Relu
from peftsearch.design.insertion import Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["METHODS", "Method", "method"]


@dataclass(frozen=True)
class Method:
    """A named configuration; `source` is the paper, `modifications` carry its usual widths."""

    name: str
    title: str
    source: str
    modifications: tuple[Modification, ...]
    head: Head = field(default_factory=Head)

    def configuration(
        self, head: Head | None = None, training: Training | None = None
    ) -> Configuration:
        """The point itself, with a head and training of the caller's choice."""
        return Configuration(self.modifications, head or self.head, training or Training())


_BERT_RELU = Relu(init="bert")
_HE = "He et al. 2022, arXiv 2110.04366"
_PREFIX = Modification(Prefix(), Place.parse("attn.heads"), composition=Gated(), width=16)

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method("head-only-first", "head only, first token", "", (), Head("first")),
        Method("head-only-mean", "head only, mean pooling", "", (), Head("mean")),
        Method(
            "bitfit",
            "BitFit",
            "Ben Zaken et al. 2022, arXiv 2106.10199",
            (Modification(Constant(), Place.parse("biases")),),
        ),
        Method(
            "lora",
            "LoRA (attention)",
            "Hu et al. 2022, arXiv 2106.09685",
            (
                Modification(
                    Linear(), Place.parse("attn.query+value"), composition=Scaled(2), width=8
                ),
            ),
        ),
        Method(
            "lora-ffn",
            "LoRA (ffn)",
            _HE,
            (
                Modification(
                    Linear(),
                    Place.parse("ffn.hidden+out"),
                    Parallel("projection_input"),
                    Scaled(4),
                    width=8,
                ),
            ),
        ),
        Method(
            "lora-all",
            "LoRA (every linear layer)",
            "Dettmers et al. 2023, arXiv 2305.14314, section 5",
            (
                Modification(
                    Linear(),
                    Place.parse("attn.query+key+value+out"),
                    Parallel("projection_input"),
                    Scaled(2),
                    width=8,
                ),
                Modification(
                    Linear(),
                    Place.parse("ffn.hidden+out"),
                    Parallel("projection_input"),
                    Scaled(2),
                    width=8,
                ),
            ),
        ),
        Method("prefix", "prefix tuning", "Li and Liang 2021, arXiv 2101.00190", (_PREFIX,)),
        Method(
            "houlsby",
            "Houlsby adapter",
            "Houlsby et al. 2019, arXiv 1902.00751",
            (
                Modification(_BERT_RELU, Place.parse("attn.out"), Sequential(), width=32),
                Modification(_BERT_RELU, Place.parse("ffn.out"), Sequential(), width=32),
            ),
        ),
        Method(
            "pfeiffer",
            "Pfeiffer adapter",
            "Pfeiffer et al. 2021, arXiv 2005.00247",
            (Modification(_BERT_RELU, Place.parse("residual.ffn"), Sequential(), width=48),),
        ),
        Method(
            "parallel-adapter-attn",
            "parallel adapter (attention)",
            _HE,
            (Modification(_BERT_RELU, Place.parse("attn.heads"), width=32),),
        ),
        Method(
            "parallel-adapter-ffn",
            "parallel adapter (ffn)",
            _HE,
            (Modification(_BERT_RELU, Place.parse("ffn.out"), width=64),),
        ),
        Method(
            "scaled-parallel-adapter",
            "scaled parallel adapter (ffn)",
            _HE,
            (Modification(Relu(), Place.parse("ffn.out"), composition=Scaled(4), width=64),),
        ),
        Method(
            "mam",
            "mix-and-match adapter",
            f"{_HE}, section 4.6; widths and s as on GLUE",
            (
                _PREFIX,
                Modification(Relu(), Place.parse("ffn.out"), composition=Scaled(2), width=16),
            ),
        ),
        Method(
            "full",
            "full fine-tuning",
            "",
            (Modification(Dense(), Place.parse("weights")),),
        ),
    )
}


def method(name: str) -> Method:
    """The named method, or a ConfigurationError with the nearest name."""
    if name not in METHODS:
        raise ConfigurationError(f"method '{name}' unknown{did_you_mean(name, METHODS)}")
    return METHODS[name]
