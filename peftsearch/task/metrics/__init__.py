"""Scores of predictions and their standard errors, by what is predicted; named in metric.py."""
