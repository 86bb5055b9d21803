"""Files that survive kills: atomic writes, locks, whole folders, JSON records, caches."""
