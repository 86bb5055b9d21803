"""Objectives: losses, predictions and evaluations, a file for each kind of output."""
