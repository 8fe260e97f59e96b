"""Counts from any source to filtered cells, splits and genes."""
