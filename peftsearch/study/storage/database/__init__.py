"""A study in a database that several machines share."""
