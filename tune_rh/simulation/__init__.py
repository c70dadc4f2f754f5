"""The same session on recorded curves, under a virtual clock."""
