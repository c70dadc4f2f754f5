"""The page of a run: facts, words, tables and figures."""
