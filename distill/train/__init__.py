"""Training of a student: config, setup, steps, checkpoints, logs."""
