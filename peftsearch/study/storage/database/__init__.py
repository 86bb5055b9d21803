"""A study in a database that many machines reach."""
