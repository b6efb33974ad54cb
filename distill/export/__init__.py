"""Export of a run: the folders and files that other programs load, with golden vectors and a model card."""
