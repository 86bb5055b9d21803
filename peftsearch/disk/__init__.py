"""Crash-safe files: atomic writes, locks, folders, JSON records, caches."""
