"""Sharing a backbone: several configurations attached at once, each to its own rows of a batch."""
