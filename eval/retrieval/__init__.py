"""Zero-shot image-text retrieval of a student beside its teacher."""
