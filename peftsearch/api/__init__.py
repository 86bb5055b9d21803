"""peftsearch from Python: searches, studies, and configurations on one's own models."""
