"""Metrics, controls and the statistics of the comparison."""
