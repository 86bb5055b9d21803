"""What a search does next: begin a configuration, go on with a trial, pause or stop it, or nothing.

A policy (`policy.py`) reads a History (`history.py`) and answers a Decision (`decisions.py`). It
knows no Optuna trial, file or lock of the study, so that a new one is one file and a row of
`table.py`.
"""
