"""Families that are made from Python objects: no module of theirs lies on a path, and no class need be importable."""
