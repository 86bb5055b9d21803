"""A policy that answers what its script says, and keeps what it was told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from peftsearch.policy.decisions import Continue, Nothing
from peftsearch.policy.history import History
from peftsearch.policy.policy import Policy
from peftsearch.policy.table import POLICIES

__all__ = ["ScriptedPolicy", "scripted"]


@dataclass
class ScriptedPolicy(Policy):
    """`answers`: for an idle worker, one after the other, then Nothing. `verdicts`: on a trial at a
    rung, one after the other, then Continue. Anything may stand in them, decisions or not.
    """

    details: ClassVar[bool] = True
    answers: Sequence[Any] = ()
    verdicts: dict[tuple[int, int], Sequence[Any]] = field(default_factory=dict)
    heard: list[History] = field(default_factory=list)
    """The decision for an idle worker."""
    judged: list[tuple[int, int]] = field(default_factory=list)

    def next(self, history: History) -> Any:
        self.heard.append(history)
        count = len(self.heard)
        return self.answers[count - 1] if count <= len(self.answers) else Nothing("the script ends")

    def after_rung(self, history: History, number: int, rung: int) -> Any:
        self.judged.append((number, rung))
        said = self.verdicts.get((number, rung), ())
        times = self.judged.count((number, rung))
        return said[times - 1] if times <= len(said) else Continue(number)


def scripted(monkeypatch: pytest.MonkeyPatch, policy: ScriptedPolicy) -> ScriptedPolicy:
    """The policy under the name `scripted`."""
    monkeypatch.setitem(POLICIES, "scripted", lambda context: policy)
    return policy
