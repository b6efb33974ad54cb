"""Students: one file a kind, and the tokenizers that they read with."""
