"""Scores of predictions and their standard errors, by what is predicted; all in table.py."""
