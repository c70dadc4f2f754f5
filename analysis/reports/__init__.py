"""What a person reads after a run: Markdown, figures, CSV and JSON from plain numbers. One module a kind of run."""
