"""Readers of retrieval benchmarks: from each published layout to one `Benchmark`."""
