"""The model card (README.md) of a native export."""

from __future__ import annotations

from peftsearch.export.package import Package

__all__ = ["escaped", "model_card"]


def model_card(package: Package) -> str:
    """The model card as Markdown."""
    metric = "" if package.validation_metric is None else f"{package.validation_metric:.4f}"
    rows = {
        "backbone": f"{package.model} (frozen)",
        "task": package.task,
        "configuration": package.description,
        "tuned": f"{package.tuned_parameters:,} parameters, {package.tuned_pct:.4g} % of backbone",
        f"validation {package.metric}": metric,
        "labels": ", ".join(package.labels),
        "from": package.origin,
    }
    table = "\n".join(f"| {key} | {escaped(value)} |" for key, value in rows.items() if value)
    return f"""# {escaped(package.task)}: a parameter-efficient configuration

| | |
|---|---|
{table}

```python
import peftsearch

model = peftsearch.load("this folder")
model.predict(["a text"])
```

`adapter.safetensors` holds the tuned tensors and the head, `configuration.json` the design.
Weights are read from safetensors only; no code is run from this folder.
"""


def escaped(text: str) -> str:
    """Escaped for one line of Markdown: names come from the user."""
    for character, harmless in {"|": "\\|", "<": "&lt;", "`": "'"}.items():
        text = text.replace(character, harmless)
    return " ".join(text.split())
