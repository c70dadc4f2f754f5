"""One member in training: its job, its reports, its checkpoints."""
