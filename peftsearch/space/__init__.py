"""Spaces: YAML ⇄ Optuna suggestions ⇄ Configuration, and budgets → widths."""
