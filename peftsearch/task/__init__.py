"""Tasks: data → tokens, and the metric."""
