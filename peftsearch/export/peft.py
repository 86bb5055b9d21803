"""LoRA points in the format of the peft library: adapter_config.json and adapter_model.safetensors.

peft holds one type per adapter, on linear layers; everything else exports natively only, and the
error says why. The head stands beside it in head.safetensors: mean pooling and a bare classifier
are no part of a transformers sequence-classification model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from peftsearch.atomic import write_atomic
from peftsearch.backbone.families import Family
from peftsearch.design.composition import Scaled
from peftsearch.design.configuration import Configuration
from peftsearch.design.modification import Modification
from peftsearch.errors import UsageError
from peftsearch.export.package import Package

__all__ = ["why_not_peft", "write_peft"]

_LINEAR_LAYERS = {
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "attn.out": "attn_out",
    "ffn.hidden": "ffn_hidden",
    "ffn.out": "ffn_out",
}


@dataclass(frozen=True)
class _Module:
    """LoRA on one linear layer: `a` (r, d_in), `b` (d_out, r), scale α/r."""

    path: str
    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def why_not_peft(configuration: Configuration) -> str | None:
    """Why peft cannot express a configuration, or None if it can."""
    if not configuration.modifications:
        return "it tunes no layer, only the head"
    for modification in configuration.modifications:
        if modification.form.name != "linear":
            return (
                f"'{modification.describe()}' is not LoRA (peft has no such form to load it into)"
            )
        if not _is_around_linear(modification):
            return f"'{modification.describe()}' does not stand beside one linear layer"
        if getattr(modification.form, "bias", False):
            return f"'{modification.describe()}' has biases, LoRA has none"
        if modification.composition == Scaled("learned"):
            return f"'{modification.describe()}' has learned scales, LoRA's are fixed"
    return None


def _is_around_linear(modification: Modification) -> bool:
    """Reads the input of the linear layer whose output it changes."""
    names = set(modification.place.names)
    reads = getattr(modification.insertion, "reads", None)
    if reads is None or not names <= set(_LINEAR_LAYERS):
        return False
    return reads == "projection_input" or not names & {"attn.out", "ffn.out"}


def write_peft(
    folder: Path, package: Package, tensors: Mapping[str, Tensor], family: Family
) -> None:
    """Write a LoRA point; UsageError if peft cannot express it."""
    configuration = Configuration.from_json(package.configuration)
    reason = why_not_peft(configuration)
    if reason:
        raise UsageError(f"cannot be exported to peft: {reason}; use --to native")
    modules = list(_modules(configuration, tensors, family))
    weights = {f"base_model.model.{m.path}.lora_A.weight": m.a for m in modules}
    weights |= {f"base_model.model.{m.path}.lora_B.weight": m.b for m in modules}
    head = {n.removeprefix("head/"): t for n, t in tensors.items() if n.startswith("head/")}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "adapter_model.safetensors", save(weights, {"format": "pt"}))
    write_atomic(folder / "head.safetensors", save(head, {"format": "pt"}))
    write_atomic(folder / "README.md", _card(package, configuration))
    config = json.dumps(_adapter_config(package, modules), indent=2, sort_keys=True)
    write_atomic(folder / "adapter_config.json", config + "\n")


def _modules(
    configuration: Configuration, tensors: Mapping[str, Tensor], family: Family
) -> Iterator[_Module]:
    for index, modification in enumerate(configuration.modifications):
        scale = modification.composition.s if isinstance(modification.composition, Scaled) else 1.0
        downs = [n for n in tensors if n.startswith(f"tuned/{index}/") and n.endswith("/down")]
        for name in downs:
            _, layer, place = name.split("/")[2].split(".", 2)
            path = f"{family.layers}.{layer}.{getattr(family, _LINEAR_LAYERS[place])}"
            up = tensors[name.removesuffix("down") + "up"]
            yield _Module(path, tensors[name].T.contiguous(), up.T.contiguous(), float(scale))


def _adapter_config(package: Package, modules: list[_Module]) -> dict[str, object]:
    first = modules[0]
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": package.model,
        "r": first.rank,
        "lora_alpha": first.scale * first.rank,
        "rank_pattern": {m.path: m.rank for m in modules if m.rank != first.rank},
        "alpha_pattern": {
            m.path: m.scale * m.rank
            for m in modules
            if (m.scale * m.rank) != (first.scale * first.rank)
        },
        "target_modules": sorted(m.path for m in modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }


def _card(package: Package, configuration: Configuration) -> str:
    pooled = {
        "first": "states[:, 0]",
        "mean": "(states * mask).sum(1) / mask.sum(1)",
    }[configuration.head.pooling]
    pooler = ""
    if configuration.head.pooler == "trained":
        pooler = '\npooled = torch.tanh(pooled @ head["pooler.weight"].T + head["pooler.bias"])'
    name, extra = f'"{package.model}"', ""
    if package.model.startswith("demo:"):
        name = f"model_source({name})"
        extra = "\nfrom peftsearch.backbone.load import model_source"
    return f"""# LoRA for {package.task}, in the format of peft

{package.description}: {package.tuned_parameters:,} parameters, {package.tuned_pct:.4g} % of
`{package.model}`. Labels: {", ".join(package.labels)}.

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer{extra}

tokenizer = AutoTokenizer.from_pretrained({name})
body = AutoModel.from_pretrained({name})
model = PeftModel.from_pretrained(body, "this folder").eval()
head = load_file("this folder/head.safetensors")

cut = dict(padding=True, truncation=True, max_length={package.max_length})
batch = tokenizer(["a text"], return_tensors="pt", **cut)
mask = batch["attention_mask"].unsqueeze(-1)
states = model(**batch).last_hidden_state
pooled = {pooled}{pooler}
logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]
```
"""
