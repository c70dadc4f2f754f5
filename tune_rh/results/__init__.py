"""What a run on disk has come to, read at any moment, and its report."""
