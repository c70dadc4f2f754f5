"""One search of a small CNN, written for tune-rh and for others as their documentation has it."""
