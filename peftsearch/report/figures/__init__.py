"""The figures of a report and their parts: axes, labels, published points."""
