"""Figures of runs and of the code."""
