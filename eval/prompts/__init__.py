"""Aligned prompts: what a student understands, measured without pictures."""
