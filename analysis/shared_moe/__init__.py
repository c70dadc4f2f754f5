"""What is asked of `shared_moe`: its baselines, and its diagnostics, one a file."""
