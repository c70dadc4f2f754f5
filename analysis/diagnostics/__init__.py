"""Diagnostics of single models, one file each; what they have in common is `analysis.api.Diagnostic`."""
