"""An Optuna sampler that returns a policy's suggestions, for Optuna to record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from peftsearch.errors import ConfigurationError, PolicyError
from peftsearch.space.encode import Replay
from peftsearch.space.file.values import Suggester

__all__ = ["PolicySampler", "as_suggester"]


class PolicySampler(BaseSampler):
    """Suggests the values of `source`, which a policy has chosen."""

    def __init__(self) -> None:
        self.source: Suggester = Replay({})

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The source's suggestion; PolicyError if it has none or one out of range."""
        try:
            value = self._suggestion(param_name, param_distribution)
        except ConfigurationError as error:  # of a Replay
            raise PolicyError(f"trial {trial.number} cannot begin as proposed: {error}") from error
        if not _contains(param_distribution, value):
            raise PolicyError(
                f"trial {trial.number} cannot begin as proposed: '{param_name}' = {value!r} is not "
                f"in {param_distribution}"
            )
        return value

    def _suggestion(self, name: str, distribution: BaseDistribution) -> Any:
        if isinstance(distribution, CategoricalDistribution):
            return self.source.suggest_categorical(name, list(distribution.choices))
        assert isinstance(distribution, FloatDistribution)  # spaces have no others
        low, high, log = distribution.low, distribution.high, distribution.log
        return self.source.suggest_float(name, low, high, log=log)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and distribution.low <= value <= distribution.high


def as_suggester(proposal: Mapping[str, Any] | Suggester) -> Suggester:
    """Parameters as suggestions; suggestions as they are."""
    return Replay(proposal) if isinstance(proposal, Mapping) else proposal
