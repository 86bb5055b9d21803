"""What the workers of a study share: Optuna's storage, a lock, heartbeats, the trial store."""
