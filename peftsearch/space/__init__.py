"""Spaces: YAML files, Optuna's suggestions ⇄ configurations, and budgets → widths."""
