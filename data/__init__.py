"""Parallel corpora: sources, cleaning, tokens, batches."""
