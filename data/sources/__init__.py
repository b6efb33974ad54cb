"""One adapter a published format: a frozen dataclass whose `read(root)` yields raw pair batches."""
