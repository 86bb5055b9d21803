"""The table of model families: the module paths of their sub-layers, one row a family.

This table is the only place that knows them; nothing outside `backbone/` asks for a model type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from peftsearch.backbone.family import (
    AttentionPaths,
    ClassifierPaths,
    Family,
    FfnPaths,
    Part,
    Stack,
    fused_parts,
)

__all__ = [
    "FAMILIES",
    "AttentionPaths",
    "ClassifierPaths",
    "Family",
    "FfnPaths",
    "Part",
    "Stack",
]


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
# OPT's layers are BART's decoder layers without cross-attention.
_OPT = (replace(_BART[1], cross=None),)


def _t5(gated: bool) -> tuple[Stack, ...]:
    def attention(index: int, module: str) -> AttentionPaths:
        path = f"layer.{index}.{module}"
        return AttentionPaths.of(path, "q k v", f"{path}.o", f"layer.{index}.layer_norm")

    def ffn(index: int) -> FfnPaths:
        path = f"layer.{index}.DenseReluDense"
        # wi_0 passes the activation and gates wi_1.
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
# Norms around each sub-layer: the second one's output, not W_o's, is added to the stream.
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
# One layer [hidden, 3 · hidden] with each head's query, key and value side by side.
_NEOX = Stack(
    "layers",
    AttentionPaths(
        "attention",
        *fused_parts("attention.query_key_value", per_head=True),
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
        *fused_parts("self_attn.qkv_proj", kv_heads="num_key_value_heads"),
        out="self_attn.o_proj",
        norm="input_layernorm",
    ),
    # The first half of the fused output passes the activation, and gates the second.
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
    # As in Phi-3: the first half passes the activation.
    FfnPaths(Part("mlp.Wi", 1, 2), "mlp.Wo", "mlp_norm", Part("mlp.Wi", 0, 2)),
)
_DISTILBERT = Stack(
    "transformer.layer",
    AttentionPaths.of("attention", "q_lin k_lin v_lin", "attention.out_lin", "sa_layer_norm"),
    FfnPaths(Part("ffn.lin1"), "ffn.lin2", "output_layer_norm"),
)


def _with_nothing(states: Any, others: Any) -> tuple[Any, None]:
    """The value of a layer that returns attention weights beside the states (DeBERTa, Falcon)."""
    return states, None


def _t5_family(name: str, gated: bool, when: Callable[[Any], bool]) -> Family:
    """A row of T5. Its layers return (states, position bias, cross-attention's position bias); the
    first layer computes the biases, the others get them as arguments 1 and 4 after the states.
    """
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
    """A row of a decoder-only family with rotary positions."""
    return Family(name, model_types, (stack,), pre_norm=True, key_bias="alive", **options)


def _falcon(
    name: str, norms: tuple[str, str], when: Callable[[Any], bool], sums_attention: bool = False
) -> tuple[Family, Family]:
    """Two rows of Falcon with these norms, before attention and before the ffn: one with rotary
    positions, which turn keys, so that a bias on them gets a gradient; one with ALiBi, which does
    not.
    """
    attention = AttentionPaths(
        "self_attention",
        *fused_parts("self_attention.query_key_value", per_head=True, kv_heads="num_kv_heads"),
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
        allows_cuda_graphs=False,  # it indexes keys and values by Python lists, made on the host
        sums_attention=sums_attention,
        layer_output=_with_nothing,
        when=lambda config: when(config) and not config.alibi,
        note="its attention computes its softmax itself: no prefix can stand inside it",
    )
    return rotary, replace(rotary, key_bias="dead", when=when)


def _is_parallel(config: Any, norms: int) -> bool:
    """Whether a Falcon's attention and ffn read the same stream, through `norms` norms."""
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
    # With p2c, queries of positions meet the keys, so that a bias on the keys shifts logits by
    # relative position; a bias on the positions' keys (c2p) still shifts all of a query alike.
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
    # All sizes of OPT but 350m norm before the sub-layers.
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
