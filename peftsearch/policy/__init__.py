"""What to try next, and whether a trial may go on: seeds, the sampler, early stopping."""
