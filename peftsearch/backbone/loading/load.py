"""Loading a pretrained model once: frozen, without its pooler, ready for modifications.

Weights come from safetensors only, and no code from a model's folder is ever run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils.logging import disable_progress_bar

from peftsearch.backbone.attach import attention
from peftsearch.backbone.attach.hooks import DIRECT_HOOKS, Hooks
from peftsearch.backbone.device import checked_device
from peftsearch.backbone.families import Family, Stack
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
from peftsearch.backbone.measure import (
    measure,
    position_tables,
    positions_of,
    stack_layers,
    token_type_rows,
)
from peftsearch.backbone.recognise import family_of
from peftsearch.design.shapes import BackboneShapes, SiteShape
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


@dataclass(frozen=True)
class Backbone:
    """A frozen pretrained model, shared by every trial of a process.

    `model` is the body: without pooler and language-model head.
    """

    name: str
    model: Any
    tokenizer: Any
    family: Family
    shapes: BackboneShapes
    pooler: dict[str, torch.Tensor] | None
    """The pretrained pooler's `weight` [hidden, hidden] and `bias` [hidden], if it has one."""
    fingerprint: str
    """16 hex digits that tell a checkpoint's weights from another's."""
    max_length: int
    """The most tokens of a text, by the model's positions and its tokenizer's limit."""
    positions: int = 10**9
    """The most tokens that the model's position table has room for, those of prompts included."""
    lm: Any = None
    """The whole language model, head frozen like body (`model`), where texts are written."""
    target_tokenizer: Any = None
    """The tokenizer of target texts; for nearly every model the same as `tokenizer`."""
    note: str = ""
    """A sentence for the user on how it was loaded; empty for none."""
    hooks: Hooks = DIRECT_HOOKS
    """The hooks that attaching uses: direct ones, or those of one of several configurations
    (`sharing/slices.py`).
    """

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(self.model.parameters()).dtype  # type: ignore[no-any-return]

    def layer(self, index: int) -> nn.Module:
        """A layer by its number, counted over all stacks."""
        return self.stack_and_layer(index)[1]

    def stack_and_layer(self, index: int) -> tuple[Stack, nn.Module]:
        """(stack, layer) by the layer's number, counted over all stacks."""
        for stack, size in zip(self.family.stacks, self.shapes.stacks, strict=True):
            if index < size:
                return stack, stack_layers(self.model, stack)[index]
            index -= size
        raise IndexError(index)

    def refuse_unknown_tokens(self, *tokens: torch.Tensor) -> None:
        """Raise MissingError if a token id, in tensors of any shape, has no row of embeddings."""
        # Looked up, it would raise far from here; on a GPU a device assert without a message.
        rows = self.model.get_input_embeddings().weight.shape[0]
        for ids in tokens:
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < rows:
                raise MissingError(
                    f"the tokenizer of '{self.name}' gives token {int(ids.max()):,}, and the model "
                    f"knows {rows:,}: they do not belong together; get a complete copy of it, or "
                    "give --tokenizer"
                )

    @cached_property
    def type_rows(self) -> int:
        """Rows of the model's table of token types; 0 without one."""
        return token_type_rows(self.model)

    def live(self, site: SiteShape) -> torch.Tensor | None:
        """Indices [live] of the tuned entries in a site's flattened body tensor; None where it is
        tuned whole.
        """
        shape = next(t for t in self.shapes.tensors if t.name == site.key)
        if site.tensor == shape.shape:
            return None
        alive = torch.ones(shape.parameters, dtype=torch.bool)
        for start, stop in shape.dead:
            alive[start:stop] = False
        return alive.nonzero().flatten().to(self.device)


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
    pooler = _take_pooler(body, family)
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


def wrap(
    model: Any,
    name: str = "model",
    tokenizer: Any = None,
    pooler: dict[str, torch.Tensor] | None = None,
) -> Backbone:
    """A backbone of a body in memory, which is frozen in place and loses its pooler.

    Given `lm.model` of a language model, `lm.generate` then uses whatever is attached. `pooler`:
    `weight` [hidden, hidden] and `bias` [hidden], if it was taken off before.
    Raises ConfigurationError for an unknown family.

    >>> from transformers import BertConfig, BertModel
    >>> from peftsearch.backbone.loading.load import wrap
    >>> config = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
    ...     intermediate_size=16, vocab_size=20)
    >>> wrap(BertModel(config)).shapes.layers
    2
    """
    family = family_of(model.config)
    pooler = pooler or _take_pooler(model, family)
    if family.takes_prefix:
        attention.register()
        model.set_attn_implementation(attention.NAME)
    model.requires_grad_(False).eval()
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        family=family,
        shapes=measure(model, model.config, family),
        pooler=pooler,
        fingerprint=_fingerprint(model),
        max_length=_max_length(name, model.config, tokenizer, family),
        positions=_positions(model.config, family),
        target_tokenizer=tokenizer,
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


def shapes_of(config: Any) -> BackboneShapes:
    """The shapes of the model that a transformers config describes."""
    family = family_of(config)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    _take_pooler(model, family)
    return measure(model, config, family)


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
            f"model '{name}' cannot be loaded ({why}): where its config.json makes no sense or "
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


def _take_pooler(model: Any, family: Family) -> dict[str, torch.Tensor] | None:
    """Remove the pooler; returns its `weight` [hidden, hidden] and `bias` [hidden], or None."""
    pooler = getattr(model, family.pooler, None) if family.pooler else None
    if pooler is None:
        return None
    setattr(model, str(family.pooler), None)
    return {key: value.detach().clone() for key, value in pooler.dense.named_parameters()}


def _fingerprint(model: nn.Module) -> str:
    """16 hex digits of SHA-256 over every tensor's name, shape and a sample of 64 values."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def _positions(config: Any, family: Family) -> int:
    """The number of tokens that fit the position table."""
    return positions_of(config) - (
        int(config.pad_token_id) + 1 if family.positions_after_padding else 0
    )


def _max_length(name: str, config: Any, tokenizer: Any, family: Family) -> int:
    """The most tokens of a text, by positions and tokenizer; MissingError if it is none."""
    if tokenizer is None:
        return positions_of(config)
    found = min(_positions(config, family), int(min(tokenizer.model_max_length, 10**9)))
    if found < 1:
        raise MissingError(
            f"model '{name}' reads texts of {counted(found, 'token')}, by its positions and its "
            "tokenizer's model_max_length: get a complete copy of it"
        )
    return found
