"""A history as it is after so many events, kept beside the journal, so that a long one need not be folded again."""
