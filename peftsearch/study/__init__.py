"""One study with many workers: begin, ask, tell, recover; imports Optuna."""
