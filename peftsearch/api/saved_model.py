"""Loading a transformers model as the class it was saved from, with its head."""

from __future__ import annotations

from typing import cast

import transformers
from torch import nn

from peftsearch.backbone.loading.source import model_source, refuse_missing_model
from peftsearch.errors import MissingError

__all__ = ["load_saved"]


def load_saved(name: str) -> nn.Module:
    """The model in a folder or on the Hub, with the head it was saved with; only the body if
    config.json names no transformers class. MissingError if there is none.
    """
    refuse_missing_model(name)
    source = model_source(name)
    try:
        config = transformers.AutoConfig.from_pretrained(source)
        saved_as = next(iter(config.architectures or ()), "")
        kind = getattr(transformers, saved_as, transformers.AutoModel)
        return cast(nn.Module, kind.from_pretrained(source, use_safetensors=True))
    except (OSError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"model '{name}' cannot be loaded ({why})") from error
