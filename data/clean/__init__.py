"""Cleaning in character units: normalise, score, accept, deduplicate, decontaminate."""
