"""Launchers: start workers as local processes, or on the nodes of a Ray cluster."""
