"""Exporting a point of a frontier: native format, recipe or peft adapter."""
