"""Every figure that the project states about speed, each a ratio to a named baseline that is measured in the same run.

Not here: tests. Nothing fails for being slow; `RESULTS.md` says what was measured, when and on what.
"""
