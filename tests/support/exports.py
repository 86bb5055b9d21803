"""Packages (`configuration.json`) of exports of tiny models."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from peftsearch.backbone.loading.load import Backbone
from peftsearch.design.configuration import Configuration
from peftsearch.export.package import Package
from support.families import tiny_config


def package(backbone: Backbone, configuration: Configuration, max_length: int = 64) -> Package:
    return Package(
        configuration=configuration.to_json(),
        configuration_hash=configuration.hash,
        description=configuration.describe(),
        model=backbone.name,
        model_fingerprint=backbone.fingerprint,
        labels=("negative", "positive"),
        max_length=max_length,
        task="sentiment",
        metric="accuracy",
        tuned_parameters=configuration.tuned_parameters(backbone.shapes),
        tuned_pct=configuration.tuned_pct(backbone.shapes),
    )


def save_tiny(name: str, folder: Path, tokenizer: Path) -> Path:
    """A tiny random model of any family as a checkpoint, with the words of another's tokenizer."""
    words = AutoTokenizer.from_pretrained(tokenizer)
    config = tiny_config(name)
    config.vocab_size = len(words)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = 0.2 * torch.randn_like(parameter)
                parameter.copy_(noise if parameter.ndim > 1 else parameter + noise)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
