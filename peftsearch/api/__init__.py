"""The Python API: run a search, read a study, attach a configuration to your own model."""
