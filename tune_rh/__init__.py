"""tune-rh decides what runs next, and runs it. Importing this package loads nothing heavy."""

__version__ = "0.1.0"
