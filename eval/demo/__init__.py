"""A page on which a student and its teacher draw and search side by side."""
