"""Exporting a point of a frontier: native format, recipe, peft."""
