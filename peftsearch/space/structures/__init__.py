"""The structures of a space: the valid combinations for its slots."""
