"""The miniature: a controlled bilingual world of drawn scenes whose truth is known."""

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
"""The committed models: clip/, pipeline/, recogniser/."""
