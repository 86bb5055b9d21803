"""Storage that the workers of a study share: trials, the lock, heartbeats, files handed on."""
