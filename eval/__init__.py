"""What a student is worth: retrieval, translation, generation."""

import os

for _library in ("TRANSFORMERS", "DIFFUSERS"):  # read when these are imported; what matters is said in lines of ours
    os.environ.setdefault(f"{_library}_VERBOSITY", "error")
