"""Policies by name: one row each."""

from __future__ import annotations

from collections.abc import Callable

from peftsearch.errors import UsageError, did_you_mean
from peftsearch.policy.policy import Policy, PolicyContext
from peftsearch.policy.random import RandomPolicy
from peftsearch.policy.tpe import TpePolicy

__all__ = ["DEFAULT_POLICY", "POLICIES", "policy_named"]

POLICIES: dict[str, Callable[[PolicyContext], Policy]] = {
    "tpe": TpePolicy,
    "random": RandomPolicy,
}
DEFAULT_POLICY = "tpe"


def policy_named(name: str, context: PolicyContext) -> Policy:
    """A new policy; UsageError for an unknown name."""
    if name not in POLICIES:
        raise UsageError(f"policy '{name}' unknown{did_you_mean(name, POLICIES)}")
    return POLICIES[name](context)
