"""What a study tells its sampler of results that no training gave."""

from __future__ import annotations

from pathlib import Path

from peftsearch.records.records import TrialResult
from support.standin import SPACE, create, open_study


def test_a_trial_that_nothing_fits_has_the_worst_metric_and_the_largest_size(
    tmp_path: Path, tiny_bert: Path
) -> None:
    """Budgets below one parameter: the sampler must learn to keep away."""
    space = SPACE.replace("log: [0.5, 20]", "log: [1.0e-5, 2.0e-5]")
    study = open_study(create(tiny_bert, tmp_path, space[: space.index("seed_with")]))
    result = study.ask()
    assert isinstance(result, TrialResult)
    assert (result.state, result.metric) == ("infeasible", None)
    (trial,) = study.study.get_trials()
    assert trial.values == [study.info.metric.worst, study.info.budget_hi_pct]
