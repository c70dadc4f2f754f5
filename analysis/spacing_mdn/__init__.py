"""What is asked of `spacing_mdn`: its baselines, and its diagnostics, one a file."""
