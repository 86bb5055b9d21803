"""Memory: malloc's settings, the bound of a CPU worker, running out of it."""
