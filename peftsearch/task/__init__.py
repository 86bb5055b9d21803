"""Tasks: loading data, tokenising it, and the metrics."""
