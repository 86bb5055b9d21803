"""Storage shared by the workers of a study: trials, the lock, heartbeats and artifacts."""
