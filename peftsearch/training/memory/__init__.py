"""Memory: malloc settings, an upper bound for CPU workers, out-of-memory errors, peaks."""
