"""A study shared by many workers: create, ask, tell, recover. Imports Optuna."""
