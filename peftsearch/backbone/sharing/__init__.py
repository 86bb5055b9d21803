"""Several configurations attached to one backbone, each to its own rows of a batch."""
