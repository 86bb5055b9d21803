"""The README.md of an export to peft: what it is, and code that gives its logits."""

from __future__ import annotations

import json

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
}


def peft_card(package: Package, configuration: Configuration, peft_type: str) -> str:
    """Markdown whose one block of code runs as it stands, the folder's name filled in."""
    if package.output == "texts":
        return _writing_card(package, configuration, peft_type)
    name, extra = _literal(package.model), ""
    if package.model.startswith("demo:"):
        name = f"model_source({name})"
        extra = "\nfrom peftsearch.backbone.load import model_source"
    prompts = [m.widest for m in configuration.modifications if m.form.name == "prompt"]
    cut = f"[:, {prompts[0]}:]  # without the prompt's own" if prompts else ""
    no_types = ", return_token_type_ids=False" if prompts else ""
    title, task = _title(configuration, peft_type), escaped(package.task)
    labels = escaped(", ".join(package.labels))
    pooler = ""
    if configuration.head.pooler == "trained":
        pooler = '\npooled = torch.tanh(pooled @ head["pooler.weight"].T + head["pooler.bias"])'
    return f"""# {title} for {task}, in the format of peft

{escaped(package.description)}: {package.tuned_parameters:,} parameters,
{package.tuned_pct:.4g} % of `{escaped(package.model)}`. Labels: {labels}.

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer{extra}

tokenizer = AutoTokenizer.from_pretrained({name})
body = AutoModel.from_pretrained({name})
model = PeftModel.from_pretrained(body, "this folder").eval()
head = load_file("this folder/head.safetensors")

cut = dict(truncation=True, max_length={package.max_length}{no_types})
batch = tokenizer(["a text"], return_tensors="pt", **cut)  # padding=True for several
mask = batch["attention_mask"].unsqueeze(-1)
states = model(**batch).last_hidden_state{cut}
pooled = {_POOLED[configuration.head.pooling]}{pooler}
logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]
```
{_NO_PAIRS if prompts else ""}"""


def _writing_card(package: Package, configuration: Configuration, peft_type: str) -> str:
    """Of a model that writes texts: peft wraps the whole language model."""
    written = package.spec.generation
    limits = f"max_new_tokens={written.max_tokens or package.max_target}, num_beams={written.beams}"
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
from transformers import {auto}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({_literal(source)})
answers = AutoTokenizer.from_pretrained({_literal(target)})
model = {auto}.from_pretrained({_literal(package.model)})
model = PeftModel.from_pretrained(model, "this folder").eval()

text = {_literal(template)}.replace("{{text}}", "a text")
cut = dict(max_length={package.max_length}, truncation=True)
ids = tokenizer(text, return_tensors="pt", **cut)["input_ids"]
written = model.generate(input_ids=ids, {limits})
print(answers.decode({decoded}, skip_special_tokens=True))
```
"""


_NO_PAIRS = """
peft leaves token types out where there is a prompt: for pairs of texts on models that tell the two
texts apart by them, load the native export instead.
"""


def _literal(text: str) -> str:
    """A text as a string of Python, whatever quotes it holds."""
    return json.dumps(text, ensure_ascii=False)


def _title(configuration: Configuration, peft_type: str) -> str:
    if all(m.form.name == "constant" for m in configuration.modifications) and peft_type == "LORA":
        return "BitFit (biases beside a LoRA that is zero)"
    return _TITLES[peft_type]
