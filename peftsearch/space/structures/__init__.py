"""The structures of a space: valid ways to fill its slots."""
