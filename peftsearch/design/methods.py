"""Published methods as named points of the design space (He et al. 2022, Table 1).

A method is a shape with the widths its authors use; in a search its widths may instead be solved
for a stated budget, keeping the proportions. Places that a backbone does not have (the gate of an
ffn that is not gated) are left out there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from peftsearch.design.composition import (
    Add,
    Composition,
    Dora,
    Gated,
    RankStabilised,
    Scaled,
    SigmoidGate,
    TanhGate,
)
from peftsearch.design.configuration import Configuration, Head, Training
from peftsearch.design.form import (
    Constant,
    Dense,
    Form,
    Gelu,
    Kronecker,
    Linear,
    Loreft,
    Prefix,
    PrefixRelu,
    Prompt,
    Relu,
    Rescale,
    Silu,
    Sparse,
    Swiglu,
    Vera,
)
from peftsearch.design.insertion import Insertion, Parallel, Sequential
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.errors import ConfigurationError, did_you_mean

__all__ = ["METHODS", "Method", "method"]


@dataclass(frozen=True)
class Method:
    """A published configuration with a name; `modifications` have its authors' widths.

    >>> from peftsearch.design.methods import METHODS
    >>> METHODS["lora"].configuration().describe()
    'linear∥attn.query+value r=8 s=2'
    """

    name: str
    title: str
    source: str
    """The paper, with its arXiv number."""
    modifications: tuple[Modification, ...]
    head: Head = field(default_factory=Head)
    training: Training = field(default_factory=Training)
    """Training hyperparameters that belong to the method: LoRA+'s ratio of learning rates."""

    def configuration(
        self, head: Head | None = None, training: Training | None = None
    ) -> Configuration:
        """The configuration, with a head and training of the caller's choice."""
        training = training or Training()
        ratio = self.training.up_lr_ratio
        if ratio != 1:
            training = replace(training, up_lr_ratio=ratio)
        return Configuration(self.modifications, head or self.head, training)


def _at(
    place: str,
    form: Form,
    width: int | None = None,
    composition: Composition | None = None,
    insertion: Insertion | None = None,
) -> Modification:
    return Modification(
        form, Place.parse(place), insertion or Parallel(), composition or Add(), width
    )


_HE = "He et al. 2022, arXiv 2110.04366"
_HU = "Hu et al. 2022, arXiv 2106.09685"
_BERT_RELU = Relu(init="bert")
_PROJECTION, _SEQUENTIAL = Parallel("projection_input"), Sequential()
_PREFIX = _at("attn.heads", Prefix(), 16, Gated())
_FFN = "ffn.hidden+gate+out"


def _adapters(form: Form, width: int) -> tuple[Modification, ...]:
    """After attention and after the ffn, sequentially: Houlsby's two places."""
    places = ("attn.out", "ffn.out")
    return tuple(_at(place, form, width, insertion=_SEQUENTIAL) for place in places)


def _lora(form: Linear, composition: Composition) -> tuple[Modification, ...]:
    return (_at("attn.query+value", form, 8, composition),)


_PAPER = (
    Method("head-only-first", "head only, first token", "", (), Head("first")),
    Method("head-only-mean", "head only, mean pooling", "", (), Head("mean")),
    Method("full", "full fine-tuning", "", (_at("weights", Dense()),)),
    Method(
        "bitfit",
        "BitFit",
        "Ben Zaken et al. 2022, arXiv 2106.10199; without dead key biases",
        (_at("biases", Constant()),),
    ),
    Method(
        "bitfit-all",
        "BitFit, every bias",
        "Ben Zaken et al. 2022, arXiv 2106.10199",
        (_at("all_biases", Constant()),),
    ),
    Method("lora", "LoRA (attention)", _HU, _lora(Linear(), Scaled(2))),
    Method("lora-ffn", "LoRA (ffn)", _HE, (_at(_FFN, Linear(), 8, Scaled(4), _PROJECTION),)),
    Method(
        "lora-all",
        "LoRA (every linear layer)",
        "Dettmers et al. 2023, arXiv 2305.14314, section 5",
        (
            _at("attn.query+key+value+out", Linear(), 8, Scaled(2), _PROJECTION),
            _at(_FFN, Linear(), 8, Scaled(2), _PROJECTION),
        ),
    ),
    Method("prefix", "prefix tuning", "Li and Liang 2021, arXiv 2101.00190", (_PREFIX,)),
    Method(
        "prefix-mlp",
        "prefix tuning, re-parametrised",
        "Li and Liang 2021, arXiv 2101.00190, section 4.3",
        (_at("attn.heads", Prefix(mlp=800), 16, Gated()),),
    ),
    Method(
        "prompt",
        "prompt tuning",
        "Lester et al. 2021, arXiv 2104.08691",
        (_at("embedding", Prompt(), 20, Gated()),),
    ),
    Method(
        "houlsby",
        "Houlsby adapter",
        "Houlsby et al. 2019, arXiv 1902.00751",
        _adapters(_BERT_RELU, 32),
    ),
    Method(
        "pfeiffer",
        "Pfeiffer adapter",
        "Pfeiffer et al. 2021, arXiv 2005.00247",
        (_at("residual.ffn", _BERT_RELU, 48, insertion=_SEQUENTIAL),),
    ),
    Method(
        "parallel-adapter-attn",
        "parallel adapter (attention)",
        _HE,
        (_at("attn.heads", _BERT_RELU, 32),),
    ),
    Method(
        "parallel-adapter-ffn", "parallel adapter (ffn)", _HE, (_at("ffn.out", _BERT_RELU, 64),)
    ),
    Method(
        "multi-head-pa",
        "multi-head parallel adapter",
        f"{_HE}, section 4.3",
        (_at("attn.heads", PrefixRelu(), 16),),
    ),
    Method(
        "ungated-prefix",
        "prefix tuning without its gate",
        f"{_HE}, section 4.4",
        (_at("attn.heads", Prefix(), 16),),
    ),
    Method(
        "scaled-parallel-adapter",
        "scaled parallel adapter (ffn)",
        _HE,
        (_at("ffn.out", Relu(), 64, Scaled(4)),),
    ),
    Method(
        "scaled-pa-learned",
        "scaled parallel adapter (ffn), learned s",
        f"{_HE}, Table 5",
        (_at("ffn.out", Relu(), 64, Scaled("learned")),),
    ),
    Method(
        "pa-pa",
        "parallel adapters (attention and ffn)",
        f"{_HE}, Table 6",
        (_at("attn.heads", _BERT_RELU, 16), _at("ffn.out", _BERT_RELU, 64)),
    ),
    Method(
        "prefix-lora-ffn",
        "prefix tuning and LoRA (ffn)",
        f"{_HE}, Table 6",
        (_PREFIX, _at(_FFN, Linear(), 8, Scaled(4), _PROJECTION)),
    ),
    Method(
        "mam",
        "mix-and-match adapter",
        f"{_HE}, section 4.6; widths and s as on GLUE",
        (_PREFIX, _at("ffn.out", Relu(), 16, Scaled(2))),
    ),
    Method(
        "diff-pruning",
        "diff-pruning",
        "Guo et al. 2021, arXiv 2012.07463; .5 % of MiniLM, in a search as much as the budget",
        (_at("weights", Sparse(), 112_826),),
    ),
)

_BEYOND = (
    Method(
        "ia3",
        "(IA)³",
        "Liu et al. 2022, arXiv 2205.05638",
        (
            _at("attn.key+value", Rescale(), insertion=_SEQUENTIAL),
            _at("ffn.activated", Rescale(), insertion=_SEQUENTIAL),
        ),
    ),
    Method(
        "ln-tuning", "norm tuning", "Zhao et al. 2023, arXiv 2312.11420", (_at("norm", Constant()),)
    ),
    Method(
        "bitfit-norm",
        "BitFit and norm tuning",
        "both of the above",
        (_at("biases+norm", Constant()),),
    ),
    Method(
        "added-biases",
        "biases added to every linear layer but keys and values",
        "BitFit where a family has no biases",
        (_at("attn.query+out", Constant()), _at(_FFN, Constant())),
    ),
    Method(
        "rslora",
        "rank-stabilised LoRA",
        "Kalajdzievski 2023, arXiv 2312.03732",
        _lora(Linear(), RankStabilised(8)),
    ),
    Method("pissa", "PiSSA", "Meng et al. 2024, arXiv 2404.02948", _lora(Linear("pissa"), Add())),
    Method(
        "lora-plus",
        "LoRA+",
        "Hayou et al. 2024, arXiv 2402.12354",
        _lora(Linear(), Scaled(2)),
        training=Training(up_lr_ratio=16),
    ),
    Method("dora", "DoRA", "Liu et al. 2024, arXiv 2402.09353", _lora(Linear(), Dora(2))),
    Method(
        "loreft",
        "LoReFT",
        "Wu et al. 2024, arXiv 2404.03592; at every token",
        (_at("residual.ffn", Loreft(), 4, insertion=_SEQUENTIAL),),
    ),
    Method(
        "compacter",
        "Compacter",
        "Karimi Mahabadi et al. 2021, arXiv 2106.04647",
        _adapters(Kronecker(), 8),
    ),
    Method(
        "vera",
        "VeRA",
        "Kopiczko et al. 2024, arXiv 2310.11454",
        (_at("attn.query+value", Vera(), 256),),
    ),
    Method(
        "unipelt",
        "UniPELT: gated prefix, LoRA and adapter",
        "Mao et al. 2022, arXiv 2110.07577",
        (
            _at("attn.heads", Prefix(), 10, SigmoidGate()),
            _at("attn.query+value", Linear(), 8, SigmoidGate()),
            _at("ffn.out", Relu(), 48, SigmoidGate(), _SEQUENTIAL),
        ),
    ),
    Method(
        "zero-init-attention",
        "prefix behind a tanh gate a head",
        "Zhang et al. 2024, arXiv 2303.16199 (LLaMA-Adapter)",
        (_at("attn.heads", Prefix(init="normal"), 10, TanhGate()),),
    ),
    Method("gelu-adapter", "adapter with GELU", "arXiv 1606.08415", _adapters(Gelu(), 32)),
    Method("silu-adapter", "adapter with SiLU", "arXiv 1702.03118", _adapters(Silu(), 32)),
    Method("swiglu-adapter", "adapter with SwiGLU", "arXiv 2002.05202", _adapters(Swiglu(), 21)),
)

METHODS: dict[str, Method] = {m.name: m for m in (*_PAPER, *_BEYOND)}


def method(name: str) -> Method:
    """The named method, or a ConfigurationError with the nearest name."""
    if name not in METHODS:
        raise ConfigurationError(f"method '{name}' unknown{did_you_mean(name, METHODS)}")
    return METHODS[name]
