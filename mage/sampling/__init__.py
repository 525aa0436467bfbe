"""Sampling: fill masked token grids."""
