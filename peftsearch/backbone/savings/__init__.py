"""Savings of a frozen backbone: lower layers skipped, one token a text, low precision."""
