"""Tiny random models and data that real code paths load: seconds instead of minutes.

The models are saved by `save_pretrained`, so everything from the tokenizer files to the safetensors
is what a checkpoint of that family has.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

__all__ = [
    "LABELS",
    "TINY_SHAPE",
    "build_tiny_bart",
    "build_tiny_bert",
    "build_tiny_llama",
    "build_tiny_roberta",
    "copying_rows",
    "scored_rows",
    "sentiment_rows",
    "tagged_rows",
    "write_csv",
]

TINY_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "initializer_range": 0.2,
}
"""Weights of standard deviation 0.2: with BERT's own 0.02, so small a model outputs constants."""

LABELS = ("negative", "positive")
_NEGATIVE = "bad boring broken cold dull hate poor rude sad slow ugly weak worst wrong".split()
_POSITIVE = "bright clear fast fine fresh fun good great happy kind love nice warm wise".split()
_WORDS = {"negative": _NEGATIVE, "positive": _POSITIVE}
_PLAIN = (
    "a about after again all also and any are as at be because been before book but by came can "
    "city could day did do door down each even film first for found from get give go had has have "
    "he her here him his home house how i if in into is it its just know last like long look made "
    "make many may me more most my new night no not now of old on one only or other our out over "
    "people place room said same see she show so some street such than that the their them then "
    "there these they thing think this those time to two under up us very was water way we well "
    "were what when where which who will with work world would year you your"
).split()
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"#@&-_/()"


def sentiment_rows(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """`text` and `label` in equal numbers: plain words around two words of the label's list."""
    draw = random.Random(seed)
    made = []
    for index in range(rows):
        label = LABELS[index % 2]
        words = draw.choices(_PLAIN, k=draw.randint(3, 12)) + draw.choices(_WORDS[label], k=2)
        draw.shuffle(words)
        made.append({"text": " ".join(words), "label": label})
    draw.shuffle(made)
    return made


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def build_tiny_bert(folder: Path, seed: int = 0) -> Path:
    """A random BERT with a pooler and a WordPiece tokenizer that knows the words above."""
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*_CHARACTERS, *(f"##{c}" for c in _CHARACTERS)]
    words = sorted({*_PLAIN, *_NEGATIVE, *_POSITIVE} - set(_CHARACTERS))
    vocab = {piece: index for index, piece in enumerate([*special, *pieces, *words])}
    tokenizer = BertTokenizer(vocab=vocab, model_max_length=64)
    config = BertConfig(vocab_size=len(vocab), **TINY_SHAPE)
    return _saved(folder, BertModel, config, tokenizer, seed)


def build_tiny_roberta(folder: Path, seed: int = 0) -> Path:
    """A random RoBERTa with a pooler and a byte-level BPE tokenizer; positions begin at 2."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned = ByteLevelBPETokenizer()
    texts = [row["text"] for row in sentiment_rows(400)]
    learned.train_from_iterator(texts, vocab_size=420, show_progress=False, special_tokens=special)
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = learned.save_model(str(folder))
    tokenizer = RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=64)
    config = RobertaConfig(vocab_size=len(tokenizer), type_vocab_size=1, **TINY_SHAPE)
    return _saved(folder, RobertaModel, config, tokenizer, seed)


def build_tiny_bart(folder: Path, seed: int = 0) -> Path:
    """A random BART that writes: 2 + 2 layers, RoBERTa's tokenizer with its own special tokens."""
    from transformers import BartConfig, BartForConditionalGeneration

    tokenizer = _byte_level(folder, "<pad>")
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=66,
        init_std=0.2,
        dropout=0.0,
        forced_eos_token_id=None,
        **_special_ids(tokenizer),
        decoder_start_token_id=tokenizer.eos_token_id,
    )
    return _saved(folder, BartForConditionalGeneration, config, tokenizer, seed)


def build_tiny_llama(folder: Path, seed: int = 0) -> Path:
    """A random Llama that writes, whose tokenizer has no padding token, as many decoders' have."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_level(folder, None)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **TINY_SHAPE,
        **_special_ids(tokenizer),
    )
    return _saved(folder, LlamaForCausalLM, config, tokenizer, seed)


def _byte_level(folder: Path, padding: str | None) -> Any:
    """Byte-level BPE that puts `<s>` before a text and, where it knows padding, `</s>` after it."""
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    learned = ByteLevelBPETokenizer()
    texts = [row["text"] for row in sentiment_rows(400)]
    learned.train_from_iterator(texts, vocab_size=420, show_progress=False, special_tokens=special)
    learned._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>" if padding else "<s> $A",
        pair="<s> $A </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=learned._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=padding,
        model_max_length=64,
    )


def _special_ids(tokenizer: Any) -> dict[str, Any]:
    names = ("bos", "eos", "pad")
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def copying_rows(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """`source` → `answer`: the first of its words."""
    return [
        {"source": row["text"], "answer": row["text"].split()[0]}
        for row in sentiment_rows(rows, seed)
    ]


def scored_rows(rows: int, seed: int = 0) -> list[dict[str, str]]:
    """`text` and `score`: the number of positive words minus that of negative ones, and a half."""
    made = []
    for row in sentiment_rows(rows, seed):
        words = row["text"].split()
        score = sum(w in _POSITIVE for w in words) - sum(w in _NEGATIVE for w in words)
        made.append({"text": row["text"], "score": str(100 + 10.5 * score)})
    return made


def tagged_rows(rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """`text` and `tags`, a list of any of negative, positive and travel, each by a word of it."""
    draw = random.Random(seed)
    words = _WORDS | {"travel": ["city", "street", "water"]}
    made = []
    for _ in range(rows):
        tags = [tag for tag in words if draw.random() < 0.4]
        text = draw.choices(["the", "a", "was", "and", "it", "there"], k=draw.randint(3, 8))
        text += [draw.choice(words[tag]) for tag in tags]
        draw.shuffle(text)
        made.append({"text": " ".join(text), "tags": tags})
    return made


def _saved(folder: Path, model_class: Any, config: Any, tokenizer: Any, seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
