"""Loading pretrained models and their shapes, from a folder, a `demo:` name or the Hub.

Weights come from safetensors only, and no code from a model's folder is ever run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from peftsearch.backbone.backbone import Backbone, shapes_of, take_pooler, wrap
from peftsearch.backbone.device import checked_device
from peftsearch.backbone.family import Family
from peftsearch.backbone.loading.adapter_files import (
    PLAIN,
    adapter_beside,
    adapter_tensor,
    note_of_adapter,
    why_no_model,
)
from peftsearch.backbone.loading.hub import prepare_hub
from peftsearch.backbone.loading.language import (
    Tokenizers,
    language_model_class,
    prepare_language_model,
)
from peftsearch.backbone.loading.reference_configs import PREFIX, reference_config
from peftsearch.backbone.loading.size_limits import refuse_oversized
from peftsearch.backbone.loading.source import (
    DEMO_MODELS,
    model_source,
    not_on_the_hub,
    without_safetensors,
    without_weights,
)
from peftsearch.backbone.measure import position_tables
from peftsearch.backbone.recognise import family_of
from peftsearch.design.shapes import BackboneShapes
from peftsearch.errors import ConfigurationError, MissingError, PeftsearchError
from peftsearch.wording import counted

__all__ = [
    "DEMO_MODELS",
    "Backbone",
    "family_for",
    "load_backbone",
    "load_shapes",
    "model_source",
    "shapes_of",
    "wrap",
]


def load_backbone(
    name: str,
    device: str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    writes: bool = False,
    tokenizers: Tokenizers = Tokenizers(),  # noqa: B008 (frozen)
) -> Backbone:
    """Load a model from a Hub name, a local folder or a `demo:` name; with `writes`, the whole
    language model.

    Raises MissingError where it is not available here, incomplete or damaged, ConfigurationError
    for an unknown family.
    """
    if name.startswith(PREFIX):
        raise without_weights(name)
    checked_device(device)
    with _loading_errors(name):
        return _loaded(name, device, dtype, writes, tokenizers)


def _loaded(
    name: str, device: str, dtype: torch.dtype | None, writes: bool, tokenizers: Tokenizers
) -> Backbone:
    source = model_source(name)
    config = _from_pretrained(AutoConfig, name, source)
    family = family_of(config)
    disable_progress_bar()
    with _without_report():
        model, loading = _from_pretrained(
            *(language_model_class(name, family) if writes else AutoModel, name, source),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **PLAIN,
        )
    tokenizer, target_tokenizer = tokenizers.load(name, source, _from_pretrained)
    body = model.base_model if writes else model
    pooler = take_pooler(body, family)
    missing, unused = set(loading["missing_keys"]), set(loading["unexpected_keys"])
    _refuse_random_weights(name, model, missing, unused)
    if any(key.startswith(f"{family.pooler}.") for key in missing):
        # roberta-base's checkpoint has none, and transformers initialises one at random.
        pooler = None
    model.to(device)
    note = note_of_adapter(name, adapter_beside(source), unused)
    backbone = replace(wrap(body, name, tokenizer, pooler), note=note)
    if not writes:
        return backbone
    prepare_language_model(model, tokenizers.languages, target_tokenizer, name)
    return replace(
        backbone,
        lm=model,
        target_tokenizer=target_tokenizer,
        # Not the shapes that `wrap` measured: T5's language model is its own base model, and its
        # head is no part of the body.
        shapes=shapes_of(config),
    )


def load_shapes(name: str) -> BackboneShapes:
    """The shapes of a model, from its config alone: no weights are downloaded or allocated.

    Raises MissingError where the config is not available here, ConfigurationError for an unknown
    family.

    >>> from peftsearch.backbone.loading.load import load_shapes
    >>> load_shapes("config:bert-base").body_parameters
    108891648
    """
    with _loading_errors(name):
        return shapes_of(_config_of(name))


def family_for(name: str) -> Family:
    """The family of a model, from its config."""
    with _loading_errors(name):
        return family_of(_config_of(name))


def _config_of(name: str) -> Any:
    """The config of a model, or of a `config:` name, known by its public values alone."""
    if name.startswith(PREFIX):
        return reference_config(name)
    return _from_pretrained(AutoConfig, name, model_source(name))


def _from_pretrained(auto: Any, name: str, source: str, **options: Any) -> Any:
    """`auto.from_pretrained`, with its errors as MissingErrors of one sentence."""
    local = Path(source).is_dir()
    if local:
        refuse_oversized(Path(source) / "config.json", name)
    state = "" if local else prepare_hub()
    try:
        return auto.from_pretrained(
            source, trust_remote_code=False, local_files_only=local, **options
        )
    except MemoryError:
        raise
    except Exception as error:  # transformers checks few of the values it reads: any error may come
        raise _explained(name, source, state, error) from error


@contextmanager
def _without_report() -> Iterator[None]:
    """Context in which transformers prints no table of a checkpoint's unused and missing tensors.

    Unused heads are usual here, and missing tensors of the body are refused.
    """
    before = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(before)


@contextmanager
def _loading_errors(name: str) -> Iterator[None]:
    """Context in which any unexpected error is reported as a fault of the model's files."""
    # transformers builds modules from a config's values unchecked, so that a damaged config may end
    # in any exception.
    try:
        yield
    except (PeftsearchError, MemoryError):
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise MissingError(
            f"model '{name}' cannot be loaded ({why}): if its config.json is invalid or "
            "does not fit its weights, get a complete copy of it"
        ) from error


def _explained(
    name: str, source: str, state: str, error: Exception
) -> MissingError | ConfigurationError:
    """The error for the user in place of one that transformers raised."""
    text = " ".join(str(error).split())
    local = Path(source).is_dir()
    lacks_weights = "safetensors" in text and "no file named" in text.lower()
    if (lacks_weights or not local) and not any(Path(source).glob("pytorch_model*.bin")):
        adapter = adapter_beside(source)
        if adapter is not None:
            return MissingError(why_no_model(name, adapter))
    if lacks_weights:
        return without_safetensors(name)
    if local:
        return MissingError(f"model '{name}' cannot be loaded: {text[:300]}")
    return not_on_the_hub(name, state)


def _refuse_random_weights(
    name: str, model: nn.Module, missing: set[str], unused: set[str]
) -> None:
    """Raise MissingError for a checkpoint that lacks tensors of the body.

    transformers would load it with random ones in their place. Tables of sinusoids are never saved.
    """
    missing = missing - position_tables(model)
    lost = [key for key, _ in model.named_parameters() if key in missing]
    adapted = adapter_tensor(unused)
    if lost and adapted is not None:
        raise MissingError(
            f"model '{name}' was saved with an adapter in it ({adapted} in its checkpoint): save "
            "it merged (merge_and_unload of peft), or give the model without the adapter"
        )
    if lost:
        raise MissingError(
            f"model '{name}' is incomplete: its checkpoint lacks "
            f"{counted(len(lost), 'tensor')} of the body, "
            f"among them {lost[0]}; get a complete copy of it"
        )
