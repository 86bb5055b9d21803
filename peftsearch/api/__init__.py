"""peftsearch from Python: studies (`open_study`), and configurations on one's own models."""
