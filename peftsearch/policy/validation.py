"""Validation of a policy's decisions; PolicyError for an invalid one."""

from __future__ import annotations

from typing import Any

from peftsearch.design.configuration import Configuration
from peftsearch.errors import PolicyError
from peftsearch.policy.decisions import Begin, Continue, Nothing, Pause, Stop, Verdict
from peftsearch.policy.history import History
from peftsearch.policy.policy import Policy

__all__ = ["next_decision", "rung_verdict"]


def next_decision(policy: Policy, history: History) -> Begin | Continue | Nothing:
    """The policy's decision for an idle worker; Nothing instead of Begin at the search's limit."""
    decision: Any = policy.next(history)
    if isinstance(decision, Begin):
        _refuse_unknown_start(policy, decision.proposal)
        full = Nothing("the limit on configurations is reached")
        return decision if history.may_begin else full
    if isinstance(decision, Continue):
        waiting = [record.number for record in history.trials if record.state == "waiting"]
        if decision.number not in waiting:
            raise _error(
                policy,
                f"continue trial {decision.number}, which is not waiting (waiting: "
                f"{', '.join(map(str, waiting)) or 'none'})",
            )
        return decision
    if isinstance(decision, Nothing):
        return decision
    raise _error(policy, f"{decision!r} for an idle worker; expected Begin, Continue or Nothing")


def rung_verdict(policy: Policy, history: History, number: int, rung: int) -> Verdict:
    """The verdict on a trial that reached a rung."""
    decision: Any = policy.after_rung(history, number, rung)
    if not isinstance(decision, (Continue, Pause, Stop)):
        raise _error(
            policy,
            f"{decision!r} for trial {number}, which reached a rung; "
            "expected Continue, Pause or Stop",
        )
    if decision.number != number:
        raise _error(policy, f"about trial {decision.number}, but was asked about trial {number}")
    return decision


def _refuse_unknown_start(policy: Policy, proposal: Any) -> None:
    suggests = hasattr(proposal, "suggest_categorical") and hasattr(proposal, "suggest_float")
    if not (suggests or isinstance(proposal, (dict, Configuration))):
        raise _error(
            policy,
            f"begin {proposal!r}; expected a dictionary of parameters, suggestions or a "
            "Configuration",
        )


def _error(policy: Policy, answered: str) -> PolicyError:
    return PolicyError(f"policy {type(policy).__name__} answered: {answered}")
