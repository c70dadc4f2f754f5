"""Diagnostics: what they are, what they look at, and how a family's own are asked."""
