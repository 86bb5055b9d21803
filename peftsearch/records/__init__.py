"""Files of a study and their schemas; imports neither torch nor Optuna."""
