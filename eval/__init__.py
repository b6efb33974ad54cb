"""What a student is worth: retrieval, translation, generation."""
