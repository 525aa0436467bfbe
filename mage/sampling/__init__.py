"""Sampling: predict the unknown tokens of a grid in a few passes."""
