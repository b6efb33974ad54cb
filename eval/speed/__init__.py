"""Measurements of speed and memory, of the project and of its peers."""
