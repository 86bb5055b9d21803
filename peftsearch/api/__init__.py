"""peftsearch from Python: searches, studies, and configurations on the user's own models."""
