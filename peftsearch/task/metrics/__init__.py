"""Metrics: scores of predictions with standard errors, a file for each kind of prediction."""
