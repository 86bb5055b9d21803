"""Counts against arithmetic by hand, the paper's printed numbers and docs/counts.md.

Models stand on the meta device, built from their public configuration values: nothing is loaded.
"""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from operator import add, mul
from pathlib import Path

import peft
import pytest
import torch
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    LlamaConfig,
    MBartConfig,
    PretrainedConfig,
    RobertaConfig,
)

from peftsearch.backbone.loading.load import shapes_of
from peftsearch.design.composition import Gated
from peftsearch.design.configuration import Configuration
from peftsearch.design.form import Prefix
from peftsearch.design.methods import METHODS
from peftsearch.design.modification import Modification
from peftsearch.design.place import Place
from peftsearch.design.shapes import BackboneShapes

DOCUMENT = (Path(__file__).parents[2] / "docs" / "counts.md").read_text(encoding="utf-8")

_LARGE = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "BART-large": BartConfig(vocab_size=50265, **_LARGE),
    "mBART-large": MBartConfig(vocab_size=250027, **_LARGE),
    "RoBERTa-base": RobertaConfig(
        vocab_size=50265,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=514,
        type_vocab_size=1,
    ),
    "MiniLM": BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
        type_vocab_size=2,
    ),
}


@lru_cache
def shapes(model: str) -> BackboneShapes:
    return shapes_of(CONFIGS[model])


def at_widths(name: str, *widths: int) -> Configuration:
    """A named method with other widths, in the order of its modifications."""
    pairs = zip(METHODS[name].modifications, widths, strict=True)
    return Configuration(tuple(m.with_width(w) for m, w in pairs))


# -- bodies ------------------------------------------------------------------------------------


def _bart_body(vocabulary: int, norms_after_stacks: int) -> int:
    d, d_ff, norm = 1024, 4096, 2 * 1024
    attention = 4 * (d * d + d)
    ffn = d * d_ff + d_ff + d_ff * d + d
    encoder = 12 * (attention + norm + ffn + norm)
    decoder = 12 * (2 * (attention + norm) + ffn + norm)
    positions = 2 * (1024 + 2) * d  # BART's position table has two rows more than positions
    return vocabulary * d + positions + 2 * norm + encoder + decoder + norms_after_stacks * norm


def _bert_body(vocabulary: int, positions: int, types: int, d: int, d_ff: int, layers: int) -> int:
    embeddings = (vocabulary + positions + types) * d + 2 * d
    layer = 4 * (d * d + d) + 2 * (2 * d) + d * d_ff + d_ff + d_ff * d + d
    return embeddings + layers * layer


BODIES = {
    "BART-large": _bart_body(50265, 0),
    "mBART-large": _bart_body(250027, 2),
    "RoBERTa-base": _bert_body(50265, 514, 1, 768, 3072, 12),
    "MiniLM": _bert_body(30522, 512, 2, 384, 1536, 6),
}


@pytest.mark.parametrize("model", BODIES)
def test_a_body_is_the_sum_of_its_matrices(model: str) -> None:
    assert shapes(model).body_parameters == BODIES[model]


def test_the_bodies_have_the_sizes_measured_on_the_released_weights() -> None:
    assert (BODIES["BART-large"], BODIES["RoBERTa-base"]) == (406_291_456, 124_055_040)
    assert (BODIES["MiniLM"], BODIES["mBART-large"]) == (22_565_376, 610_851_840)


# -- the paper's configurations ----------------------------------------------------------------

PAPER: list[tuple[str, tuple[int, ...], str, int, str]] = [
    ("prefix", (200,), "BART-large", 36 * 2 * 200 * 1024, "3.63"),
    ("mam", (30, 512), "BART-large", 36 * 2 * 30 * 1024 + 24 * 2 * 512 * 1024, "6.74"),
    ("parallel-adapter-ffn", (512,), "BART-large", 24 * 2 * 512 * 1024, "6.19"),
    ("parallel-adapter-ffn", (1024,), "BART-large", 24 * 2 * 1024 * 1024, "12.39"),
    ("scaled-parallel-adapter", (512,), "BART-large", 24 * 2 * 512 * 1024, "6.19"),
    ("prompt", (300,), "BART-large", 300 * 1024, "0.076"),
    ("lora-ffn", (102,), "BART-large", 24 * 2 * 102 * (1024 + 4096), "6.17"),
    ("lora-ffn", (120,), "BART-large", 24 * 2 * 120 * (1024 + 4096), "7.26"),
    ("lora", (200,), "BART-large", 36 * 2 * 200 * (1024 + 1024), "7.26"),
    ("pfeiffer", (600,), "BART-large", 24 * 2 * 600 * 1024, "7.26"),
    ("parallel-adapter-attn", (30,), "BART-large", 36 * 2 * 30 * 1024, "0.54"),
    ("parallel-adapter-ffn", (30,), "BART-large", 24 * 2 * 30 * 1024, "0.36"),
    ("mam", (16, 16), "RoBERTa-base", 589_824, "0.475"),
    ("mam", (30, 512), "mBART-large", 36 * 2 * 30 * 1024 + 24 * 2 * 512 * 1024, "4.48"),
]


@pytest.mark.parametrize(("name", "widths", "model", "count", "printed"), PAPER)
def test_the_papers_configurations_have_their_recomputed_percentages(
    name: str, widths: tuple[int, ...], model: str, count: int, printed: str
) -> None:
    configuration = at_widths(name, *widths)
    assert configuration.tuned_parameters(shapes(model)) == count
    assert _printed(configuration.tuned_pct(shapes(model)), printed) == float(printed)


@pytest.mark.parametrize(
    ("name", "model", "count", "printed"),
    [
        ("bitfit", "BART-large", 12 * 10_240 + 12 * 14_336 + 2_048, "0.0731"),
        ("bitfit-all", "BART-large", 12 * 11_264 + 12 * 16_384 + 2_048, "0.082"),
        ("bitfit", "MiniLM", 6 * (3 * 384 + 1536 + 384 + 2 * 384) + 384, "0.1038"),
        ("bitfit-all", "MiniLM", 6 * (4 * 384 + 1536 + 384 + 2 * 384) + 384, "0.1140"),
    ],
)
def test_bitfit_counts_the_biases(name: str, model: str, count: int, printed: str) -> None:
    configuration = METHODS[name].configuration()
    assert configuration.tuned_parameters(shapes(model)) == count
    assert _printed(configuration.tuned_pct(shapes(model)), printed) == float(printed)


def _printed(pct: float, like: str) -> float:
    """Rounded to as many decimals as `like` shows."""
    return round(pct, len(like.partition(".")[2]))


# -- places in an encoder-decoder, and grouped queries -----------------------------------------


def test_encoder_self_decoder_self_and_cross_attention_are_a_third_each() -> None:
    for kind in ("enc_self", "dec_self", "cross"):
        place = Place.parse(f"attn.heads@{kind}")
        one = Modification(Prefix(), place, composition=Gated(), width=200)
        assert one.parameters(shapes("BART-large")) == 12 * 2 * 200 * 1024


def test_a_prefix_beside_grouped_queries_has_as_many_heads_as_keys() -> None:
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    llama = shapes_of(config)
    assert at_widths("prefix", 10).tuned_parameters(llama) == 32 * 2 * 10 * (8 * 128)
    # (IA)³ rescales keys and values of 8 heads, and the hidden state of the ffn
    assert METHODS["ia3"].configuration().tuned_parameters(llama) == 32 * (2 * 1024 + 14336)
    # LoRA on queries (4096 → 4096) and values (4096 → 1024)
    assert at_widths("lora", 8).tuned_parameters(llama) == 32 * 8 * (8192 + 5120)
    # three matrices where the ffn is gated
    assert at_widths("lora-ffn", 8).tuned_parameters(llama) == 32 * 3 * 8 * (4096 + 14336)


# -- the document ------------------------------------------------------------------------------


def table(heading: str, columns: int) -> list[list[str]]:
    """Rows of the document's table whose header begins so."""
    lines = DOCUMENT[DOCUMENT.index(f"| {heading} |") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert rows
    assert all(len(row) == columns for row in rows)
    return rows


def integer(text: str) -> int:
    return int(text.replace(",", ""))


def evaluated(formula: str) -> int:
    """`12 · (3 · 768 + 768)` by arithmetic alone."""

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.BinOp):
            operation = {ast.Add: add, ast.Mult: mul}[type(node.op)]
            return int(operation(value(node.left), value(node.right)))
        assert isinstance(node, ast.Constant)
        assert type(node.value) is int
        return node.value

    return value(ast.parse(formula.replace("·", "*"), mode="eval").body)


@pytest.mark.parametrize("row", table("model | body", 2), ids=lambda row: row[0])
def test_the_documents_bodies_are_so(row: list[str]) -> None:
    model = row[0].split(" (")[0]
    assert shapes(model).body_parameters == integer(row[1])


@pytest.mark.parametrize("row", table("method | tuned parameters", 4), ids=lambda row: row[0])
def test_the_documents_formulas_give_what_is_counted(row: list[str]) -> None:
    name, _, formula, count = row
    configuration = METHODS[name.strip("`")].configuration()
    assert evaluated(formula) == integer(count)
    assert configuration.tuned_parameters(shapes("RoBERTa-base")) == integer(count)


@pytest.mark.parametrize("row", table("model | `bitfit`", 5), ids=lambda row: row[0])
def test_the_documents_biases_are_so(row: list[str]) -> None:
    model, *figures = row
    for name, count, pct in (("bitfit", *figures[:2]), ("bitfit-all", *figures[2:])):
        configuration = METHODS[name].configuration()
        assert configuration.tuned_parameters(shapes(model)) == integer(count)
        assert _printed(configuration.tuned_pct(shapes(model)), pct) == float(pct)


@pytest.mark.parametrize(
    "row", table("method | widths", 6), ids=lambda row: "-".join((row[0], row[1], row[2]))
)
def test_the_documents_recomputed_figures_are_so(row: list[str]) -> None:
    name, widths, model, formula, count, pct = row
    solved = () if widths == "–" else tuple(int(w) for w in widths.split(","))
    method = METHODS[name.strip("`")]
    configuration = at_widths(method.name, *solved) if solved else method.configuration()
    assert evaluated(formula) == integer(count)
    assert configuration.tuned_parameters(shapes(model)) == integer(count)
    assert _printed(configuration.tuned_pct(shapes(model)), pct) == float(pct)


def test_every_percentage_in_the_slips_is_one_of_the_recomputed_or_the_papers() -> None:
    slips = DOCUMENT[DOCUMENT.index("### Where the paper's own figures slip") :]
    recomputed = {row[5] for row in table("method | widths", 6)}
    papers = {"0.1", "6.7", "7.2"}
    assert set(re.findall(r"([\d.]*\d) %", slips)) <= recomputed | papers


# -- peft counts the same ----------------------------------------------------------------------


def trained_by_peft(model: str, config: peft.PeftConfig) -> int:
    with torch.device("meta"):
        theirs = peft.get_peft_model(AutoModel.from_config(CONFIGS[model]), config)
        return sum(p.numel() for p in theirs.parameters() if p.requires_grad)


BART, BERT = ["q_proj", "v_proj"], ["query", "value"]
IN_PEFT: list[tuple[str, str, tuple[int, ...], peft.PeftConfig]] = [
    ("lora", "BART-large", (200,), peft.LoraConfig(r=200, target_modules=BART)),
    ("lora-ffn", "BART-large", (102,), peft.LoraConfig(r=102, target_modules=["fc1", "fc2"])),
    ("dora", "BART-large", (8,), peft.LoraConfig(r=8, target_modules=BART, use_dora=True)),
    ("vera", "BART-large", (256,), peft.VeraConfig(r=256, target_modules=BART)),
    ("lora", "RoBERTa-base", (8,), peft.LoraConfig(r=8, target_modules=BERT)),
    ("vera", "RoBERTa-base", (256,), peft.VeraConfig(r=256, target_modules=BERT)),
    (
        "ia3",
        "BART-large",
        (),
        peft.IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"]),
    ),
    (
        "prompt",
        "RoBERTa-base",
        (20,),
        peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=20),
    ),
    (
        "prefix",
        "RoBERTa-base",
        (16,),
        peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=16),
    ),
]


@pytest.mark.parametrize(("name", "model", "widths", "config"), IN_PEFT)
def test_peft_trains_as_many_parameters(
    name: str, model: str, widths: tuple[int, ...], config: peft.PeftConfig
) -> None:
    ours = at_widths(name, *widths) if widths else METHODS[name].configuration()
    assert ours.tuned_parameters(shapes(model)) == trained_by_peft(model, config)
