"""Kinds of task: a file each says how rows become texts and targets, and how they are scored."""
