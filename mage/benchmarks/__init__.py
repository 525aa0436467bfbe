"""Benchmarks of the library against a plain implementation of the method, on one machine."""
