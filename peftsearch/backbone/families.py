"""Model families: one row each says where a family keeps its sub-layers.

This table is the only place that knows; nothing outside `backbone/` asks for a model type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = [
    *("FAMILIES", "AttentionPaths", "ClassifierPaths", "Family", "FfnPaths", "Part", "Stack"),
]


@dataclass(frozen=True)
class Part:
    """A linear layer, or part `index` of `of` in a fused one's output."""

    path: str
    index: int = 0
    of: int = 1
    per_head: bool = False
    """Fused head by head: each head's query, key and value lie side by side, or each key and value
    head's behind the queries that share them.
    """
    kv_heads: str = ""
    """Attribute of the attention module with the number of heads of keys and values, where a fused
    layer has fewer of them than of queries.
    """


@dataclass(frozen=True)
class AttentionPaths:
    """Modules of one attention sub-layer, relative to its layer."""

    module: str
    """What the attention interface is called with."""
    query: Part
    key: Part
    value: Part
    out: str
    norm: str
    """After the sum in post-norm families, before the sub-layer in pre-norm ones."""
    added: str = ""
    """What the stream is added to, if not the output of `out` (a norm after it)."""

    @classmethod
    def of(cls, module: str, names: str, out: str, norm: str, added: str = "") -> AttentionPaths:
        """`names` of the three projections within `module`; one name: a fused layer."""
        paths = [f"{module}.{name}" for name in names.split()]
        query, key, value = map(Part, paths) if len(paths) == 3 else _fused(paths[0])
        return cls(module, query, key, value, out, norm, added)


def _fused(path: str, per_head: bool = False, kv_heads: str = "") -> tuple[Part, Part, Part]:
    """Query, key and value in one layer's output."""
    query, key, value = (Part(path, index, 3, per_head, kv_heads) for index in range(3))
    return query, key, value


@dataclass(frozen=True)
class FfnPaths:
    """Modules of one feed-forward sub-layer, relative to its layer."""

    hidden: Part
    out: str
    norm: str
    gate: Part | None = None
    """In a gated ffn the projection that passes the activation."""
    added: str = ""
    """As in `AttentionPaths`."""


@dataclass(frozen=True)
class Stack:
    """One stack of layers: the only one, or an encoder-decoder's encoder or decoder."""

    layers: str
    attention: AttentionPaths
    ffn: FfnPaths
    cross: AttentionPaths | None = None
    module: str = ""
    """What reads token ids, relative to the model; empty: the model itself."""
    is_decoder: bool = False


@dataclass(frozen=True)
class ClassifierPaths:
    """In transformers' sequence-classification model of a family: a layer with tanh that reads the
    first token, and the linear layer after it. `{body}` is the body's own name there.
    """

    pooler: str
    classifier: str
    saved: tuple[str, ...]
    """Modules that hold the two, and nothing else."""


@dataclass(frozen=True)
class Family:
    """Where a family keeps things, and the few ways in which it differs from the others."""

    name: str
    model_types: tuple[str, ...]
    stacks: tuple[Stack, ...]
    pre_norm: bool = False
    pooler: str | None = None
    """The pretrained pooler, relative to the model: its `dense` is the layer."""
    classifier: ClassifierPaths | None = None
    """Where transformers classifies as a head with pooler over the first token does."""
    key_bias: Literal["dead", "alive", "rotary"] = "dead"
    """Under plain softmax a bias on the keys gets no gradient; where positions turn or join keys
    it does; `rotary`: only in the dimensions that turn.
    """
    dead: tuple[str, ...] = ()
    """Further tensors, by the end of their names, that get no gradient for the same reason."""
    positions_after_padding: bool = False
    """The position table keeps its first `pad_token_id + 1` rows for itself (fairseq's habit)."""
    takes_prefix: bool = True
    """Whether its attention goes through transformers' attention interface."""
    texts_are_independent: bool = True
    """False: its projections read what belongs to no text, too (DeBERTa's relative positions), so
    that configurations cannot share a forward.
    """
    allows_cuda_graphs: bool = True
    """False: its own code makes tensors on the host in every forward, which no CUDA graph holds."""
    sums_attention: bool = True
    """False: attention and ffn join the stream in one sum."""
    layer_output: Callable[[Any, Any], Any] = field(
        default=lambda states, others: states, compare=False
    )
    """What a layer returns, from its states and the positional arguments after its first."""
    first_layer_shares: bool = False
    """The first layer computes what the others take from it (T5's position bias)."""
    when: Callable[[Any], bool] = field(default=lambda config: True, compare=False)
    """Which configs of its model types the row is for."""
    note: str = ""

    @property
    def is_encoder_decoder(self) -> bool:
        return len(self.stacks) > 1


def _bert(query: str = "query key value") -> tuple[Stack, ...]:
    attention = AttentionPaths.of(
        "attention.self", query, "attention.output.dense", "attention.output.LayerNorm"
    )
    ffn = FfnPaths(Part("intermediate.dense"), "output.dense", "output.LayerNorm")
    return (Stack("encoder.layer", attention, ffn),)


def _bart_attention(name: str) -> AttentionPaths:
    return AttentionPaths.of(name, "q_proj k_proj v_proj", f"{name}.out_proj", f"{name}_layer_norm")


_BART_FFN = FfnPaths(Part("fc1"), "fc2", "final_layer_norm")
_BART = (
    Stack("encoder.layers", _bart_attention("self_attn"), _BART_FFN, module="encoder"),
    Stack(
        "decoder.layers",
        _bart_attention("self_attn"),
        _BART_FFN,
        cross=_bart_attention("encoder_attn"),
        module="decoder",
        is_decoder=True,
    ),
)
_OPT = (replace(_BART[1], cross=None),)


def _t5(gated: bool) -> tuple[Stack, ...]:
    def attention(index: int, module: str) -> AttentionPaths:
        path = f"layer.{index}.{module}"
        return AttentionPaths.of(path, "q k v", f"{path}.o", f"layer.{index}.layer_norm")

    def ffn(index: int) -> FfnPaths:
        path = f"layer.{index}.DenseReluDense"
        hidden, gate = (f"{path}.wi_1", Part(f"{path}.wi_0")) if gated else (f"{path}.wi", None)
        return FfnPaths(Part(hidden), f"{path}.wo", f"layer.{index}.layer_norm", gate)

    own = attention(0, "SelfAttention")
    return (
        Stack("encoder.block", own, ffn(1), module="encoder"),
        Stack(
            "decoder.block",
            own,
            ffn(2),
            cross=attention(1, "EncDecAttention"),
            module="decoder",
            is_decoder=True,
        ),
    )


_LLAMA = Stack(
    "layers",
    AttentionPaths.of("self_attn", "q_proj k_proj v_proj", "self_attn.o_proj", "input_layernorm"),
    FfnPaths(
        Part("mlp.up_proj"), "mlp.down_proj", "post_attention_layernorm", Part("mlp.gate_proj")
    ),
    is_decoder=True,
)
_GEMMA2 = replace(
    _LLAMA,
    attention=replace(_LLAMA.attention, added="post_attention_layernorm"),
    ffn=replace(_LLAMA.ffn, norm="pre_feedforward_layernorm", added="post_feedforward_layernorm"),
)
_GPT2 = Stack(
    "h",
    AttentionPaths.of("attn", "c_attn", "attn.c_proj", "ln_1"),
    FfnPaths(Part("mlp.c_fc"), "mlp.c_proj", "ln_2"),
    is_decoder=True,
)
_NEOX = Stack(
    "layers",
    AttentionPaths(
        "attention",
        *_fused("attention.query_key_value", per_head=True),
        out="attention.dense",
        norm="input_layernorm",
    ),
    FfnPaths(Part("mlp.dense_h_to_4h"), "mlp.dense_4h_to_h", "post_attention_layernorm"),
    is_decoder=True,
)
_PHI3 = replace(
    _LLAMA,
    attention=AttentionPaths(
        "self_attn",
        *_fused("self_attn.qkv_proj", kv_heads="num_key_value_heads"),
        out="self_attn.o_proj",
        norm="input_layernorm",
    ),
    ffn=FfnPaths(
        Part("mlp.gate_up_proj", 1, 2),
        "mlp.down_proj",
        "post_attention_layernorm",
        Part("mlp.gate_up_proj", 0, 2),
    ),
)
_MODERNBERT = Stack(
    "layers",
    AttentionPaths.of("attn", "Wqkv", "attn.Wo", "attn_norm"),
    FfnPaths(Part("mlp.Wi", 1, 2), "mlp.Wo", "mlp_norm", Part("mlp.Wi", 0, 2)),
)
_DISTILBERT = Stack(
    "transformer.layer",
    AttentionPaths.of("attention", "q_lin k_lin v_lin", "attention.out_lin", "sa_layer_norm"),
    FfnPaths(Part("ffn.lin1"), "ffn.lin2", "output_layer_norm"),
)


def _with_nothing(states: Any, others: Any) -> tuple[Any, None]:
    """DeBERTa's and Falcon's layers return attention weights too, or None."""
    return states, None


def _t5_family(name: str, gated: bool, when: Callable[[Any], bool]) -> Family:
    """T5's layers hand on the position biases that the first one computes."""
    return Family(
        name,
        ("t5", "mt5"),
        _t5(gated),
        pre_norm=True,
        layer_output=lambda states, others: (states, others[1], others[4]),
        first_layer_shares=True,
        when=when,
    )


def _decoder(name: str, *model_types: str, stack: Stack = _LLAMA, **options: Any) -> Family:
    """A decoder-only family with rotary positions."""
    return Family(name, model_types, (stack,), pre_norm=True, key_bias="alive", **options)


def _falcon(
    name: str, norms: tuple[str, str], when: Callable[[Any], bool], sums_attention: bool = False
) -> tuple[Family, Family]:
    """Rows of the models with these norms, before attention and before the ffn: with positions that
    turn keys, so that a bias on them gets a gradient, and with ALiBi's, which do not.
    """
    attention = AttentionPaths(
        "self_attention",
        *_fused("self_attention.query_key_value", per_head=True, kv_heads="num_kv_heads"),
        out="self_attention.dense",
        norm=norms[0],
    )
    ffn = FfnPaths(Part("mlp.dense_h_to_4h"), "mlp.dense_4h_to_h", norms[1])
    rotary = Family(
        name,
        ("falcon",),
        (Stack("h", attention, ffn, is_decoder=True),),
        pre_norm=True,
        key_bias="alive",
        takes_prefix=False,
        allows_cuda_graphs=False,  # it takes keys and values out by lists of places
        sums_attention=sums_attention,
        layer_output=_with_nothing,
        when=lambda config: when(config) and not config.alibi,
        note="its attention computes its softmax itself: no prefix can stand inside it",
    )
    return rotary, replace(rotary, key_bias="dead", when=when)


def _is_parallel(config: Any, norms: int) -> bool:
    """Whether a Falcon's attention and ffn read the same stream, through so many norms."""
    two = config.new_decoder_architecture and config.num_ln_in_parallel_attn != 1
    return bool(config.parallel_attn) and norms == (2 if two else 1)


FAMILIES: tuple[Family, ...] = (
    Family(
        "BERT",
        ("bert",),
        _bert(),
        pooler="pooler",
        classifier=ClassifierPaths("{body}.pooler.dense", "classifier", ("pooler", "classifier")),
    ),
    Family(
        "RoBERTa",
        ("roberta", "xlm-roberta", "camembert"),
        _bert(),
        pooler="pooler",
        classifier=ClassifierPaths("classifier.dense", "classifier.out_proj", ("classifier",)),
        positions_after_padding=True,
    ),
    Family("ELECTRA", ("electra",), _bert()),
    Family("DistilBERT", ("distilbert",), (_DISTILBERT,)),
    Family(
        "DeBERTa-v2",
        ("deberta-v2",),
        _bert("query_proj key_proj value_proj"),
        key_bias="alive",
        dead=(".pos_key_proj.bias",),
        takes_prefix=False,
        texts_are_independent=False,
        layer_output=_with_nothing,
        note="its attention adds terms of relative positions: no prefix can stand beside them",
        when=lambda config: "p2c" in (config.pos_att_type or ()),
    ),
    Family(
        "DeBERTa-v2",
        ("deberta-v2",),
        _bert("query_proj key_proj value_proj"),
        dead=(".pos_key_proj.bias",),
        takes_prefix=False,
        texts_are_independent=False,
        layer_output=_with_nothing,
    ),
    Family("ModernBERT", ("modernbert",), (_MODERNBERT,), pre_norm=True, key_bias="alive"),
    Family("BART", ("bart",), _BART),
    Family("mBART", ("mbart",), _BART, pre_norm=True),
    Family("Marian", ("marian",), _BART),
    Family("Pegasus", ("pegasus",), _BART, pre_norm=True),
    _t5_family("T5", False, when=lambda config: not config.is_gated_act),
    _t5_family("T5, gated ffn", True, when=lambda config: config.is_gated_act),
    Family("GPT-2", ("gpt2",), (_GPT2,), pre_norm=True),
    Family(
        "GPT-NeoX",
        ("gpt_neox",),
        (_NEOX,),
        pre_norm=True,
        key_bias="rotary",
        sums_attention=False,
        when=lambda config: config.use_parallel_residual,
    ),
    Family("GPT-NeoX, one sum each", ("gpt_neox",), (_NEOX,), pre_norm=True, key_bias="rotary"),
    Family("OPT", ("opt",), _OPT, pre_norm=True, when=lambda config: config.do_layer_norm_before),
    Family("OPT, norm after", ("opt",), _OPT),
    _decoder("Llama", "llama"),
    _decoder("Mistral", "mistral"),
    _decoder("Qwen2", "qwen2"),
    _decoder("Qwen3", "qwen3"),
    _decoder("Gemma", "gemma"),
    _decoder("Gemma 2", "gemma2", "gemma3_text", stack=_GEMMA2),
    _decoder("Phi-3", "phi3", stack=_PHI3),
    *_falcon(
        *("Falcon", ("input_layernorm", "input_layernorm")),
        when=lambda config: _is_parallel(config, norms=1),
    ),
    *_falcon(
        *("Falcon, two norms", ("ln_attn", "ln_mlp")),
        when=lambda config: _is_parallel(config, norms=2),
    ),
    *_falcon(
        *("Falcon, one sum each", ("input_layernorm", "post_attention_layernorm")),
        when=lambda config: not config.parallel_attn and not config.new_decoder_architecture,
        sums_attention=True,
    ),
)
