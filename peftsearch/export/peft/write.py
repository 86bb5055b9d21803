"""Writing a peft adapter: adapter_config.json, adapter_model.safetensors and a model card.

peft holds one type per adapter; anything else can only be exported natively (the error says why). A
head that transformers' sequence-classification model has, too, is part of the adapter; any other,
such as one with mean pooling or without a pooler, is written to head.safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from peftsearch.backbone.families import Family
from peftsearch.backbone.loading.load import Backbone
from peftsearch.backbone.loading.source import model_source
from peftsearch.design.configuration import Configuration
from peftsearch.disk.atomic import write_atomic
from peftsearch.errors import UsageError
from peftsearch.export.out_folder import CARD, PEFT_ADAPTER, PEFT_CONFIGURATION, PEFT_HEAD, clear
from peftsearch.export.package import Package
from peftsearch.export.peft.card import peft_card
from peftsearch.export.peft.head import has_own_head, with_head
from peftsearch.export.peft.lora import lora
from peftsearch.export.peft.others import ia3, norm_tuning, prompt, vera
from peftsearch.export.peft.parts import PREFIX, Adapter, SitePart, site_parts
from peftsearch.export.peft.reasons import peft_type_of, why_not_peft
from peftsearch.training.objectives.generation import settings_of
from peftsearch.training.writing import writing_of

__all__ = ["refuse_without_peft", "why_not_peft", "write_peft"]

_WRITERS: dict[str, Callable[[Backbone, list[SitePart]], Adapter]] = {
    "LORA": lora,
    "IA3": ia3,
    "LN_TUNING": norm_tuning,
    "PROMPT_TUNING": prompt,
    "VERA": vera,
}


def write_peft(
    folder: Path, package: Package, tensors: Mapping[str, Tensor], backbone: Backbone
) -> None:
    """Write a point with its stored tensors; UsageError if peft cannot express it."""
    configuration = Configuration.from_json(package.configuration).within(backbone.shapes)
    encoder_decoder = backbone.family.is_encoder_decoder
    package = package.model_copy(update={"is_encoder_decoder": encoder_decoder})
    refuse_without_peft(configuration, backbone.family)
    peft_type = peft_type_of(configuration)
    parts = site_parts(configuration, tensors, backbone)
    adapter = _WRITERS[peft_type](backbone, parts)
    head = {n.removeprefix("head/"): t for n, t in tensors.items() if n.startswith("head/")}
    whole = bool(head) and has_own_head(package, configuration, backbone.family)
    if whole:
        adapter, head = with_head(adapter, head, backbone), {}
    contiguous = {
        _in_whole_model(name, backbone): t.detach().cpu().contiguous()
        for name, t in adapter.tensors.items()
    }
    clear(folder)
    write_atomic(folder / PEFT_ADAPTER, save(contiguous, {"format": "pt"}))
    if head:
        write_atomic(folder / PEFT_HEAD, save(head, {"format": "pt"}))
    write_atomic(folder / CARD, _card(package, configuration, peft_type, backbone, whole))
    common = {
        "peft_type": peft_type,
        "task_type": "SEQ_CLS" if whole else _task_type(backbone),
        "base_model_name_or_path": model_source(package.model),
        "inference_mode": True,
    }
    config = json.dumps(common | adapter.config, indent=2, sort_keys=True)
    write_atomic(folder / PEFT_CONFIGURATION, config + "\n")


def _card(
    package: Package,
    configuration: Configuration,
    peft_type: str,
    backbone: Backbone,
    has_head: bool,
) -> str:
    """Model card, with generation settings and without unsupported token types."""
    types = "token_type_ids" in getattr(backbone.tokenizer, "model_input_names", ())
    settings = None
    if backbone.lm is not None and backbone.target_tokenizer is not None:
        longest = package.max_target or package.max_length
        writing = writing_of(backbone, package.spec)
        settings = settings_of(writing, package.generation, longest)
    no_types = types and backbone.type_rows < 2
    return peft_card(package, configuration, peft_type, settings, no_types, has_head)


def _task_type(backbone: Backbone) -> str:
    if backbone.lm is None:
        return "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if backbone.family.is_encoder_decoder else "CAUSAL_LM"


def _in_whole_model(name: str, backbone: Backbone) -> str:
    """A tensor's name where the language model, not its body alone, is wrapped by peft."""
    lm = backbone.lm
    if lm is None or lm.base_model is lm or not name.startswith(PREFIX):
        return name
    return f"{PREFIX}{lm.base_model_prefix}.{name.removeprefix(PREFIX)}"


def refuse_without_peft(configuration: Configuration, family: Family) -> None:
    """UsageError with the reason why peft cannot express a configuration."""
    reason = why_not_peft(configuration, family)
    if reason:
        raise UsageError(f"cannot be exported to peft: {reason}; use --to native")
