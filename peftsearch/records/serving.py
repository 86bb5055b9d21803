"""Ways to serve a trained configuration, in words, from its recorded properties."""

from __future__ import annotations

from collections.abc import Iterable

from peftsearch.records.records import TrialResult

__all__ = ["grouped_by_serving", "serves_as"]

_WAYS = ("the base model", "plain LoRA", "merged weights", "an adapter with its own code")
"""Cheapest to serve first."""


def serves_as(result: TrialResult) -> str | None:
    """The simplest way to serve a result's body; the head, if there is one, comes after it in all.
    None of results without a configuration or recorded before it was known.
    """
    if result.plain_lora is None or result.configuration is None:
        return None
    if not result.configuration["modifications"]:
        return _WAYS[0]
    return _WAYS[1] if result.plain_lora else _WAYS[2] if result.mergeable else _WAYS[3]


def grouped_by_serving(results: Iterable[TrialResult]) -> str:
    """`the base model: #0; plain LoRA: #4, #12`, or nothing where it is not known."""
    numbers: dict[str, list[str]] = {way: [] for way in _WAYS}
    for result in results:
        way = serves_as(result)
        if way is not None:
            numbers[way].append(f"#{result.number}")
    return "; ".join(f"{way}: {', '.join(own)}" for way, own in numbers.items() if own)
