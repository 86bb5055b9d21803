"""Carrying a point of a frontier away: native, as a recipe, to peft."""
