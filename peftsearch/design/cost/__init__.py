"""Predicted cost of a trial, in multiply-adds, from shapes alone."""
