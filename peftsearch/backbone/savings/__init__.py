"""Saving computation in a frozen backbone: skipped layers, one token a text, low precision."""
