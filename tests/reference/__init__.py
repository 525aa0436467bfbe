"""Slow twins: every formula again, with plain loops, written from the papers."""
