"""Kinds of task, a file each: reading of rows into texts and targets, and metrics."""
