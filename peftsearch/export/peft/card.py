"""The model card (README.md) of a peft export, with code that computes its logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from peftsearch.backbone.loading.adapter_files import ADAPTER_CONFIG
from peftsearch.backbone.loading.source import demo_package
from peftsearch.backbone.precision import dtype_of
from peftsearch.design.configuration import Configuration
from peftsearch.export.card import escaped
from peftsearch.export.package import Package

__all__ = ["peft_card"]

_TITLES = {
    "LORA": "LoRA",
    "IA3": "(IA)³",
    "LN_TUNING": "Norm tuning",
    "PROMPT_TUNING": "Prompt tuning",
    "VERA": "VeRA",
}
_POOLED = {
    "first": "states[:, 0]",
    "mean": "(states * mask).sum(1) / mask.sum(1).clamp(min=1)",
    "last": "states[range(len(states)), (mask[..., 0] * torch.arange(mask.shape[1])).argmax(1)]",
}


def peft_card(
    package: Package,
    configuration: Configuration,
    peft_type: str,
    settings: Mapping[str, Any] | None = None,
    no_types: bool = False,
    has_head: bool = False,
) -> str:
    """The model card as Markdown; its code runs once the folder's name is filled in.

    `settings` are those of generation; `no_types`: the model has no rows for its tokenizer's types;
    `has_head`: the head is part of the adapter.
    """
    if package.output == "texts":
        return _writing_card(package, configuration, peft_type, settings or {})
    imports, base = _base(package)
    prompts = any(m.form.name == "prompt" for m in configuration.modifications)
    without = ", return_token_type_ids=False" if prompts or no_types else ""
    cut = f"dict(truncation=True, max_length={package.max_length}{without})"
    code = _whole_code(package, cut) if has_head else _code(package, configuration, cut)
    title, task = _title(configuration, peft_type), escaped(package.task)
    labels = escaped(", ".join(package.labels))
    source = _literal(package.tokenizer) if package.tokenizer else "base"
    return f"""# {title} for {task}, in the format of peft

{escaped(package.description)}: {package.tuned_parameters:,} parameters,
{package.tuned_pct:.4g} % of `{escaped(package.model)}`. Labels: {labels}.
{_loads_with(package, has_head)}

```python
{imports}import torch
{_IMPORTS[has_head]}

base = {base}
tokenizer = AutoTokenizer.from_pretrained({source})
{code}{_prediction_code(package)}
```
{_NO_PAIRS if prompts else ""}"""


_IMPORTS = {
    True: """from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer""",
    False: """from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer""",
}


def _base(package: Package) -> tuple[str, str]:
    """The import that naming the base model needs, and its name in Python."""
    demo = demo_package(package.model)
    if demo is None:
        return "", _literal(package.model)
    found = f"str(files({_literal(demo[0])}) / {_literal(demo[1])})"
    return "from importlib.resources import files\n\n", f"{found}  # pip install 'peftsearch[demo]'"


def _loads_with(package: Package, has_head: bool) -> str:
    """The class of peft that loads it by itself, and whether with its head."""
    if not has_head:
        return (
            "The head is stored beside the adapter, as no classification model of transformers has "
            "it with these\nweights: `AutoPeftModelForFeatureExtraction` loads the body, and the "
            "code below computes the head."
        )
    return (
        f'`AutoPeftModelForSequenceClassification.from_pretrained("this folder", '
        f"num_labels={package.outputs})`\nloads it with its head, where the base model is in the "
        f"place that {ADAPTER_CONFIG} names."
    )


def _whole_code(package: Package, cut: str) -> str:
    """Code for an adapter with its head in it; `cut`: options of the tokenizer."""
    return f"""model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels={package.outputs}, dtype="float32"
)
model = PeftModel.from_pretrained(model, "this folder").eval()

cut = {cut}
batch = tokenizer(["a text"], return_tensors="pt", **cut)  # padding=True for several
logits = model(**batch).logits"""


def _code(package: Package, configuration: Configuration, cut: str) -> str:
    """Code for an adapter of the body, with the head beside it."""
    prompts = [m.widest for m in configuration.modifications if m.form.name == "prompt"]
    tokens = f"[:, {prompts[0]}:]  # without the prompt's own" if prompts else ""
    pooler = ""
    if configuration.head.pooler == "trained":
        pooler = '\npooled = torch.tanh(pooled @ head["pooler.weight"].T + head["pooler.bias"])'
    return f"""body = AutoModel.from_pretrained(base, dtype="{_dtype(package)}")
model = PeftModel.from_pretrained(body, "this folder").eval()
head = load_file("this folder/head.safetensors")

cut = {cut}
batch = tokenizer(["a text"], return_tensors="pt", **cut)  # padding=True for several
mask = batch["attention_mask"].unsqueeze(-1){_DECODER if package.is_encoder_decoder else ""}
states = model(**batch).last_hidden_state{tokens}
pooled = ({_POOLED[configuration.head.pooling]}).float(){pooler}
logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]"""


_DECODER = """
start = batch["input_ids"].new_full((len(mask), 1), body.config.decoder_start_token_id)
batch["decoder_input_ids"] = torch.cat((start, batch["input_ids"][:, :-1]), 1)
batch["decoder_attention_mask"] = batch["attention_mask"]"""
"""The decoder reads the text, too, one place later."""


def _prediction_code(package: Package) -> str:
    """Code that turns logits into predictions."""
    if package.output == "label sets":
        return "\nprobabilities = logits.sigmoid()  # a label each; those above 0.5 are predicted"
    if package.value_scale is None:
        return ""
    mean, spread = package.value_scale
    return f"\nnumbers = logits[:, 0] * {spread!r} + {mean!r}"


def _writing_card(
    package: Package, configuration: Configuration, peft_type: str, settings: Mapping[str, Any]
) -> str:
    """The card of a model that writes texts: peft wraps the whole language model, and the settings
    of generation are those that it was evaluated with.
    """
    limits = "".join(f"    {key}={value!r},\n" for key, value in settings.items())
    auto = "AutoModelForSeq2SeqLM" if package.is_encoder_decoder else "AutoModelForCausalLM"
    source = package.tokenizer or package.model
    target = package.target_tokenizer or source
    decoded = "written[0]" if package.is_encoder_decoder else "written[0, ids.shape[1] :]"
    title, task = _title(configuration, peft_type), escaped(package.task)
    template = package.template or ("{text}" if package.is_encoder_decoder else "{text}\n")
    return f"""# {title} for {task}, in the format of peft

{escaped(package.description)}: {package.tuned_parameters:,} parameters,
{package.tuned_pct:.4g} % of `{escaped(package.model)}`.

```python
from peft import PeftModel
from transformers import {auto}, AutoTokenizer, GenerationConfig

tokenizer = AutoTokenizer.from_pretrained({_literal(source)})
answers = AutoTokenizer.from_pretrained({_literal(target)})
model = {auto}.from_pretrained({_literal(package.model)}, dtype="{_dtype(package)}")
model.generation_config = GenerationConfig(
{limits})
model = PeftModel.from_pretrained(model, "this folder").eval()

text = {_literal(template)}.replace("{{text}}", "a text")
cut = dict(max_length={package.max_length}, truncation=True)
ids = tokenizer(text, return_tensors="pt", **cut)["input_ids"]
written = model.generate(input_ids=ids)
print(answers.decode({decoded}, skip_special_tokens=True))
```
"""


_NO_PAIRS = """
peft leaves token types out where there is a prompt: for pairs of texts on models that tell the two
texts apart by them, load the native export instead.
"""


def _dtype(package: Package) -> str:
    """The precision as transformers' `dtype` takes it."""
    return str(dtype_of(package.precision)).removeprefix("torch.")


def _literal(text: str) -> str:
    """The text as a Python string literal."""
    return json.dumps(text, ensure_ascii=False)


def _title(configuration: Configuration, peft_type: str) -> str:
    if all(m.form.name == "constant" for m in configuration.modifications) and peft_type == "LORA":
        return "BitFit (biases beside a LoRA that is zero)"
    return _TITLES[peft_type]
