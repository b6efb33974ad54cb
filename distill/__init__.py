"""A bilingual student taught by a frozen CLIP text encoder."""

from typing import TYPE_CHECKING

__all__ = ["load_student", "plug_into"]

if TYPE_CHECKING:
    from distill.api import load_student, plug_into
else:

    def __getattr__(name: str) -> object:
        """Import `distill.api`, which takes seconds of torch and transformers, when one of its names is asked for."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from distill import api

        return getattr(api, name)
