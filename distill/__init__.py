"""A bilingual student taught by a frozen CLIP text encoder."""
