"""Composition functions, one concept a file; `design/composition.py` lists them."""
