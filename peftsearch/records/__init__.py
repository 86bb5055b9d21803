"""Files of a study and their schemas: results, curves, the study's folder; no torch, no Optuna."""
