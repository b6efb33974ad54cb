"""Retrieval benchmarks: readers of their published layouts."""
