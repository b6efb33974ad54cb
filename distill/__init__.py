"""A bilingual student taught by a frozen CLIP text encoder."""

from distill.api import load_student, plug_into

__all__ = ["load_student", "plug_into"]
