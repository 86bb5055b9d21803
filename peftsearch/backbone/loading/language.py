"""Whole language models: their class, their tokenizers, and the inputs of their decoder.

The head that turns states into words is pretrained, and frozen like the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peftsearch.backbone.family import Family
from peftsearch.backbone.loading.quiet_stdout import quiet_stdout
from peftsearch.backbone.loading.special_tokens import complete_special_tokens
from peftsearch.errors import ConfigurationError

__all__ = [
    "Tokenizers",
    "decoder_inputs",
    "language_model_class",
    "prepare_language_model",
    "shifted",
]


@dataclass(frozen=True)
class Tokenizers:
    """Where tokenizers are, if not beside the model; and languages, for models that need them."""

    source: str | None = None
    """Name or folder of the tokenizer of input texts; None: the model's."""
    target: str | None = None
    """Name or folder of the tokenizer of target texts, if they have their own."""
    languages: tuple[str, str] | None = None
    """Codes of the input's and the target's language, as the tokenizer writes them."""

    def load(
        self, name: str, model_source: str, from_pretrained: Callable[..., Any]
    ) -> tuple[Any, Any]:
        """(tokenizer of input texts, tokenizer of target texts), the same unless `target` is given.

        Raises ConfigurationError for languages that the tokenizer does not take.
        """
        source = self.source or model_source
        with quiet_stdout():
            tokenizer = from_pretrained(AutoTokenizer, self.source or name, source)
        if self.languages is not None:
            if not hasattr(tokenizer, "src_lang"):
                raise ConfigurationError(
                    f"the tokenizer of '{name}' has no language codes: leave out --languages"
                )
            tokenizer.src_lang, tokenizer.tgt_lang = self.languages
        if self.target is None:
            return tokenizer, tokenizer
        with quiet_stdout():
            return tokenizer, from_pretrained(AutoTokenizer, self.target, self.target)


def language_model_class(name: str, family: Family) -> Any:
    """The auto class of a family's language model; ConfigurationError for encoders."""
    if family.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    if not any(stack.is_decoder for stack in family.stacks):
        raise ConfigurationError(
            f"'{name}' ({family.name}) is an encoder and cannot generate text: use an "
            "encoder-decoder or a decoder, or --kind classification or regression"
        )
    return AutoModelForCausalLM


def prepare_language_model(
    lm: Any, languages: tuple[str, str] | None, target_tokenizer: Any, name: str = "model"
) -> None:
    """Freeze the whole model, have it begin in the target's language, and fill in special tokens
    that its config.json leaves out.
    """
    lm.requires_grad_(False).eval()
    if languages is not None:
        _begin_in_language(lm, languages, target_tokenizer)
    if lm.config.is_encoder_decoder:
        complete_special_tokens(lm, target_tokenizer, name)


def _begin_in_language(lm: Any, languages: tuple[str, str], target_tokenizer: Any) -> None:
    """Have the model's texts begin with the token of the target language."""
    code = target_tokenizer.convert_tokens_to_ids(languages[1])
    if code is None or code == target_tokenizer.unk_token_id:
        raise ConfigurationError(f"language '{languages[1]}' is unknown to the model's tokenizer")
    suffix = getattr(target_tokenizer, "suffix_tokens", None) or ()
    if type(lm).__name__.startswith("MBart") and len(suffix) > 1:
        # mBART's targets end with their language, which shifting moves to the front. Those of
        # mBART-50 end with the end of text alone, and begin with their language.
        lm.config.decoder_start_token_id = lm.generation_config.decoder_start_token_id = code
    else:
        lm.generation_config.forced_bos_token_id = code


def decoder_inputs(lm: Any, labels: torch.Tensor, padding: int) -> torch.Tensor:
    """The decoder's input ids [batch, tokens] for targets `labels` [batch, tokens], −100 for none.

    They are the labels one place later, as the model's family shifts them (teacher forcing).
    """
    shift = getattr(lm, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        return shift(labels)  # type: ignore[no-any-return]
    return shifted(lm.config, labels.masked_fill(labels < 0, padding), padding)


def shifted(config: Any, ids: torch.Tensor, padding: int) -> torch.Tensor:
    """Token ids [batch, tokens] one place later, behind the token that the decoder begins with."""
    start = getattr(config, "decoder_start_token_id", None)
    first = ids.new_full((len(ids), 1), padding if start is None else int(start))
    return torch.cat((first, ids[:, :-1]), dim=1)
