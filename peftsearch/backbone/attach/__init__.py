"""Attaching the modifications of a configuration to a backbone, and detaching them."""
