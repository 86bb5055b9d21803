"""Functional forms, one concept a file; `design/form.py` lists them."""
