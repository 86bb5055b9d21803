"""Search policies: they decide what runs next, and whether a trial continues at a rung.

A policy (`policy.py`) reads a History (`history.py`) and returns a Decision (`decisions.py`). It
uses no Optuna trial, file or lock of the study: a new policy is one file and a row of `table.py`.
"""
