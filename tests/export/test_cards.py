"""Cards of exports: names that hold quotes, code or HTML stay text, and the code stays ours."""

from __future__ import annotations

import ast
import re

import pytest

from peftsearch.design.methods import METHODS
from peftsearch.export.card import model_card
from peftsearch.export.package import Package
from peftsearch.export.peft.card import peft_card

HOSTILE = 'x"); import os; os.system("id") #\'\n```python\nimport evil\n```\n<script>|\\'


def package(text: str, kind: str) -> Package:
    return Package(
        configuration=METHODS["lora"].configuration().to_json(),
        configuration_hash="",
        description=text,
        model=text,
        model_fingerprint="",
        labels=(text, "b"),
        max_length=64,
        task=text,
        metric="accuracy",
        validation_metric=0.5,
        tuned_parameters=1,
        tuned_pct=0.1,
        kind=kind,
        template=f"{text} {{text}}",
        tokenizer=text,
        target_tokenizer=text,
        max_target=8,
        origin=text,
    )


def cards(text: str, kind: str) -> list[str]:
    described = package(text, kind)
    configuration = METHODS["lora"].configuration()
    return [model_card(described), peft_card(described, configuration, "LORA")]


def code_of(card: str) -> ast.Module:
    (code,) = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    return ast.parse(code)


def shape_of(tree: ast.Module) -> str:
    """The code with every text in it taken out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "causal"])
def test_names_with_quotes_and_code_change_only_texts_of_a_cards_code(kind: str) -> None:
    for card, plain in zip(cards(HOSTILE, kind), cards("plain", kind), strict=True):
        assert shape_of(code_of(card)) == shape_of(code_of(plain))
        assert "<script>" not in card.split("```python")[0]
        assert len(card.split("```python")[0].splitlines()) == len(
            plain.split("```python")[0].splitlines()
        )


def test_the_code_names_the_model_as_it_is_called() -> None:
    card = cards(HOSTILE, "classification")[1]
    texts = [n.value for n in ast.walk(code_of(card)) if isinstance(n, ast.Constant)]
    assert texts.count(HOSTILE) == 2


def test_the_code_of_a_model_that_writes_names_tokenizers_and_template_as_they_are() -> None:
    card = cards(HOSTILE, "causal")[1]
    texts = [n.value for n in ast.walk(code_of(card)) if isinstance(n, ast.Constant)]
    assert texts.count(HOSTILE) == 3
    assert f"{HOSTILE} {{text}}" in texts
