"""Kinds of task, one module each: reading rows into texts and targets, and the metrics."""
