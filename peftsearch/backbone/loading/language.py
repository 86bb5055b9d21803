"""Language models whole: their class, their tokenizers, and what their decoder begins with.

The head that turns states into words is pretrained, and frozen like the body.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from peftsearch.backbone.families import Family
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
    """Where tokenizers are, if not beside the model; languages for models that are told them."""

    source: str | None = None
    target: str | None = None
    """Of the texts to be written, where they have their own."""
    languages: tuple[str, str] | None = None

    def load(
        self, name: str, model_source: str, from_pretrained: Callable[..., Any]
    ) -> tuple[Any, Any]:
        """The tokenizer of what is read, and that of what is written (the same one if not told)."""
        source = self.source or model_source
        with quiet_stdout():
            tokenizer = from_pretrained(AutoTokenizer, self.source or name, source)
        if self.languages is not None:
            if not hasattr(tokenizer, "src_lang"):
                raise ConfigurationError(
                    f"the tokenizer of '{name}' takes no languages: leave out --languages"
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
            f"'{name}' ({family.name}) is an encoder and cannot write text: take an "
            "encoder-decoder or a decoder, or --kind classification or regression"
        )
    return AutoModelForCausalLM


def prepare_language_model(
    lm: Any, languages: tuple[str, str] | None, target_tokenizer: Any, name: str = "model"
) -> None:
    """Freeze the whole model, begin in the target's language where the model wants one, and fill in
    what its config.json leaves out.
    """
    lm.requires_grad_(False).eval()
    if languages is not None:
        _begin_in_language(lm, languages, target_tokenizer)
    if lm.config.is_encoder_decoder:
        complete_special_tokens(lm, target_tokenizer, name)


def _begin_in_language(lm: Any, languages: tuple[str, str], target_tokenizer: Any) -> None:
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
    """What an encoder-decoder's decoder reads while it is taught to write `labels` (batch, seq):
    the same, one place later, as the model's family does it.
    """
    shift = getattr(lm, "prepare_decoder_input_ids_from_labels", None)
    if shift is not None:
        return shift(labels)  # type: ignore[no-any-return]
    return shifted(lm.config, labels.masked_fill(labels < 0, padding), padding)


def shifted(config: Any, ids: torch.Tensor, padding: int) -> torch.Tensor:
    """Token ids (batch, seq) one place later, after what the decoder begins with."""
    start = getattr(config, "decoder_start_token_id", None)
    first = ids.new_full((len(ids), 1), padding if start is None else int(start))
    return torch.cat((first, ids[:, :-1]), dim=1)
