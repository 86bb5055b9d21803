"""Policies by name, one row each: the values of `--sampler`."""

from __future__ import annotations

from collections.abc import Callable

from peftsearch.errors import UsageError, did_you_mean
from peftsearch.policy.nsga2 import Nsga2Policy
from peftsearch.policy.policy import Policy, PolicyContext
from peftsearch.policy.random import RandomPolicy
from peftsearch.policy.tpe import TpePolicy

__all__ = ["AUTO", "POLICIES", "policy_named", "sampler_named"]

POLICIES: dict[str, Callable[[PolicyContext], Policy]] = {
    "tpe": TpePolicy,
    "nsga2": Nsga2Policy,
    "random": RandomPolicy,
}
AUTO = "tpe"
"""The row that `auto` stands for; studies record the row."""


def sampler_named(name: str) -> str:
    """The row that a sampler's name, or `auto`, stands for; UsageError for an unknown name."""
    row = AUTO if name == "auto" else name
    if row not in POLICIES:
        raise UsageError(f"sampler '{name}' unknown{did_you_mean(name, ('auto', *POLICIES))}")
    return row


def policy_named(name: str, context: PolicyContext) -> Policy:
    """A new policy; UsageError for an unknown name."""
    return POLICIES[sampler_named(name)](context)
