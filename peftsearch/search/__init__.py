"""The study: ask → evaluate → tell, rungs, resuming, workers."""
